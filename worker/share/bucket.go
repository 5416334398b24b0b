package share

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// change is a key that was set, or deleted when value is nil.
type change struct {
	key   string
	value []byte
	at    time.Time
	// age is how long ago that was, by the clock of the server, which stored it: the clocks of other machines may be wrong.
	age time.Duration
}

// follow applies the bucket's keys, all at once and in place of what was known, then each change as it comes. A watch
// that ends is begun again, for keys may have gone meanwhile, and so is one whose connection was made again: a server that
// was restarted has forgotten it, and that would be noticed only after some missing heartbeats.
func follow(ctx context.Context, js jetstream.JetStream, bucket string, log *slog.Logger, apply func(fresh bool, changes []change)) {
	for ctx.Err() == nil {
		if err := watch(ctx, js, bucket, apply); err != nil && ctx.Err() == nil {
			log.Warn("bucket cannot be read, what was last known stays in force", "bucket", bucket, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func watch(ctx context.Context, js jetstream.JetStream, bucket string, apply func(fresh bool, changes []change)) error {
	reconnected := js.Conn().StatusChanged(nats.CONNECTED)
	defer js.Conn().RemoveStatusListener(reconnected)
	clock, err := askClock(ctx, js, bucket)
	if err != nil {
		return err
	}
	kv, err := js.KeyValue(ctx, bucket)
	if err != nil {
		return err
	}
	watch, err := kv.WatchAll(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = watch.Stop() }()
	var first []change
	known := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-reconnected:
			return nil
		case entry, open := <-watch.Updates():
			switch {
			case !open:
				return errors.New("the watch ended")
			case entry == nil: // every key that was there has been seen
				apply(true, first)
				first, known = nil, true
			case known:
				apply(false, []change{clock.changeOf(entry)})
			default:
				first = append(first, clock.changeOf(entry))
			}
		}
	}
}

// clock is what the server's clock showed at a time.
type clock struct{ server, asked time.Time }

func askClock(ctx context.Context, js jetstream.JetStream, bucket string) (clock, error) {
	stream, err := js.Stream(ctx, "KV_"+bucket)
	if err != nil {
		return clock{}, err
	}
	return clock{server: stream.CachedInfo().TimeStamp, asked: time.Now()}, nil
}

func (c clock) changeOf(entry jetstream.KeyValueEntry) change {
	// The time since it was asked is measured on the monotonic clock.
	now := c.server.Add(time.Since(c.asked))
	out := change{key: entry.Key(), at: entry.Created(), age: max(0, now.Sub(entry.Created()))}
	if entry.Operation() == jetstream.KeyValuePut {
		out.value = entry.Value()
	}
	return out
}
