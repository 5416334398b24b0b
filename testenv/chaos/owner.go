package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
)

// step is one thing that the owner of the streams does.
type step struct {
	name string
	do   func(ctx context.Context, w *world) error
}

func ownerSteps() []step {
	return []step{
		{"headers only", edit("JOBS", func(c *jetstream.ConsumerConfig) { c.HeadersOnly = true })},
		{"headers only of due jobs", edit("RETRIES", func(c *jetstream.ConsumerConfig) { c.HeadersOnly = true })},
		{"small batches", edit("JOBS", func(c *jetstream.ConsumerConfig) { c.MaxRequestBatch = 1 })},
		{"small batches of due jobs", edit("RETRIES", func(c *jetstream.ConsumerConfig) { c.MaxRequestBatch = 1 })},
		{"short pulls", edit("JOBS", func(c *jetstream.ConsumerConfig) { c.MaxRequestExpires = 100 * time.Millisecond })},
		{"few jobs out", edit("JOBS", func(c *jetstream.ConsumerConfig) { c.MaxAckPending = 1 })},
		{"short ack wait", edit("JOBS", func(c *jetstream.ConsumerConfig) { c.AckWait = time.Second })},
		{"pause", pauseQueue},
		{"consumer deleted", deleteConsumer("JOBS")}, {"due consumer deleted", deleteConsumer("RETRIES")},
		{"results full", limitResults}, {"jobs full", limitJobs},
		{"jobs deleted", deleteJobs}, {"waiting jobs deleted", deleteRetries}, {"results deleted", deleteResults},
		{"events deleted", deleteStream("GOFER_EVENTS")}, {"rollups deleted", deleteStream("GOFER_ROLLUPS")},
		{"dead letters deleted", deleteDead}, {"bodies deleted", deleteBodies},
		{"policy deleted", deleteStream("KV_gofer-policy")}, {"proxies deleted", deleteStream("KV_gofer-proxies")},
		{"letters replayed", replay}, {"nonsense in the buckets", spoilBuckets},
		{"deny deleted", deleteStream("KV_gofer-deny")}, {"breakers deleted", deleteStream("KV_gofer-breakers")}, {"sites deleted", deleteStream("KV_gofer-sites")},
	}
}

// stepLimit bounds one step of the owner. It is for a step that never succeeds: a busy machine needs a minute for some.
const stepLimit = 3 * time.Minute

const (
	firstTry   = 2 * time.Second
	longestTry = 32 * time.Second
)

// own does one step after the other, in another order for each seed, until the load ends and each was done once.
func own(ctx context.Context, w *world) (string, error) {
	steps := ownerSteps()
	lasting := context.WithoutCancel(ctx)
	n := 0
	for ; ctx.Err() == nil || n < len(steps); n++ {
		if n%len(steps) == 0 {
			w.rng.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
		}
		s := steps[n%len(steps)]
		limited, cancel := context.WithTimeout(lasting, stepLimit)
		err := s.do(limited, w)
		cancel()
		if err != nil {
			return "", fmt.Errorf("%s: %w", s.name, err)
		}
		sleep(ctx, w.pace.between/4)
	}
	return fmt.Sprintf("%d times a consumer edited, a stream or bucket deleted, or a limit set", n), nil
}

// until repeats what may fail while servers are away. An answer may be lost, so the first try is short; a slow machine may need
// longer for a try of many requests, so each one has twice the time of the one before, up to longestTry.
func until(ctx context.Context, try func(context.Context) error) (err error) {
	for limit := firstTry; ctx.Err() == nil; sleep(ctx, 100*time.Millisecond) {
		ask, cancel := context.WithTimeout(ctx, limit)
		limit = min(2*limit, longestTry)
		err = try(ask)
		cancel()
		if err == nil {
			return nil
		}
	}
	return errors.Join(err, ctx.Err())
}

// consumerOf is the durable of the default queue.
func consumerOf(kind string) (stream, name string) {
	if kind == "RETRIES" {
		return "GOFER_RETRIES", "due-" + jobs.DefaultQueue
	}
	return "GOFER_JOBS", "worker-" + jobs.DefaultQueue
}

