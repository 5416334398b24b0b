package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
)

// publishers is how many publish at once, each one job after the other.
const publishers = 16

// publish publishes the jobs evenly over the load's time. A publisher tries a job again until the server has it: a
// refusal as queued or finished tells that an earlier try got through and only its answer was lost.
func (w *world) publish(ctx context.Context, orders mix) error {
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
				w.turn(ctx, start, n)
				if err := w.publishOne(ctx, orders(w, n)); err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return ctx.Err()
}

// turn sleeps until it is the turn of the n-th job. Where jobs come in halves, each half takes as long as the jobs elsewhere do.
func (w *world) turn(ctx context.Context, start time.Time, n int) {
	in := w.jobs
	if w.scenario.halves {
		in = max(1, in/2)
		if n >= in {
			select {
			case <-ctx.Done():
				return
			case <-w.second:
			}
			start, n = w.resumed, n-in
		}
	}
	sleep(ctx, time.Until(start.Add(w.pace.load*time.Duration(n)/time.Duration(in))))
}

// resume lets the second half of the jobs come.
func (w *world) resume() {
	w.resuming.Do(func() {
		w.resumed = time.Now()
		close(w.second)
	})
}

// tell says every ten seconds how far the jobs are.
func (w *world) tell(ctx context.Context) {
	for sleep(ctx, 10*time.Second); ctx.Err() == nil; sleep(ctx, 10*time.Second) {
		fmt.Fprintf(w.progress, "  %d of %d jobs asked for by the fleet\n", w.origin.asked(), w.jobs)
	}
}

// cancel cancels a job, for at most a minute. It may come too late: the job ends in one result all the same. But a job that waits
// for centuries ends in no other way, so a cluster that is choosing a leader is asked again.
func (w *world) cancel(ctx context.Context, id string) {
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_ = until(limited, func(ctx context.Context) error {
		err := client.New(w.client).Cancel(ctx, bus.Key{Queue: jobs.DefaultQueue, ID: id})
		if errors.Is(err, client.ErrFinished) || w.ledger.isOver(id) {
			return nil
		}
		return err
	})
}

// errRefused: the server does not take this job, now or ever.
var errRefused = errors.New("the server refuses the job")

func (w *world) publishOne(ctx context.Context, o order) (err error) {
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end) && ctx.Err() == nil; sleep(ctx, 100*time.Millisecond) {
		switch err = w.offer(ctx, o); {
		case err == nil:
			if o.cancelled {
				w.cancel(ctx, o.id)
			}
			if o.twice {
				sleep(ctx, 500*time.Millisecond)
				again := nats.NewMsg(o.raw.Subject)
				again.Data, again.Header = o.raw.Data, nats.Header{nats.MsgIdHdr: {nuid.Next()}}
				o.raw = again
				_ = w.offer(ctx, o) // it is refused while the first one is queued
			}
			return nil
		case errors.Is(err, errRefused):
			w.ledger.refuse()
			return nil
		}
	}
	return fmt.Errorf("job %s was not accepted within 3 minutes: %w", o.id, errors.Join(err, ctx.Err()))
}

// offer tries once to publish a job. Who deletes the stream of jobs waits for it: whatever was accepted then is in there.
func (w *world) offer(ctx context.Context, o order) error {
	w.gate.RLock()
	defer w.gate.RUnlock()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := w.send(ctx, o)
	if err == nil {
		w.ledger.accept(o)
	}
	return err
}

func (w *world) send(ctx context.Context, o order) error {
	if o.raw == nil {
		_, err := client.New(w.client).Submit(ctx, o.job)
		if errors.Is(err, client.ErrQueued) || errors.Is(err, client.ErrFinished) {
			return nil
		}
		return err
	}
	_, err := w.client.JetStream().PublishMsg(ctx, o.raw)
	switch api, answered := errors.AsType[*jetstream.APIError](err); {
	case answered && strings.Contains(api.Description, "per subject"):
		return nil
	case answered && !mayPass(api), errors.Is(err, nats.ErrBadSubject), errors.Is(err, nats.ErrMaxPayload), errors.Is(err, jetstream.ErrNoStreamResponse) && w.hasStream(ctx, "GOFER_JOBS"):
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	return err
}

// mayPass reports whether another try may be answered otherwise: the server looks for a leader, or has no room now.
func mayPass(err *jetstream.APIError) bool {
	return slices.Contains([]jetstream.ErrorCode{10008, 10023, 10047, 10077, 10158}, err.ErrorCode)
}

func (w *world) hasStream(ctx context.Context, name string) bool {
	_, err := w.client.JetStream().Stream(ctx, name)
	return err == nil
}

// watcher is a plain subscriber of the results. It may miss some while its connection is broken; it must never see one twice.
type watcher struct {
	nc   *nats.Conn
	mu   sync.Mutex
	seen map[string]int // by id
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
		v.seen[idOf(m.Subject)]++
	})
	if err != nil {
		nc.Close()
		return nil, err
	}
	return v, nc.FlushTimeout(10 * time.Second)
}

// idOf is the job id of a subject. A job that waits for a site has its id behind the site's name.
func idOf(subject string) string {
	_, _, id, _ := jobs.SplitWaiting(subject)
	return id
}

// all is how often each result was seen.
func (v *watcher) all() map[string]int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.seen
}
