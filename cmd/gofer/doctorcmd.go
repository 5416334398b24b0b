package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/config"
	"github.com/gofer-mq/gofer/worker/control"
)

// finding is one thing that the doctor has looked at.
type finding struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Find out what is wrong: configuration, server, streams, queues that nobody serves",
		Args:  args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context()) },
	}
}

func (a *app) doctor(ctx context.Context) error {
	c, err := a.loadConfig()
	if bad, ok := errors.AsType[*config.Error](err); ok && a.json {
		var list []finding
		for _, reason := range bad.Reasons {
			list = append(list, finding{"configuration", false, reason})
		}
		return errors.Join(err, a.printJSON(list))
	}
	if err != nil {
		return err
	}
	list, err := a.examine(ctx, c)
	if ctx.Err() != nil {
		return context.Cause(ctx) // what was not answered is no finding
	}
	if a.json {
		if jsonErr := a.printJSON(list); jsonErr != nil {
			return jsonErr
		}
	} else {
		for _, f := range list {
			mark := "ok  "
			if !f.OK {
				mark = "BAD "
			}
			_ = a.out.line("%s %-16s %s", mark, f.Name, f.Detail)
		}
	}
	if err != nil {
		return err
	}
	for _, f := range list {
		if !f.OK {
			return errors.New("something needs your attention")
		}
	}
	return nil
}

// examine looks at one thing after the other; an error ends it, for what follows would only repeat it.
func (a *app) examine(ctx context.Context, c config.Config) ([]finding, error) {
	list := []finding{{"configuration", true, "every variable is known and in range"}}
	proxies, err := c.ReadProxies()
	switch {
	case err != nil:
		list = append(list, finding{"proxies", false, err.Error()})
	case len(proxies) == 0:
		list = append(list, finding{"proxies", true, "none in this environment; workers may have theirs, or the bucket"})
	default:
		list = append(list, finding{"proxies", true, fmt.Sprintf("%d in this environment", len(proxies))})
	}
	s, err := a.connect(ctx, "doctor")
	if err != nil {
		return append(list, finding{"nats", false, err.Error()}), err
	}
	defer s.close()
	list = append(list, s.server(ctx))
	list = append(list, s.clock(ctx)...)
	list = append(list, s.streams(ctx)...)
	queues, err := s.client.Queues(ctx)
	if err != nil {
		list = append(list, finding{"queues", false, err.Error()})
	}
	list = append(list, s.queues(queues)...)
	list = append(list, s.overdue(ctx, queues))
	return append(list, s.workers(ctx, queues)...), nil
}

// workers looks for jobs that nobody works on or that a worker cannot settle, and for names that several workers bear:
// results, events and gofer drain cannot tell those apart.
func (s *session) workers(ctx context.Context, queues []bus.QueueState) []finding {
	list, err := askFleet[control.Status](ctx, s, control.Workers, nil, 0)
	if errors.Is(err, control.ErrNoWorkers) {
		// A refusal is told of on the side, and the question runs into its time limit.
		if last := s.nc.LastError(); errors.Is(last, nats.ErrPermissionViolation) && strings.Contains(last.Error(), control.Subject(s.names, control.Workers)) {
			return []finding{{"workers", false, "this NATS user is not allowed to ask them"}}
		}
		return []finding{nobody(s.names, queues)}
	}
	if err != nil {
		return []finding{{"workers", false, err.Error()}}
	}
	out := append([]finding{names(list)}, unsettledFindings(list)...)
	return append(out, s.domains(list)...)
}

// domains looks for a second JetStream of this account that has the job subjects, too: a job is stored in both, fetched twice
// and has two results.
func (s *session) domains(list []control.Status) []finding {
	domains := map[string]bool{s.bus.Domain(): true}
	for _, w := range list {
		domains[w.Domain] = true
	}
	if len(domains) == 1 {
		return nil
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(domains)) {
		names = append(names, strconv.Quote(name))
	}
	return []finding{{"domains", false, fmt.Sprintf("the workers of this account and this command use more than one JetStream, by domain: %s; each fetches "+
		"every job: set GOFER_NATS_JS_DOMAIN to the same everywhere, and delete the streams of the others", strings.Join(names, ", "))}}
}

func names(list []control.Status) finding {
	named := map[string]int{}
	for _, w := range list {
		named[w.Worker]++
	}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		if n := named[name]; n > 1 {
			return finding{"workers", false, fmt.Sprintf("%d are named %s: give each its own GOFER_WORKER_NAME", n, name)}
		}
	}
	return finding{"workers", true, fmt.Sprintf("%d answer, each by a name of its own", len(list))}
}

// nobody is said when no worker answers. A job of a worker that was killed counts as running until its ack wait is over.
func nobody(names jobs.Names, queues []bus.QueueState) finding {
	var open, pulls int
	for _, q := range queues {
		if jobs.ValidQueue(q.Queue) { // a worker would not help the others
			open += int(q.Queued+q.Due+q.Waiting) + q.Running
			pulls += q.Pulls
		}
	}
	switch {
	case open == 0:
		return finding{"workers", true, "none answers"}
	case pulls > 0:
		return finding{"workers", false, fmt.Sprintf("none answers, though one asks for jobs (%d are not done): let its NATS user subscribe to %s", open, control.Subject(names, ">"))}
	}
	return finding{"workers", false, fmt.Sprintf("none answers, and jobs are not done (%d): start one with gofer worker; what a killed one held is taken anew within %s", open, bus.AckWait)}
}