// edit changes a consumer for a while. Who deletes it meanwhile ends that, too.
func edit(kind string, change func(*jetstream.ConsumerConfig)) func(context.Context, *world) error {
	stream, name := consumerOf(kind)
	return func(ctx context.Context, w *world) error {
		js := w.client.JetStream()
		var before jetstream.ConsumerConfig
		short, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		err := until(short, func(ctx context.Context) error {
			c, err := js.Consumer(ctx, stream, name)
			if err != nil {
				return err
			}
			before = c.CachedInfo().Config
			changed := before
			change(&changed)
			_, err = js.UpdateConsumer(ctx, stream, changed)
			return err
		})
		if err != nil {
			// A server that made a consumer while it deleted the stream may have lost its files, and then refuses every change.
			return deleteConsumer(kind)(ctx, w)
		}
		sleep(ctx, w.pace.between)
		return until(ctx, func(ctx context.Context) error {
			_, err := js.CreateOrUpdateConsumer(ctx, stream, before)
			return err
		})
	}
}

func pauseQueue(ctx context.Context, w *world) error {
	err := until(ctx, func(ctx context.Context) error {
		return client.New(w.client).Pause(ctx, jobs.DefaultQueue, time.Time{})
	})
	sleep(ctx, w.pace.between)
	return errors.Join(err, until(ctx, func(ctx context.Context) error { return client.New(w.client).Resume(ctx, jobs.DefaultQueue) }))
}

func deleteConsumer(kind string) func(context.Context, *world) error {
	stream, name := consumerOf(kind)
	return func(ctx context.Context, w *world) error {
		err := until(ctx, func(ctx context.Context) error {
			err := w.client.JetStream().DeleteConsumer(ctx, stream, name)
			if errors.Is(err, jetstream.ErrConsumerNotFound) {
				return nil
			}
			return err
		})
		return errors.Join(err, w.restored(ctx))
	}
}

// limit gives a stream a limit for a while.
func limit(ctx context.Context, w *world, stream string, change func(*jetstream.StreamInfo, *jetstream.StreamConfig)) error {
	js := w.client.JetStream()
	var before jetstream.StreamConfig
	err := until(ctx, func(ctx context.Context) error {
		s, err := js.Stream(ctx, stream)
		if err != nil {
			return err
		}
		before = s.CachedInfo().Config
		changed := before
		change(s.CachedInfo(), &changed)
		_, err = js.UpdateStream(ctx, changed)
		return err
	})
	sleep(ctx, 2*w.pace.between)
	return errors.Join(err, until(ctx, func(ctx context.Context) error { _, err := js.UpdateStream(ctx, before); return err }))
}

func limitResults(ctx context.Context, w *world) error {
	return limit(ctx, w, "GOFER_RESULTS", func(info *jetstream.StreamInfo, c *jetstream.StreamConfig) { c.MaxBytes = int64(info.State.Bytes) + 1 })
}

func limitJobs(ctx context.Context, w *world) error {
	return limit(ctx, w, "GOFER_JOBS", func(info *jetstream.StreamInfo, c *jetstream.StreamConfig) { c.MaxMsgs = int64(info.State.Msgs) + 1 })
}

// restored waits until workers have made anew what is missing, or does it as the owner would: who is first is drawn.
func (w *world) restored(ctx context.Context) error {
	if w.rng.IntN(2) == 0 {
		return until(ctx, func(ctx context.Context) error { return w.client.Ensure(ctx, w.settings) })
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for ; short.Err() == nil; sleep(short, 100*time.Millisecond) {
		if missing, err := w.client.Plan(short, w.settings); err == nil && !slices.ContainsFunc(missing, isMissing) {
			return nil
		}
	}
	return until(ctx, func(ctx context.Context) error { return w.client.Ensure(ctx, w.settings) })
}

func (w *world) drop(ctx context.Context, stream string) error {
	return until(ctx, func(ctx context.Context) error {
		err := w.client.JetStream().DeleteStream(ctx, stream)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil
		}
		return err
	})
}

// deleteStream deletes a stream whose loss costs no job.
func deleteStream(name string) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error { return errors.Join(w.drop(ctx, name), w.restored(ctx)) }
}

func deleteDead(ctx context.Context, w *world) error {
	err := w.drop(ctx, "GOFER_DEAD")
	w.ledger.mu.Lock()
	w.ledger.noDead = time.Now()
	w.ledger.mu.Unlock()
	return errors.Join(err, w.restored(ctx))
}

func deleteBodies(ctx context.Context, w *world) error {
	err := w.drop(ctx, "OBJ_gofer-bodies")
	w.ledger.mu.Lock()
	w.ledger.noBodies = time.Now()
	w.ledger.mu.Unlock()
	return errors.Join(err, w.restored(ctx))
}

// deleteJobs takes along the jobs that are queued or running. While it does, nobody publishes; the workers go on.
func deleteJobs(ctx context.Context, w *world) error {
	w.gate.Lock()
	err := until(ctx, func(ctx context.Context) error {
		gone, err := w.ids(ctx, "GOFER_JOBS")
		if err == nil {
			w.ledger.giveUp(gone)
		}
		return err
	})
	err = errors.Join(err, w.drop(ctx, "GOFER_JOBS"))
	w.gate.Unlock()
	return errors.Join(err, w.restored(ctx))
}

