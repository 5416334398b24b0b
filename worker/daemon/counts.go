package daemon

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/singleflight"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/fleet"
	"github.com/gofer-mq/gofer/worker/metrics"
	"github.com/gofer-mq/gofer/worker/waiting"
)

// counts is what the fleet's queues hold, as the worker that counts has shared it last.
type counts struct {
	mu       sync.Mutex // guards the fields below
	snapshot waiting.Snapshot
	taken    time.Time // by this machine's clock; zero before the first one

	asking sync.Mutex // is held by who counts because nobody has shared anything

	refreshing singleflight.Group
	answered   queueList // the latest answer about the queues; mu guards it
	answeredAt time.Time // zero: it is void
	voidAt     time.Time // what was asked for before this is void
}

// answerAge is for how long an answer about the queues serves all who ask: each one lists the consumers.
const answerAge = time.Second

// askBudget is about how long a worker reads waiting jobs for its page and API while nobody has counted them.
const askBudget = 200 * time.Millisecond

// latest returns the latest answer, and whether it may serve once more.
func (c *counts) latest() (queueList, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answered, time.Since(c.answeredAt) < answerAge
}

// keep keeps an answer for those who ask next; one that was void before it came would hide a change.
func (c *counts) keep(list queueList, began time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if began.After(c.voidAt) {
		c.answered, c.answeredAt = list, time.Now()
	}
}

// forgetAnswer makes the latest answer void, and one that is on its way: this worker has changed a queue, and who changed
// it has to see that.
func (c *counts) forgetAnswer() {
	c.refreshing.Forget("")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answeredAt, c.voidAt = time.Time{}, time.Now()
}

// followed is what the settings call with a snapshot that somebody has shared. One that cannot be read is of a
// newer version. The key of the snapshot lies in the bucket of the settings, which this worker watches anyway:
// no second watch is needed.
func (c *counts) followed(change fleet.Change) {
	if change.Value == nil {
		return // the last numbers stay until they are stale
	}
	if s, err := waiting.Parse(change.Value); err == nil {
		// The age is by the server's clock, so taken is right although the clocks of two workers differ.
		c.set(s, time.Now().Add(-change.Age))
	}
}

// set stores a snapshot and when it was taken over.
func (c *counts) set(s waiting.Snapshot, taken time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.snapshot, c.taken = s, taken
}

// get returns the snapshot and when it was taken; known is false if it is too old.
func (c *counts) get() (s waiting.Snapshot, taken time.Time, known bool) {
	// taken is zero before the first snapshot, and thereby too old.
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.snapshot, c.taken, time.Since(c.taken) < waiting.Stale
}

// refusedRest is how long a worker waits that lacks a right to count: each refusal is an error in the logs of the server.
const refusedRest = 10 * time.Minute

// shareCounts counts the jobs of the fleet and shares the numbers until ctx ends.
func (d *daemon) shareCounts(ctx context.Context, client *bus.Client) {
	// It is made for each leadership, since another worker has counted in between. It reads all waiting
	// jobs once.
	s := &sharer{client: client, counter: waiting.NewCounter(client, waiting.Config{Worker: d.cfg.Name})}
	failed := false
	for ctx.Err() == nil {
		began := time.Now()
		err := s.share(ctx)
		// One warning for each series of failures.
		if err != nil && ctx.Err() == nil && !failed {
			d.log.Warn("the fleet's jobs cannot be counted, trying again", "error", err)
		}
		failed = err != nil
		if errors.Is(err, bus.ErrPermission) {
			sleep(ctx, refusedRest)
		}
		// At least half of the period lies between two counts, however long one takes.
		sleep(ctx, max(waiting.Every/2, waiting.Every-time.Since(began)))
	}
}

// sharer counts the jobs of the fleet and shares the numbers during one leadership.
type sharer struct {
	client  *bus.Client
	counter *waiting.Counter
	kv      jetstream.KeyValue // kept between two counts, because the server is asked for it; nil after an error
	latest  waiting.Snapshot   // as it was shared last
	// counted is when latest was counted, and shared when it was shared; zero before the first time.
	counted, shared time.Time
}

// share counts and shares once. While the fleet is idle it mostly asks one question and does neither.
func (s *sharer) share(ctx context.Context) error {
	// A count over a million jobs takes several periods at first.
	ctx, cancel := context.WithTimeout(ctx, 6*waiting.Every)
	defer cancel()
	began := time.Now()
	// Half a period less, as calls do not come at exact times.
	isOver := func(since time.Time, period time.Duration) bool { return began.Sub(since) > period-waiting.Every/2 }
	at, unchanged := s.counter.Unchanged(ctx)
	if unchanged && !isOver(s.shared, waiting.IdleEvery) {
		return nil
	}
	if unchanged && !isOver(s.counted, waiting.RecountEvery) {
		s.latest.At = at
	} else {
		latest, err := s.counter.Count(ctx)
		if err != nil {
			return err
		}
		s.latest, s.counted = latest, began
	}
	if err := s.store(ctx); err != nil {
		s.kv = nil
		return err
	}
	s.shared = began
	return nil
}

// store shares the latest numbers.
func (s *sharer) store(ctx context.Context) (err error) {
	if s.kv == nil {
		if s.kv, err = s.client.Bucket(ctx, "policy"); err != nil {
			return err
		}
	}
	return waiting.Store(ctx, s.kv, s.latest)
}

