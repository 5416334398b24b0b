package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/worker/control"
	"github.com/gofer-mq/gofer/worker/waiting"
)

// queue is what the consumers of a queue know at this moment, and what the fleet has counted of its waiting jobs.
type queue struct {
	// The embedded state comes from the consumers, with Waiting and Overdue taken from the count below.
	client.QueueState
	counted waiting.Queue
	served  bool
}

// waitingBudget is about how long waiting jobs are read if no worker has counted them.
const waitingBudget = 5 * time.Second

// readQueues asks how the queues stand.
func (d *doctor) readQueues(ctx context.Context) (list []queue, err error) {
	consumed, err := d.client.ConsumedQueues(ctx)
	if err != nil {
		return nil, err
	}
	for _, q := range consumed {
		list = append(list, queue{QueueState: q})
	}
	counts, _, err := waiting.Ask(ctx, d.Bus, waitingBudget)
	if err != nil {
		return nil, err
	}
	for _, q := range counts.Queues {
		i := slices.IndexFunc(list, func(known queue) bool { return known.Queue == q.Queue })
		// ConsumedQueues does not know a queue without consumers that has only waiting jobs, or whose jobs are behind many
		// others. It is added, because its jobs would wait forever.
		if i < 0 && q.Queued+q.Waiting() > 0 {
			i = len(list)
			list = append(list, queue{QueueState: client.QueueState{Queue: q.Queue, Queued: q.Queued}})
		}
		if i >= 0 {
			list[i].counted, list[i].Waiting, list[i].Overdue = q, q.Waiting(), q.Overdue
		}
	}
	return list, nil
}

// markServed notes of each queue whether a worker serves it. err is that of the question to the workers.
func markServed(queues []queue, workers []control.Status, err error) {
	for i := range queues {
		queues[i].served = IsServed(&queues[i].QueueState, workers, err)
	}
}

// IsServed reports whether a worker serves a queue at this moment: a worker asks for its jobs, or answers and names the queue.
// A worker that drains takes no more jobs. err is that of the question to the workers. If they could not be asked, a job that
// runs is evidence, too, though a job of a killed worker counts as running until its ack wait is over.
func IsServed(q *client.QueueState, workers []control.Status, err error) bool {
	if !q.Served || q.Pulls > 0 {
		return q.Served
	}
	for _, w := range workers {
		if !w.Draining && slices.ContainsFunc(w.Queues, func(its control.Queue) bool { return its.Queue == q.Queue }) {
			return true
		}
	}
	unasked := err != nil && (!errors.Is(err, control.ErrNoWorkers) || errors.Is(err, bus.ErrPermission))
	return unasked && q.Running > 0
}

// queues says of each queue whether its jobs run, and if not, why.
func (d *doctor) queues(queues []queue) []Finding {
	var list []Finding
	for _, q := range queues {
		name := "queue " + q.Queue
		if !jobs.ValidQueue(q.Queue) && q.Queue != waiting.OtherQueues {
			name = fmt.Sprintf("queue %+q", q.Queue)
		}
		if trouble := Trouble(d.names, &q.QueueState, &q.counted, q.served); trouble != "" {
			list = append(list, Finding{name, false, trouble})
			continue
		}
		unserved := ""
		if !q.served { // no fault without jobs: the queue may be out of use, and its consumers stay
			unserved = "no worker serves it now, "
		}
		list = append(list, Finding{name, true, unserved + fmt.Sprintf("%d queued, %d running, %d delayed, %d retrying, %d waiting for a site", q.Queued+q.Due, q.Running, q.counted.Delayed, q.counted.Retrying, q.counted.SiteDown)})
	}
	return list
}