func (s *session) server(ctx context.Context) finding {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	asked := time.Now()
	err := s.nc.FlushWithContext(ctx)
	rtt := time.Since(asked)
	if err != nil {
		return finding{"nats", false, "the server does not answer a ping: " + err.Error()}
	}
	return finding{"nats", true, fmt.Sprintf("nats-server %s, round trip %s", s.nc.ConnectedServerVersion(), rtt.Round(10*time.Microsecond))}
}

// clock compares the server's clock, by which waits end, with this machine's. Workers judge deadlines by their own.
func (s *session) clock(ctx context.Context) []finding {
	asked := time.Now()
	stream, err := s.bus.JetStream().Stream(ctx, s.names.Stream("JOBS"))
	if err != nil || stream.CachedInfo().TimeStamp.IsZero() {
		return nil // said with the streams
	}
	off := clockError(asked, time.Now(), stream.CachedInfo().TimeStamp)
	if off.Abs() <= time.Second {
		return []finding{{"clock", true, "the server's and this machine's agree"}}
	}
	way := "ahead of"
	if off < 0 {
		way = "behind"
	}
	return []finding{{"clock", false, fmt.Sprintf("the server's is %s %s this machine's: not_before, deadline and waits are off by as much; set both by NTP", brief(off.Abs()), way)}}
}

// clockError is how far a server's clock is ahead at least, which told its time between asked and answered.
func clockError(asked, answered, told time.Time) time.Duration {
	switch {
	case told.After(answered):
		return told.Sub(answered)
	case told.Before(asked):
		return told.Sub(asked)
	}
	return 0
}

func (s *session) streams(ctx context.Context) []finding {
	differences, err := s.bus.Inspect(ctx, s.config.Settings())
	if err != nil {
		return []finding{{"streams", false, config.Explain(err)}}
	}
	var list []finding
	bad := false
	for _, d := range differences {
		if d.Repair == bus.OwnersChoice && d.Use == bus.Obeyed {
			list = append(list, finding{"streams", true, fmt.Sprintf("%s: %s is %s, which workers keep to", d.Name, d.Field, d.Have)})
			continue
		}
		bad = true
		detail := d.String() + consequence(d.Use)
		if repair := config.Repair(d); repair != "" {
			detail += " (" + repair + ")"
		}
		list = append(list, finding{"streams", false, detail})
	}
	if !bad {
		list = append(list, finding{"streams", true, "all there, and as this environment has them"})
	}
	return list
}

// consequence is what workers make of a setting, if it is more than a difference.
func consequence(use bus.Use) string {
	switch use {
	case bus.Unusable:
		return ", and workers take no jobs while it is so"
	case bus.Lossy:
		return ", and the server may lose or refuse messages"
	case bus.Obeyed, bus.Harmless:
	}
	return ""
}

// until is the end of a pause that has one: a pause without is one of a century.
func until(end time.Time) string {
	if time.Until(end) > 10*365*24*time.Hour {
		return ""
	}
	return " until " + end.UTC().Format(time.RFC3339)
}

func (s *session) queues(queues []bus.QueueState) []finding {
	var list []finding
	for _, q := range queues {
		name := "queue " + q.Queue
		waiting := q.Queued + q.Due
		switch {
		case !q.Served && !jobs.ValidQueue(q.Queue):
			list = append(list, finding{fmt.Sprintf("queue %+q", q.Queue), false, fmt.Sprintf("jobs wait (%d) and none will ever be taken, for no queue can bear that name: %s", waiting, s.riddance(q.Queue))})
		case !q.Served:
			list = append(list, finding{name, false, fmt.Sprintf("jobs wait (%d) and no worker has ever served it: add it to GOFER_QUEUES, or is it misspelt?", waiting)})
		case !q.PausedUntil.IsZero():
			list = append(list, finding{name, false, fmt.Sprintf("paused%s, jobs wait (%d): gofer resume %s", until(q.PausedUntil), waiting, q.Queue)})
		case waiting > 0 && q.Pulls == 0 && q.Running == 0:
			list = append(list, finding{name, false, fmt.Sprintf("jobs wait (%d) and no worker asks for them: start one", waiting)})
		default:
			list = append(list, finding{name, true, fmt.Sprintf("%d queued, %d running, %d waiting for their time", waiting, q.Running, q.Waiting)})
		}
	}
	return list
}

// riddance is how to get rid of the jobs in a queue whose name is none. A name that may hold anything must not make a command
// that empties other queues, or that a shell takes for more than one word.
func (s *session) riddance(queue string) string {
	stream := s.names.Stream("JOBS")
	if strings.ContainsFunc(queue, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("*>'", r) }) {
		return fmt.Sprintf("find them with nats stream view %s and delete each with nats stream rmm %[1]s SEQUENCE", stream)
	}
	return fmt.Sprintf("nats stream purge %s --subject '%s'", stream, s.names.Jobs(queue))
}

// overdue counts the jobs that the server has not released at their time, and says what to do about them.
func (s *session) overdue(ctx context.Context, queues []bus.QueueState) finding {
	const name = "waiting jobs"
	if err := s.client.CountOverdue(ctx, queues); err != nil {
		return finding{name, false, err.Error()}
	}
	var overdue, waiting uint64
	for _, q := range queues {
		overdue += q.Overdue
		waiting += q.Waiting
	}
	if overdue == 0 {
		return finding{name, true, fmt.Sprintf("none is overdue of those that wait for their time (%d)", waiting)}
	}
	return finding{name, false, fmt.Sprintf("overdue (%d): the server has not released them at their time; a worker does within two minutes. "+
		"If it does not, start one of this version and give its NATS user the rights of deploy/nats/server.conf; upgrade nats-server to 2.14.10, 2.15.3 or newer", overdue)}
}
