package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/control"
)

// askWorkers asks each worker how it stands.
func (d *doctor) askWorkers(ctx context.Context) (list []control.Status, err error) {
	subject := control.Subject(d.names, control.Workers)
	err = d.Bus.Ask(ctx, subject, func(ctx context.Context) (err error) {
		list, err = control.Ask[control.Status](ctx, d.NATS, subject, nil, 0)
		return err
	})
	return list, err
}

// workers looks for jobs that nobody works on or that a worker cannot settle, and for names that several workers bear:
// results, events and gofer drain cannot tell those apart. err is why no worker answered.
func (d *doctor) workers(list []control.Status, err error, queues []queue) []Finding {
	if errors.Is(err, bus.ErrPermission) {
		return []Finding{{"workers", false, "this NATS user is not allowed to ask them"}}
	}
	if errors.Is(err, control.ErrNoWorkers) {
		return []Finding{nobody(d.names, queues)}
	}
	if err != nil {
		return []Finding{{"workers", false, err.Error()}}
	}
	// Sorted by name, so that the findings of two runs can be compared line by line.
	slices.SortFunc(list, func(a, b control.Status) int { return strings.Compare(a.Worker, b.Worker) })
	return slices.Concat([]Finding{names(list)}, Unready(list), lists(list), unsettled(list), breakers(list), unusual(list), versions(list), configurations(list), d.domains(list))
}

// nobody is said when no worker answers. A job of a worker that was killed counts as running until its ack wait is over.
func nobody(names jobs.Names, queues []queue) Finding {
	var open, pulls int
	for _, q := range queues {
		// A worker can never serve such a queue, and the finding about queues names the remedy.
		if jobs.ValidQueue(q.Queue) { // a worker would not help the others
			open += int(q.Queued+q.Due+q.Waiting) + q.Running
			pulls += q.Pulls
		}
	}
	switch {
	// An idle installation without workers is no fault: they may be started on demand.
	case open == 0:
		return Finding{"workers", true, "none answers"}
	// A pull request proves that a worker is connected. It does not hear the question, so its NATS user lacks
	// the right to subscribe.
	case pulls > 0:
		return Finding{"workers", false, fmt.Sprintf("none answers, though one asks for jobs (%d are not done): let its NATS user subscribe to %s", open, control.Subject(names, ">"))}
	}
	return Finding{"workers", false, fmt.Sprintf("none answers, and jobs are not done (%d): start one with gofer worker; what a killed one held is delivered again within %s", open, bus.AckWait)}
}

// names looks for a name that several workers bear, as copies of one container do if it is configured. Names
// are counted over answers: two processes with one name both answer the same question.
func names(list []control.Status) Finding {
	named := map[string]int{}
	for _, w := range list {
		named[w.Worker]++
	}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		if n := named[name]; n > 1 {
			return Finding{"workers", false, fmt.Sprintf("%d are named %s: give each its own GOFER_WORKER_NAME", n, name)}
		}
	}
	return Finding{"workers", true, fmt.Sprintf("%d answer, each by a name of its own", len(list))}
}

// unusual names each proxy whose share of 4xx at a site is far from that of the others there. gofer goes on using it.
func unusual(workers []control.Status) (list []Finding) {
	named := map[string]bool{}
	for _, w := range workers {
		for _, p := range w.Unusual {
			if !named[p.ProxyID] {
				named[p.ProxyID] = true
				list = append(list, Finding{"proxy " + p.ProxyID, false, p.String() + ": look at what it answers there, and remove it if that is not the site's"})
			}
		}
	}
	return list
}

// unsettled names each worker that holds jobs and cannot settle them, with the job that it holds for longest.
func unsettled(workers []control.Status) (list []Finding) {
	for _, w := range workers {
		if len(w.Unsettled) == 0 {
			continue
		}
		// The worker lists them by age, the one held for longest first.
		oldest := w.Unsettled[0]
		list = append(list, Finding{"worker " + w.Worker, false, fmt.Sprintf(
			"jobs held that cannot be settled: %d, since %s; job %s/%s: %s: %s",
			w.UnsettledJobs, oldest.Since.UTC().Format(time.RFC3339), oldest.Queue, oldest.ID, oldest.Step, oldest.Reason,
		)})
	}
	return list
}

// domains looks for a second JetStream of this account that has the job subjects, too: a job is stored in both, fetched twice
// and has two results.
func (d *doctor) domains(list []control.Status) []Finding {
	// This command's own domain is in the set from the start, so that a command that looks at another JetStream
	// than all workers is found too.
	domains := map[string]bool{d.Bus.Domain(): true}
	for _, w := range list {
		domains[w.Domain] = true
	}
	if len(domains) == 1 {
		return nil
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(domains)) {
		// Quoted, because the domain of a server without one is the empty string.
		names = append(names, strconv.Quote(name))
	}
	return []Finding{{"domains", false, fmt.Sprintf("the workers of this account and this command use more than one JetStream, by domain: %s; each fetches "+
		"every job: set GOFER_NATS_JS_DOMAIN to the same everywhere, and delete the streams of the others", strings.Join(names, ", "))}}
}