// Trouble says why jobs of a queue do not run, and what to do about that; empty if nothing hinders them. q is what the consumers
// know, counted what the fleet has counted, and served what IsServed says. The first reason in this order is the one to repair
// first.
func Trouble(names jobs.Names, q *client.QueueState, counted *waiting.Queue, served bool) string {
	queued := q.Queued + q.Due
	switch {
	case q.Queue == waiting.OtherQueues:
		return fmt.Sprintf("jobs wait (%d) in queues that are not counted by themselves, for there are too many: repair those that are named here first", queued+q.Waiting)
	case !q.Served && queued+q.Waiting == 0: // perhaps its consumers could not be asked
		return ""
	// A name that no queue can have is checked first: for the others the remedy is to serve the queue,
	// which is impossible here.
	case !q.Served && !jobs.ValidQueue(q.Queue):
		return fmt.Sprintf("jobs wait (%d) and none will ever be taken, for no queue can bear that name: %s", queued, howToRemove(names, q.Queue))
	case !q.Served:
		return fmt.Sprintf("jobs wait (%d) and no worker has ever served it: add it to GOFER_QUEUES of a worker; if it is misspelt, gofer cancel --queue %s ends its jobs", queued+q.Waiting, q.Queue)
	case !q.PausedUntil.IsZero():
		return fmt.Sprintf("paused%s, jobs wait (%d): gofer resume %s", until(q.PausedUntil), queued, q.Queue)
	// Jobs that wait for their time need a worker then.
	case !served && queued+q.Waiting > 0:
		return fmt.Sprintf("jobs wait (%d) and no worker serves it now: gofer workers says which worker runs, is ready and has it in GOFER_QUEUES; gofer worker starts one", queued+q.Waiting)
	// Running jobs prove that a worker is there: it may hold as many as it has slots and ask for no more at
	// the moment.
	case queued > 0 && q.Pulls == 0 && q.Running == 0:
		return fmt.Sprintf("jobs wait (%d) and no worker asks for them: gofer workers says which worker runs and is ready; gofer worker starts one", queued)
	case counted.NoProxy > 0:
		return withoutProxy(counted)
	}
	return ""
}

// withoutProxy says why jobs of a queue wait for a proxy, and what helps.
func withoutProxy(q *waiting.Queue) string {
	var sentences []string
	for _, r := range q.Reasons {
		if r.State == jobs.StateNoProxy {
			sentences = append(sentences, r.String())
		}
	}
	// The reasons of a snapshot are bounded by waiting.MaxReasons, so those of this state may be missing.
	if len(sentences) == 0 { // there are so many other reasons
		sentences = []string{fmt.Sprintf("%d jobs wait for a proxy", q.NoProxy)}
	}
	return strings.Join(sentences, "; ") + ": " + jobs.NoProxyRemedy
}

// until is the end of a pause in words. A consumer is paused until a time, so gofer pause without an end sets one that is a
// century away; that is not worth showing.
func until(end time.Time) string {
	if time.Until(end) > 10*365*24*time.Hour {
		return ""
	}
	return " until " + end.UTC().Format(time.RFC3339)
}

// howToRemove is how to get rid of the jobs in a queue whose name is none. A name that may hold anything must not make a command
// that empties other queues, or that a shell takes for more than one word.
func howToRemove(names jobs.Names, queue string) string {
	stream := names.Stream("JOBS")
	// A dot is allowed: it separates tokens, and the subject is matched literally. A blank, a wildcard, an
	// angle bracket or a quote is not.
	if strings.ContainsFunc(queue, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("*>'", r) }) {
		return fmt.Sprintf("find them with nats stream view %s and delete each with nats stream rmm %[1]s SEQUENCE", stream)
	}
	return fmt.Sprintf("nats stream purge %s --subject '%s'", stream, names.Jobs(queue))
}

// overdue says how many jobs the server has not released at their time, and what to do about them.
func overdue(queues []queue) Finding {
	const name = "waiting jobs"
	var overdue, waiting uint64
	// The sums are over all queues, served or not: an overdue job is a fault of the server, which does not know
	// queues.
	for _, q := range queues {
		overdue += q.Overdue
		waiting += q.Waiting
	}
	if overdue == 0 {
		return Finding{name, true, fmt.Sprintf("none is overdue (of %d)", waiting)}
	}
	return Finding{name, false, fmt.Sprintf("overdue (%d): the server has not released them at their time; a worker does within two minutes. "+
		"If it does not, start one of this version and give its NATS user the rights of deploy/nats/server.conf; upgrade nats-server to 2.14.10, 2.15.3 or newer", overdue)}
}
