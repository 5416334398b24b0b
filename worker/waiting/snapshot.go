// Package waiting counts the jobs of a fleet that have not ended: by queue, by state, and by the site that they wait for.
//
// One worker of the fleet counts and shares a Snapshot in a bucket, so that a reader needs one request, however many jobs
// wait and however many readers there are. The Counter reads each waiting job once and remembers 24 bytes of it. It
// compares its numbers with those of the server, and looks for jobs that are gone only where the numbers differ.
package waiting

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// Every is the time between two snapshots.
const Every = 5 * time.Second

// IdleEvery is the time between two snapshots while the fleet is idle. It is shorter than Stale. RecountEvery is the time between
// two that are counted: those between them repeat the one before, because nothing has come since.
const (
	// IdleEvery is the time between two snapshots while the fleet is idle. It is shorter than Stale.
	IdleEvery = 15 * time.Second
	// RecountEvery is the time between two counts while the fleet is idle. The snapshots in between repeat the latest count.
	RecountEvery = time.Minute
)

// Stale is the age from which a snapshot is not used: the worker that counts has died or cannot store another one. It is
// four times Every, so one slow count leaves no gap.
const Stale = 20 * time.Second

// Key is the key of the snapshot in the bucket of the policy, to which workers may write.
const Key = "waiting"

// Snapshot is the state of a fleet's queues at one moment.
type Snapshot struct {
	// At is when the count began, by the server's clock.
	At time.Time `json:"at"`
	// Worker is who counted.
	Worker string `json:"worker,omitempty"`
	// Unread is how many waiting jobs are missing in the numbers: they were not read yet, or are more than the counter may
	// remember.
	Unread uint64 `json:"unread,omitempty"`
	// Queues are those that have consumers or jobs, by name.
	Queues []Queue `json:"queues"`
}

// Queue is the state of one queue.
type Queue struct {
	// Running includes the jobs that a dead worker held, until its ack wait is over.
	Queue string `json:"queue"`
	// Served says that the queue has its consumers: without them no worker takes its jobs.
	Served bool `json:"served"`
	// PausedUntil is zero for a queue that is not paused.
	PausedUntil time.Time `json:"paused_until,omitzero"`
	// Pulls is the number of open requests of workers for jobs.
	Pulls int `json:"pulls"`
	// Queued includes due jobs that no worker has taken, and Running the jobs of a dead worker until the ack wait is over.
	Queued   uint64 `json:"queued"`
	Running  uint64 `json:"running"`
	Delayed  uint64 `json:"delayed"`
	Retrying uint64 `json:"retrying"`
	NoProxy  uint64 `json:"no_proxy"`
	SiteDown uint64 `json:"site_down"`
	// Overdue counts the waiting jobs that the server has not released at their time.
	Overdue uint64 `json:"overdue"`
	// Since is, by state, the time at which the oldest job of the state entered it; a state without jobs is missing.
	Since map[string]time.Time `json:"since"`
	// Reasons are the commonest reasons of jobs that wait for a proxy or a site, at most MaxReasons.
	Reasons []Reason `json:"reasons,omitempty"`
}

// MaxReasons is how many reasons a queue has in a snapshot. A page and a finding have room for about as many.
const MaxReasons = 5

// Reason is why some jobs of a queue wait.
type Reason struct {
	// State is jobs.StateNoProxy or jobs.StateSiteDown.
	State string `json:"state"`
	// Site is that of the jobs; empty for those of all other sites together.
	Site string `json:"site"`
	Jobs uint64 `json:"jobs"`
	// Since is when the first of them began to wait. Until is the time of the next attempt; zero if a worker releases
	// the jobs.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	// Detail is why no proxy could be used, according to one of the jobs; it may be empty.
	Detail string `json:"detail,omitempty"`
}

// Waiting is the number of jobs that wait.
func (q *Queue) Waiting() uint64 { return q.Delayed + q.Retrying + q.NoProxy + q.SiteDown }

// Count is the number of jobs in a state of the message contract.
func (q *Queue) Count(state string) uint64 {
	if n := q.count(state); n != nil {
		return *n
	}
	return 0
}

// count returns the number of jobs in a state; nil for an unknown state.
func (q *Queue) count(state string) *uint64 {
	switch state {
	case jobs.StateQueued:
		return &q.Queued
	case jobs.StateRunning:
		return &q.Running
	case jobs.StateDelayed:
		return &q.Delayed
	case jobs.StateRetrying:
		return &q.Retrying
	case jobs.StateNoProxy:
		return &q.NoProxy
	case jobs.StateSiteDown:
		return &q.SiteDown
	}
	return nil
}

// Store shares a snapshot with the fleet. Only the worker that counts calls it.
func Store(ctx context.Context, kv jetstream.KeyValue, s Snapshot) error {
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode what the queues hold: %w", err)
	}
	_, err = kv.Put(ctx, Key, data)
	return err
}

// Parse reads what Store wrote. Unknown fields are ignored: a newer worker may have written it.
func Parse(value []byte) (Snapshot, error) {
	var s Snapshot
	if err := json.Unmarshal(value, &s); err != nil {
		return Snapshot{}, fmt.Errorf("read what the queues hold: %w", err)
	}
	return s, nil
}

// Ask returns the snapshot of the fleet; then shared is true. If it cannot be read, or is Stale, Ask counts: it reads
// waiting jobs for about budget, and Unread says how many it has not read.
//
// Errors: bus.ErrNotSetUp, bus.ErrPermission; any other one may pass.
func Ask(ctx context.Context, c *bus.Client, budget time.Duration) (s Snapshot, shared bool, err error) {
	state, err := c.WaitingState(ctx)
	if err != nil {
		return Snapshot{}, false, err
	}
	// Any failure to read the snapshot, a missing bucket or a missing right included, leads to counting: the
	// answer costs more, and is the same.
	if kv, err := c.Bucket(ctx, "policy"); err == nil {
		if entry, err := kv.Get(ctx, Key); err == nil && state.Now.Sub(entry.Created()) < Stale {
			if s, err := Parse(entry.Value()); err == nil {
				// A queue may have been paused a moment ago.
				if current, err := Refresh(ctx, c, s); err == nil {
					s = current
				}
				return s, true, nil
			}
		}
	}
	s, err = NewCounter(c, Config{Budget: budget}).Count(ctx)
	return s, false, err
}
