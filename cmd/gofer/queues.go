package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/worker/control"
	"github.com/gofer-mq/gofer/worker/doctor"
	"github.com/gofer-mq/gofer/worker/waiting"
)

// waitingBudget is about how long waiting jobs are read if no worker has counted them. A person waits for the table meanwhile,
// and a large backlog would take minutes.
const waitingBudget = 500 * time.Millisecond

// queuesCommand lists each queue with its jobs by state, and below them what most of the jobs wait for.
func (a *app) queuesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "queues", Short: "List the queues, how many jobs are in which state, and why jobs wait",
		Long: `Lists the queues and how many jobs of each are queued, running, delayed (they wait for their time), retrying (for their next
attempt), or wait for a proxy (no proxy) or for their site (site down), and how old the oldest job is. Below the table it says why jobs
do not run and which command helps: queues that are paused or that nobody serves, what most jobs wait for, workers that take no jobs,
many dead letters.

A queue is served while a worker asks for its jobs, or answers and names it.

Overdue jobs wait although their time has passed, because the server has not released them; a worker does so within two minutes. The
states of waiting jobs are counted by one worker of the fleet every 5 s. If no worker runs, the jobs are read, for about half a second.`,
		Args: args(cobra.NoArgs),
		RunE: a.verb("queues", func(ctx context.Context, s *session, _ []string) error {
			list, unread, err := askQueues(ctx, s)
			if err != nil {
				return err
			}
			workers, silence := askWorkers(ctx, s, control.WorkersRequest{})
			markServed(list, workers, silence)
			// A large backlog is counted step by step, so the first numbers may be too low.
			if unread > 0 {
				a.note("%d waiting jobs have not been read yet: each number of delayed, retrying, no proxy and site down is at least what is shown", unread)
			}
			if a.json {
				return a.printJSON(list)
			}
			return a.printQueues(ctx, s, list, workers, silence)
		}),
	}
}

// queueRow is a queue as it is printed. The embedded state comes from the consumers at this moment, the other
// fields from the count of the fleet. oldest and counted are for the table only, so they are no members of the
// JSON.
type queueRow struct {
	client.QueueState
	// Served says that a worker serves the queue at this moment, and not only that it has consumers.
	Served bool `json:"served"`
	// These count the waiting jobs by what they wait for: their time, their next attempt, a proxy, their site.
	Delayed  uint64 `json:"delayed"`
	Retrying uint64 `json:"retrying"`
	NoProxy  uint64 `json:"no_proxy"`
	SiteDown uint64 `json:"site_down"`
	// OldestSeconds is how long the oldest job of each state has been in it, at the time of the count.
	OldestSeconds map[string]float64 `json:"oldest_seconds"`
	// Reasons are what most of the waiting jobs wait for, the most frequent first.
	Reasons []waiting.Reason `json:"reasons"`
	// oldest is since when the oldest job of all states is in its state; zero without a job.
	oldest time.Time
	// counted is the whole count, for doctor.Trouble.
	counted waiting.Queue
}

// askQueues puts together what the consumers know at this moment and what the fleet has counted of the waiting
// jobs. The list is sorted by queue, and unread is how many waiting jobs nobody has counted yet. Whether a
// worker serves them is left to markServed.
func askQueues(ctx context.Context, s *session) (list []queueRow, unread uint64, err error) {
	// Both are read. The consumers know at this moment how many jobs are queued and running, but not what the others wait for. The
	// count of the fleet knows that, and may be 5 s old.
	queues, err := s.client.ConsumedQueues(ctx)
	if err != nil {
		return nil, 0, err
	}
	counted, _, err := waiting.Ask(ctx, s.bus, waitingBudget)
	if err != nil {
		return nil, 0, err
	}
	for _, q := range counted.Queues {
		i := slices.IndexFunc(queues, func(l client.QueueState) bool { return l.Queue == q.Queue })
		// A queue without consumers, such as a misspelt one, is known only by its jobs.
		if i < 0 && q.Queued+q.Waiting() > 0 {
			i = len(queues)
			queues = append(queues, client.QueueState{Queue: q.Queue, Queued: q.Queued})
		}
		if i >= 0 {
			queues[i].Waiting, queues[i].Overdue = q.Waiting(), q.Overdue
		}
	}
	slices.SortFunc(queues, func(a, b client.QueueState) int { return strings.Compare(a.Queue, b.Queue) })
	// A queue that only the consumers or only the count know has empty maps and lists: null in JSON would break a script's loop.
	for _, q := range queues {
		row := queueRow{QueueState: q, OldestSeconds: map[string]float64{}, Reasons: []waiting.Reason{}}
		if i := slices.IndexFunc(counted.Queues, func(other waiting.Queue) bool { return other.Queue == q.Queue }); i >= 0 {
			row.add(&counted.Queues[i], counted.At)
		}
		list = append(list, row)
	}
	return list, counted.Unread, nil
}

