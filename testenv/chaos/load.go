package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// publishers is how many publish at once, each one job after the other.
const publishers = 16

// publish publishes the jobs evenly over the load's time. A publisher tries a job again until the server has it: a
// refusal as queued or finished tells that an earlier try got through and only its answer was lost.
func (w *world) publish(ctx context.Context, acked *sync.Map) error {
	start := time.Now()
	var next atomic.Int64
	var all sync.WaitGroup
	var failed atomic.Pointer[error]
	for range publishers {
		all.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= w.jobs || ctx.Err() != nil {
					return
				}
				sleep(ctx, time.Until(start.Add(w.pace.load*time.Duration(n)/time.Duration(w.jobs))))
				k := kindOf(n)
				id := k.id(n)
				if err := w.publishOne(ctx, k, id); err != nil {
					failed.Store(&err)
					return
				}
				acked.Store(id, time.Now().Add(k.waits))
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return ctx.Err()
}

// tell says every ten seconds how far the jobs are.
func (w *world) tell(ctx context.Context) {
	for sleep(ctx, 10*time.Second); ctx.Err() == nil; sleep(ctx, 10*time.Second) {
		fmt.Fprintf(w.progress, "  %d of %d jobs asked for by the fleet\n", w.origin.asked(), w.jobs)
	}
}

func (w *world) publishOne(ctx context.Context, k kind, id string) (err error) {
	job := k.job(id, w.origin.url(id))
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end) && ctx.Err() == nil; sleep(ctx, 100*time.Millisecond) {
		_, err = w.client.Submit(ctx, job)
		if err == nil || errors.Is(err, bus.ErrQueued) || errors.Is(err, bus.ErrFinished) {
			if k.cancelled {
				// It may come too late, or not at all: the job ends in one result all the same.
				_ = w.client.Cancel(ctx, bus.Key{Queue: jobs.DefaultQueue, ID: id}, "chaos")
			}
			return nil
		}
	}
	return fmt.Errorf("job %s was not accepted within 3 minutes: %w", id, errors.Join(err, ctx.Err()))
}

// watcher is a plain subscriber of the results. It may miss some while its connection is broken; it must never see one twice.
type watcher struct {
	nc   *nats.Conn
	mu   sync.Mutex
	seen map[string]int
}

func (w *world) watch() (*watcher, error) {
	nc, err := w.servers.connect()
	if err != nil {
		return nil, err
	}
	v := &watcher{nc: nc, seen: map[string]int{}}
	_, err = nc.Subscribe("gofer.results.>", func(m *nats.Msg) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.seen[m.Subject]++
	})
	if err != nil {
		nc.Close()
		return nil, err
	}
	return v, nc.FlushTimeout(10 * time.Second)
}

// seconds is how many results were shown again.
func (v *watcher) seconds() (n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, c := range v.seen {
		n += c - 1
	}
	return n
}

func (v *watcher) subjects() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.seen)
}

// stored is a result.
type stored struct {
	at     time.Time
	failed bool
}

// settled waits until the stream holds a result for each job, or no new one came for the limit, and reads when each was
// stored, with a durable consumer of its own.
func (w *world) settled(ctx context.Context, limit time.Duration) (at map[string]stored, seconds int, err error) {
	js := w.client.JetStream()
	last, since := uint64(0), time.Now()
	for time.Since(since) < limit && ctx.Err() == nil {
		ask, cancel := context.WithTimeout(ctx, 2*time.Second)
		s, err := js.Stream(ask, "GOFER_RESULTS")
		cancel()
		if err == nil {
			if n := s.CachedInfo().State.Msgs; n != last {
				last, since = n, time.Now()
			}
		}
		if last >= uint64(w.jobs) {
			break
		}
		sleep(ctx, 100*time.Millisecond)
	}
	return w.collect(ctx, last)
}

// collect reads n results. A cluster that has just been healed may still be choosing leaders, so it asks again for a while.
func (w *world) collect(ctx context.Context, n uint64) (at map[string]stored, seconds int, err error) {
	at = map[string]stored{}
	read := map[uint64]bool{} // by the place in the stream: what is delivered again was not stored again
	for end := time.Now().Add(time.Minute); uint64(len(read)) < n; sleep(ctx, 200*time.Millisecond) {
		if ctx.Err() != nil || time.Now().After(end) {
			return nil, 0, fmt.Errorf("read %d of %d results: %w", len(read), n, errors.Join(err, ctx.Err()))
		}
		var consumer jetstream.Consumer
		consumer, err = w.reader(ctx)
		for before := -1; err == nil && len(read) > before && uint64(len(read)) < n; {
			before = len(read)
			var twice int
			twice, err = batch(consumer, at, read)
			seconds += twice
		}
	}
	return at, seconds, nil
}

// reader is the durable consumer that reads the results. A leader that is on its way out may swallow the question.
func (w *world) reader(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return w.client.JetStream().CreateOrUpdateConsumer(ctx, "GOFER_RESULTS", jetstream.ConsumerConfig{
		Durable: "chaos", HeadersOnly: true, AckPolicy: jetstream.AckAllPolicy, DeliverPolicy: jetstream.DeliverAllPolicy,
	})
}

func batch(consumer jetstream.Consumer, at map[string]stored, read map[uint64]bool) (seconds int, err error) {
	b, err := consumer.Fetch(500, jetstream.FetchMaxWait(2*time.Second))
	if err != nil {
		return 0, err
	}
	var last jetstream.Msg
	for m := range b.Messages() {
		last = m
		meta, err := m.Metadata()
		if err != nil {
			return seconds, err
		}
		if read[meta.Sequence.Stream] {
			continue
		}
		read[meta.Sequence.Stream] = true
		id := m.Headers().Get(jobs.HeaderJobID)
		if _, twice := at[id]; twice {
			seconds++
		}
		at[id] = stored{meta.Timestamp, m.Headers().Get(jobs.HeaderOutcome) == jobs.Failed}
	}
	if last != nil {
		err = last.Ack()
	}
	return seconds, errors.Join(err, b.Error())
}

// letters is how many dead letters there are, after a while in which the last ones may be written.
func (w *world) letters(ctx context.Context, want int) (n int, err error) {
	for end := time.Now().Add(3 * w.pace.ackWait); ; sleep(ctx, 200*time.Millisecond) {
		ask, cancel := context.WithTimeout(ctx, 2*time.Second)
		s, err := w.client.JetStream().Stream(ask, "GOFER_DEAD")
		cancel()
		if err == nil {
			n = int(s.CachedInfo().State.Msgs)
		}
		if err == nil && n >= want || ctx.Err() != nil || time.Now().After(end) {
			return n, err
		}
	}
}
