package fleet

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

const (
	// mostWords bounds what waits to be written: a pool of that many proxies that die at once.
	mostWords = 4096
	// writeTimeout bounds one write; what it did not answer is written again.
	writeTimeout = 2 * time.Second
)

// word is what is to be written about a proxy: that it is dead until a time or, without one, that it is not.
type word struct {
	until  time.Time
	reason string
}

// outgoing is the words that wait to be written, at most one for each proxy, in the order of the first one about it.
type outgoing struct {
	wake chan struct{}

	mu    sync.Mutex
	words map[string]word
	order []string
	full  bool // and that was told
}

// put never waits. It returns false when a word is dropped because too many wait, once until all of those are written.
func (o *outgoing) put(id string, w word) (ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, waits := o.words[id]; !waits {
		if len(o.order) >= mostWords {
			told := o.full
			o.full = true
			return told
		}
		o.order = append(o.order, id)
	}
	o.words[id] = w
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return true
}

// first is the word that waits for longest; without deaths, of those that a proxy is not dead.
func (o *outgoing) first(deaths bool) (id string, w word, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.full = o.full && len(o.order) > 0
	for _, id := range o.order {
		if w := o.words[id]; deaths || w.until.IsZero() {
			return id, w, true
		}
	}
	return "", word{}, false
}

// done takes a word off, unless there is a newer one about the proxy by now.
func (o *outgoing) done(id string, w word) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if i := slices.Index(o.order, id); o.words[id] == w {
		o.order = slices.Delete(o.order, i, i+1)
		delete(o.words, id)
	}
}

// write writes the words one by one until ctx ends. What the server refuses for good, or has no room for, is dropped. What
// gets no answer, or a temporary refusal, is tried again: it is told when NATS is back, unless its time is over by then.
func (b *Breakers) write(ctx context.Context, js jetstream.JetStream, bucket string) {
	var kv jetstream.KeyValue
	for failing := false; ctx.Err() == nil; {
		id, w, ok := b.outgoing.first(b.cfg.Pool.Delivering())
		if !ok {
			select {
			case <-ctx.Done():
			case <-b.outgoing.wake:
			case <-time.After(time.Second): // something may have got through
			}
			continue
		}
		err := nats.ErrDisconnected
		// A client that is cut off would keep the message and send it later, when it is no longer true.
		if js.Conn().IsConnected() {
			kv, err = b.writeWord(ctx, js, bucket, kv, id, w)
		}
		refused := err != nil && !bus.CuredByWaiting(err)
		if err == nil || refused {
			b.outgoing.done(id, w)
		}
		if err != nil && !failing && ctx.Err() == nil {
			b.cfg.Log.Warn("breakers not shared, the other workers judge by themselves", "error", err)
		}
		if failing = err != nil; failing && !refused {
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}

// writeWord returns the bucket for the next word; nil as the bucket means that it has to be looked for.
func (b *Breakers) writeWord(ctx context.Context, js jetstream.JetStream, bucket string, kv jetstream.KeyValue, id string, w word) (jetstream.KeyValue, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if kv == nil {
		var err error
		if kv, err = js.KeyValue(ctx, bucket); err != nil {
			return nil, err
		}
	}
	left := time.Until(w.until)
	switch {
	case w.until.IsZero():
		return kv, kv.Delete(ctx, id)
	case left <= 0:
		return kv, nil
	}
	data, err := json.Marshal(Finding{Worker: b.cfg.Worker, Instance: b.instance, Duration: jobs.Duration(left.Round(time.Millisecond)), Reason: w.reason})
	if err == nil {
		_, err = kv.Put(ctx, id, data)
	}
	return kv, err
}
