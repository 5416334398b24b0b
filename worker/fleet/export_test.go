package fleet

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/rotation/exits"
)

// Set applies a key of a bucket as if it had been set just now; a nil value deletes it.
func (s *Settings) Set(bucket, key string, value []byte) {
	changes := []change{{key: key, value: value, at: time.Now()}}
	switch bucket {
	case "proxies":
		s.applyProxies(false, changes)
	case "policy":
		s.applyPolicy(false, changes)
	case "deny":
		s.applyDeny(false, changes)
	}
}

// Set applies a key of the bucket as if it had been set that long ago; a nil value deletes it.
func (b *Breakers) Set(key string, value []byte, age time.Duration) {
	b.apply(false, []change{{key: key, value: value, at: time.Now().Add(-age), age: age}})
	b.review()
}

// Set applies a key of the bucket as if it had been set just now.
func (s *Sites) Set(key string, value []byte) {
	s.apply(false, []change{{key: key, value: value, at: time.Now()}})
}

// Review is what Run does each second.
func (s *Sites) Review() { s.review() }

// SessionsToWrite returns the sessions that Run would write now, as if it did.
func (b *Breakers) SessionsToWrite() (written []exits.State) {
	for _, key := range b.sessions.collect() {
		if state, needsWrite := b.sessions.needsWrite(key); needsWrite {
			written = append(written, state)
			b.sessions.mu.Lock()
			b.sessions.record(state, 0, 0, true)
			b.sessions.mu.Unlock()
		}
		b.sessions.done(key)
	}
	return written
}

// Gather is how many changes are taken over together.
func Gather(ctx context.Context, watch jetstream.KeyWatcher, first jetstream.KeyValueEntry) int {
	return len(gather(ctx, watch, clock{}, first))
}
