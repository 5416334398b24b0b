package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
)

// settled waits until each job has its result, or no new one came for the limit, and writes all results down.
func (w *world) settled(ctx context.Context, limit time.Duration) error {
	last, since := uint64(0), time.Now()
	for time.Since(since) < limit && ctx.Err() == nil {
		if n, known := w.count(ctx, "GOFER_RESULTS"); known && n != last {
			last, since = n, time.Now()
		} else if known {
			if err := w.collect(ctx); err != nil {
				return err
			}
			if len(w.ledger.lost()) == 0 {
				break
			}
		}
		sleep(ctx, 300*time.Millisecond)
	}
	return errors.Join(w.collect(ctx), ctx.Err())
}

// count is how many messages a stream holds, unless nobody says.
func (w *world) count(ctx context.Context, stream string) (n uint64, known bool) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s, err := w.client.JetStream().Stream(ctx, stream)
	if err != nil {
		return 0, false
	}
	return s.CachedInfo().State.Msgs, true
}

// collect writes down what the stream of results holds. A cluster that has just been healed may still be choosing leaders, so it
// asks again for a while.
func (w *world) collect(ctx context.Context) (err error) {
	for end := time.Now().Add(3 * time.Minute); ; sleep(ctx, 200*time.Millisecond) {
		n, known := w.count(ctx, "GOFER_RESULTS")
		if known && uint64(len(w.read)) >= n {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return fmt.Errorf("read %d of %d results: %w", len(w.read), n, errors.Join(err, ctx.Err()))
		}
		var consumer jetstream.Consumer
		consumer, err = w.reader(ctx)
		for before := -1; err == nil && len(w.read) > before; {
			before = len(w.read)
			err = w.batch(ctx, consumer)
		}
	}
}

// reader is the durable consumer that reads the results. A leader that is on its way out may swallow the question. Each result is
// acked by itself: one that reached a request which was over on a slow machine comes again.
func (w *world) reader(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return w.client.JetStream().CreateOrUpdateConsumer(ctx, "GOFER_RESULTS", jetstream.ConsumerConfig{
		Durable: "chaos", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 5 * time.Second, MaxAckPending: -1, DeliverPolicy: jetstream.DeliverAllPolicy,
	})
}

func (w *world) batch(ctx context.Context, consumer jetstream.Consumer) error {
	b, err := consumer.Fetch(500, jetstream.FetchMaxWait(500*time.Millisecond))
	if err != nil {
		return err
	}
	for m := range b.Messages() {
		if err := m.Ack(); err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		if w.read[meta.Sequence.Stream] {
			continue // what is delivered again was not stored again
		}
		w.read[meta.Sequence.Stream] = true
		r := jobs.ParseResult(m.Headers(), m.Data())
		body, readable := w.body(ctx, r)
		w.ledger.found(idOf(m.Subject()), stored{meta.Timestamp, r.FinishedAt, r.Outcome, r.Error}, body, readable)
	}
	return b.Error()
}

// body is that of a result, wherever it is kept.
func (w *world) body(ctx context.Context, r jobs.Result) (body []byte, readable bool) {
	reader, err := client.New(w.client).Body(ctx, r)
	if err != nil {
		return nil, false
	}
	body, err = io.ReadAll(reader)
	return body, err == nil
}

// isForeign reports whether a body holds a token that was sent for another job.
func isForeign(id string, body []byte) bool {
	for {
		_, rest, found := bytes.Cut(body, []byte("<<"))
		if !found {
			return false
		}
		token, after, whole := bytes.Cut(rest, []byte(">>"))
		if whole && len(token) > 0 && string(token) != id {
			return true
		}
		body = after
	}
}

// isOwn reports whether a body is what the origin sends for the job: its token, once or again and again.
func isOwn(id string, body []byte) bool {
	return len(body) > 0 && len(bytes.ReplaceAll(body, []byte(testenv.Token(id)), nil)) == 0
}

// ids are the jobs that a stream holds.
func (w *world) ids(ctx context.Context, stream string) (ids []string, err error) {
	subjects, err := w.subjects(ctx, stream, ">")
	for _, subject := range subjects {
		ids = append(ids, idOf(subject))
	}
	return ids, err
}

// subjects are those of the messages in a stream under a subject.
func (w *world) subjects(ctx context.Context, stream, under string) ([]string, error) {
	s, err := w.client.JetStream().Stream(ctx, stream)
	if err != nil {
		return nil, err
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(under))
	if err != nil {
		return nil, err
	}
	return slices.Collect(maps.Keys(info.State.Subjects)), nil
}