// markServed notes which queues a worker serves at this moment. silence is the error of the question to the workers.
func markServed(list []queueRow, workers []control.Status, silence error) {
	for i := range list {
		list[i].Served = doctor.IsServed(&list[i].QueueState, workers, silence)
	}
}

// add takes over what the fleet has counted. at is when the fleet counted: ages of states are of that moment.
func (r *queueRow) add(q *waiting.Queue, at time.Time) {
	r.Delayed, r.Retrying, r.NoProxy, r.SiteDown = q.Delayed, q.Retrying, q.NoProxy, q.SiteDown
	r.OldestSeconds, r.oldest = q.OldestSeconds(at), q.Oldest()
	r.Reasons = append(r.Reasons, q.Reasons...)
	r.counted = *q
	// All queued jobs were taken since the count. Its age would be that of a job that is queued no more.
	if r.Queued+r.Due == 0 {
		r.OldestSeconds[jobs.StateQueued] = 0
	}
}

// state says in a word or two whether the queue's jobs are taken.
func (r *queueRow) state() string {
	switch {
	// The order is that of what has to be repaired first.
	case !r.Served:
		return "not served"
	case !r.PausedUntil.IsZero():
		return "paused"
	}
	return "served"
}

// queueTable is how queues are listed. Ages grow from one call to the next: they are counted from the oldest job's time.
func queueTable(list []queueRow) (header table.Row, rows []table.Row) {
	for _, q := range list {
		// A queue without jobs has no oldest one.
		oldest, state := "-", q.state()
		if !q.oldest.IsZero() {
			oldest = age(q.oldest)
		}
		// Overdue jobs are rare and a sign of trouble, so they stand with the state and have no column that is nearly always zero.
		if q.Overdue > 0 {
			state = fmt.Sprintf("%d overdue, %s", q.Overdue, state)
		}
		rows = append(rows, table.Row{q.Queue, q.Queued + q.Due, q.Running, q.Delayed, q.Retrying, q.NoProxy, q.SiteDown, oldest, state})
	}
	return table.Row{"queue", "queued", "running", "delayed", "retrying", "no proxy", "site down", "oldest", "state"}, rows
}

// printQueues prints the table, and below it what keeps jobs from running.
func (a *app) printQueues(ctx context.Context, s *session, list []queueRow, workers []control.Status, silence error) error {
	if err := a.out.table(queueTable(list)); err != nil {
		return err
	}
	// Sentences follow the table, since they fit no column.
	for _, line := range append(queueTroubles(s.names, list), a.fleetTroubles(ctx, s, workers, silence)...) {
		if err := a.out.line("%s", line); err != nil {
			return err
		}
	}
	return nil
}

// queueTroubles says of each queue whose jobs do not run why, and what to do. It returns nothing for a queue
// without trouble.
func queueTroubles(names jobs.Names, list []queueRow) (lines []string) {
	for _, q := range list {
		if trouble := doctor.Trouble(names, &q.QueueState, &q.counted, q.Served); trouble != "" {
			lines = append(lines, fmt.Sprintf("queue %s: %s", q.Queue, trouble))
		}
		for _, r := range q.Reasons {
			// The columns count the jobs of the other reasons. Only this reason names something more: the site.
			if r.State == jobs.StateSiteDown {
				lines = append(lines, fmt.Sprintf("queue %s: %s", q.Queue, r))
			}
		}
	}
	return lines
}

// fleetTroubles says which workers take no jobs and why, and whether many jobs have failed. A question that this user may not ask
// is noted and is no error, because the table is what the verb is for. The caller makes the lines printable: strangers choose the
// names of workers.
func (a *app) fleetTroubles(ctx context.Context, s *session, workers []control.Status, silence error) (lines []string) {
	if errors.Is(silence, bus.ErrPermission) {
		a.note("whether workers take jobs is not shown: %v", silence)
	}
	for _, f := range doctor.Unready(workers) {
		lines = append(lines, f.Name+": "+f.Detail)
	}
	// An error, such as a missing right, is ignored: the lines only point at trouble, and gofer doctor names the error.
	if text, many, err := doctor.Letters(ctx, s.bus); err == nil && many {
		lines = append(lines, "dead letters: "+text)
	}
	return lines
}