// deleteRetries takes along the jobs that wait. The workers stand still while they are counted.
func deleteRetries(ctx context.Context, w *world) error {
	err := w.still(ctx, func() error {
		err := until(ctx, func(ctx context.Context) error {
			gone, err := w.ids(ctx, "GOFER_RETRIES")
			if err == nil {
				w.ledger.giveUp(gone)
			}
			return err
		})
		return errors.Join(err, w.drop(ctx, "GOFER_RETRIES"))
	})
	return errors.Join(err, w.restored(ctx))
}

// deleteResults takes results along after they are written down. A job that is still there may get another one.
func deleteResults(ctx context.Context, w *world) error {
	err := w.still(ctx, func() error {
		err := until(ctx, func(ctx context.Context) error {
			undone, err := w.ids(ctx, "GOFER_JOBS")
			waiting, err2 := w.ids(ctx, "GOFER_RETRIES")
			if err = errors.Join(err, err2); err == nil {
				err = w.collect(ctx)
			}
			if err == nil {
				w.ledger.mayEndAgain(append(undone, waiting...), time.Now().Add(-3*w.pace.ackWait))
			}
			return err
		})
		return errors.Join(err, w.drop(ctx, "GOFER_RESULTS"))
	})
	w.read = map[uint64]bool{}
	return errors.Join(err, w.restored(ctx))
}

// replay publishes the jobs of some dead letters again.
func replay(ctx context.Context, w *world) error {
	var letters []client.DeadLetter
	err := until(ctx, func(ctx context.Context) error {
		letters = nil
		err := client.New(w.client).DeadLetters(ctx, func(l client.DeadLetter) error {
			if letters = append(letters, l); len(letters) == 20 {
				return errEnough
			}
			return nil
		})
		if errors.Is(err, errEnough) {
			return nil
		}
		return err
	})
	for _, l := range letters {
		w.gate.RLock()
		w.ledger.giveAway(l.ID)
		names := []string{fmt.Sprintf("replay-%d", l.Seq), fmt.Sprintf("replay-%d-%d", l.Seq, l.StoredAt.UnixMilli())}
		switch ack, err := client.New(w.client).Replay(ctx, l); {
		case ack.ID != "": // although the letter may have stayed
			w.ledger.replay(l, ack.ID)
			w.ledger.accept(order{id: ack.ID, replay: true})
		case errors.Is(err, client.ErrReplayed): // also by this call, if the answer to its first request was lost
			w.ledger.owns(l, names...)
		default: // it may have been accepted, or not
			w.ledger.replay(l, names...)
		}
		w.gate.RUnlock()
	}
	return err
}

var errEnough = errors.New("enough letters")

// spoilBuckets writes what no worker can use, and what none should believe.
func spoilBuckets(ctx context.Context, w *world) error {
	for key, value := range map[[2]string]string{
		{"policy", "retry"}: `{"max_attempts":"many"}`, {"policy", "strategy"}: "worst_first", {"policy", "other"}: "\xff",
		{"proxies", "bad"}: "no URL \x1b[31m", {"proxies", "other"}: "http://127.0.0.1:1 id=another", {"deny", "x=y/z"}: "", {"breakers", "p1"}: "{", {"breakers", "p2"}: `{"worker":"w","duration":1e300}`,
		{"breakers", "session.x"}: "{", {"breakers", "session.0123456789abcdef0123456789abcdef"}: `{"worker":"w","generation":4294967295,"ttl":1e300}`,
	} {
		err := until(ctx, func(ctx context.Context) error {
			kv, err := w.client.JetStream().KeyValue(ctx, w.client.Names().Bucket(key[0]))
			if err == nil {
				_, err = kv.PutString(ctx, key[1], value)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// still does something while no worker moves and nobody publishes.
func (w *world) still(ctx context.Context, do func() error) error {
	w.gate.Lock()
	defer w.gate.Unlock()
	w.hands.Lock()
	defer w.hands.Unlock()
	for _, p := range w.workers {
		p.signal(syscall.SIGSTOP)
		defer p.signal(syscall.SIGCONT)
	}
	sleep(ctx, 300*time.Millisecond) // what is on its way to the server arrives
	return do()
}

// isMissing reports whether the plan lacks something whole.
func isMissing[T fmt.Stringer](d T) bool { return strings.HasSuffix(d.String(), "is missing") }