// queues is how the queues of the fleet stand: what has been counted, with what the consumers know at this moment. All who
// ask within answerAge share an answer, and all who ask at the same time share a question. Without a connection it is what
// has been counted.
func (d *daemon) queues(ctx context.Context) (any, error) {
	if list, isFresh := d.counts.latest(); isFresh {
		return list, nil
	}
	// Who asked first may go away; the others still want the answer.
	answers := d.counts.refreshing.DoChan("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*waiting.Every)
		defer cancel()
		began := time.Now()
		list, err := d.askQueues(ctx)
		if err == nil {
			d.counts.keep(list, began)
		}
		return list, err
	})
	select {
	case answer := <-answers:
		return answer.Val, answer.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// askQueues returns the queues for the API: the fleet's count, with the current state of the consumers where the
// server answers.
func (d *daemon) askQueues(ctx context.Context) (list queueList, err error) {
	s, taken, err := d.counted(ctx)
	if err != nil {
		return list, err
	}
	if conn := d.connected.Load(); conn != nil && conn.nc.IsConnected() {
		if current, err := waiting.Refresh(ctx, conn.client, s); err == nil {
			s = current
		}
	}
	list = queuesView(s, taken)
	for i := range list.Queues {
		list.Queues[i].Served = d.isServed(&list.Queues[i].Queue)
	}
	return list, nil
}

// isServed reports whether a worker serves a queue at this moment: it asks for jobs or holds some, or it is this worker. A job of
// a killed worker counts as held until its ack wait is over.
func (d *daemon) isServed(q *waiting.Queue) bool {
	if !q.Served || q.Pulls > 0 || q.Running > 0 {
		return q.Served
	}
	conn := d.connected.Load()
	return conn != nil && !conn.worker.IsDraining() && slices.Contains(d.cfg.Streams.Queues, q.Queue)
}

// counted is what the fleet has counted last, and when. If no worker shares it, this one counts itself, once at a time.
func (d *daemon) counted(ctx context.Context) (s waiting.Snapshot, taken time.Time, err error) {
	if s, taken, known := d.counts.get(); known {
		return s, taken, nil
	}
	conn := d.connected.Load()
	if conn == nil || !conn.nc.IsConnected() {
		return s, taken, bus.ErrUnreachable
	}
	// Pages that ask at the same time wait for one count instead of making one each.
	d.counts.asking.Lock()
	defer d.counts.asking.Unlock()
	// Asked again: another caller may have counted while this one waited for the lock.
	s, taken, known := d.counts.get()
	if !known {
		taken = time.Now()
		if s, _, err = waiting.Ask(ctx, conn.client, askBudget); err != nil {
			return s, taken, err
		}
		// It is not stored in the bucket, since this worker does not lead. It serves this worker's pages until it is stale.
		d.counts.set(s, taken)
	}
	return s, taken, nil
}

// queueView is a queue in the API.
type queueView struct {
	waiting.Queue
	// Served says that a worker serves the queue at this moment, and not only that it has consumers.
	Served bool `json:"served"`
	// PausedUntil is null for a queue that is not paused.
	PausedUntil   *time.Time         `json:"paused_until"`
	Reasons       []waiting.Reason   `json:"reasons"`
	OldestSeconds map[string]float64 `json:"oldest_seconds"`
}

// queueList is the answer to a question for the queues.
type queueList struct {
	Queues []queueView `json:"queues"`
	// CountedAt is when they were counted, and Unread how many waiting jobs are in no number yet.
	CountedAt time.Time `json:"counted_at"`
	Unread    uint64    `json:"unread"`
}

// queuesView shows a snapshot. Ages grow since it was taken, by this machine's clock.
func queuesView(s waiting.Snapshot, taken time.Time) queueList {
	list := queueList{Queues: []queueView{}, CountedAt: s.At.UTC(), Unread: s.Unread}
	// Ages are counted from the server's time of the snapshot, plus what has passed here since.
	now := s.At.Add(time.Since(taken))
	for _, q := range s.Queues {
		view := queueView{Queue: q, Reasons: append([]waiting.Reason{}, q.Reasons...), OldestSeconds: q.OldestSeconds(now)}
		if !q.PausedUntil.IsZero() {
			paused := q.PausedUntil.UTC()
			view.PausedUntil = &paused
		}
		list.Queues = append(list.Queues, view)
	}
	return list
}

// fleetJobs is what the metrics show of the fleet's queues; nil while nobody shares it.
func (d *daemon) fleetJobs() map[string]metrics.FleetJobs {
	s, taken, known := d.counts.get()
	if !known {
		// The metrics then leave the family out instead of showing zeros.
		return nil
	}
	now := s.At.Add(time.Since(taken))
	out := map[string]metrics.FleetJobs{}
	for _, q := range s.Queues {
		view := metrics.FleetJobs{Jobs: map[string]uint64{}, Oldest: q.OldestSeconds(now), Overdue: q.Overdue}
		// Every state has a value, so a series does not disappear when its last job ends.
		for _, state := range jobs.States() {
			view.Jobs[state] = q.Count(state)
		}
		out[q.Queue] = view
	}
	return out
}
