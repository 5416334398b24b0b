package fleet

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
)

// Finding is what stands in the bucket of breakers under the id of a proxy that a worker found dead.
type Finding struct {
	Worker string `json:"worker"`
	// Instance is the run of the worker: what the one before it found is news to the next one.
	Instance string `json:"instance"`
	// Duration is how long others should avoid the proxy, from when the server stored this.
	Duration jobs.Duration `json:"duration"`
	Reason   string        `json:"reason,omitempty"`
}

// BreakersConfig is what Breakers are made of; all fields are required.
type BreakersConfig struct {
	// Pool is told which proxies to avoid.
	Pool *rotation.Pool
	// Worker is this worker's name.
	Worker string
	// Slack is how much longer than its finder the others avoid a proxy: as long as the tests of a proxy may take, so that
	// those of one worker speak for the fleet.
	Slack time.Duration
	// Longest bounds the time of another worker's finding.
	Longest time.Duration
	Log     *slog.Logger
}

// Breakers tell the fleet which proxies this worker found dead, and let this worker avoid those that others did. Make them
// with NewBreakers; they may be shared by any number of goroutines.
//
// A finding is advice. It changes no breaker; the pool takes such a proxy when nothing else is left; and it ends with its
// time, when a worker's probe succeeds or when the breaker is reset. A worker that reports more than half of this pool is
// more likely to have a bad network than to be right, and is not followed as long as it does. A finding that is lost, old or
// not valid leaves each worker to its own judgement, and so does a bucket that cannot be reached.
type Breakers struct {
	cfg      BreakersConfig
	instance string
	outgoing outgoing

	mu      sync.Mutex
	found   map[string]*found
	doubted map[string]bool // workers that are not followed
}

// found is a finding of another worker.
type found struct {
	worker string
	until  time.Time
	known  bool // the pool has the proxy
	heeded bool
}

// NewBreakers makes Breakers; Run connects them with the fleet.
func NewBreakers(cfg BreakersConfig) *Breakers {
	return &Breakers{
		cfg: cfg, instance: rand.Text(), found: map[string]*found{}, doubted: map[string]bool{},
		outgoing: outgoing{words: map[string]word{}, wake: make(chan struct{}, 1)},
	}
}

// Changed tells the fleet of a breaker of this worker that opened or closed. It returns at once, whatever NATS does. An
// opening without an end was forced by somebody, and one while proxies that worked fail one after the other may be this
// worker's own trouble: neither is told. While nothing gets through at all an opening waits until something does.
func (b *Breakers) Changed(e rotation.Event) {
	switch {
	case e.ProxyID == "" || e.To == breaker.HalfOpen:
		return
	case e.To == breaker.Closed:
		b.send(e.ProxyID, word{})
	case !e.NextTest.IsZero() && !b.cfg.Pool.Doubtful():
		b.send(e.ProxyID, word{until: e.NextTest.Add(b.cfg.Slack), reason: e.Reason})
	}
}

// Reset takes the fleet's finding about a proxy away, if there is one.
func (b *Breakers) Reset(proxy string) {
	b.mu.Lock()
	known := b.found[proxy] != nil
	b.forget(proxy) // what waits to be written holds here already
	b.mu.Unlock()
	if known {
		b.send(proxy, word{})
	}
}

// Avoided is how many proxies of the pool this worker avoids by the word of others.
func (b *Breakers) Avoided() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.found {
		if f.known && f.heeded && time.Until(f.until) > 0 {
			n++
		}
	}
	return n
}

func (b *Breakers) send(proxy string, w word) {
	if !b.outgoing.put(proxy, w) {
		b.cfg.Log.Warn("breakers not shared, too many changes wait to be published")
	}
}

// Run follows the bucket and writes to it until ctx ends. What waits to be written then is lost. A missing bucket is created
// by others.
func (b *Breakers) Run(ctx context.Context, js jetstream.JetStream, names jobs.Names) {
	bucket := names.Bucket("breakers")
	var parts sync.WaitGroup
	parts.Go(func() { newFollower(bucket, b.cfg.Log, b.apply).run(ctx, js) })
	parts.Go(func() { b.write(ctx, js, bucket) })
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			b.review()
		}
	}
	parts.Wait()
}

func (b *Breakers) apply(fresh bool, changes []change) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if fresh {
		still := map[string]bool{}
		for _, c := range changes {
			still[c.key] = true
		}
		for id := range b.found {
			if !still[id] {
				b.forget(id)
			}
		}
	}
	for _, c := range changes {
		b.take(c)
	}
}

// take notes what a key says now. The lock is held, so that of two changes the later one is the last to arrive at the pool.
func (b *Breakers) take(c change) {
	if c.value == nil {
		b.forget(c.key)
		return
	}
	var f Finding
	if err := json.Unmarshal(c.value, &f); err != nil || f.Worker == "" {
		b.cfg.Log.Warn("a breaker that another worker shared is not valid and is left out", "proxy", c.key, "error", err)
		b.forget(c.key)
		return
	}
	left := min(f.Duration.Std(), b.cfg.Longest) - c.age
	if f.Instance == b.instance || left <= 0 {
		b.forget(c.key)
		return
	}
	now := &found{worker: f.Worker, until: time.Now().Add(left)}
	if b.found[c.key] == nil {
		b.cfg.Log.Debug("proxy avoided, another worker found it dead", "proxy", c.key, "worker", f.Worker, "reason", f.Reason, "for", left.String())
	}
	b.found[c.key] = now
	b.heed(c.key, now, !b.doubted[f.Worker])
}

func (b *Breakers) heed(id string, f *found, heed bool) {
	until := f.until
	if !heed {
		until = time.Time{}
	}
	f.known, f.heeded = b.cfg.Pool.Avoid(id, until, f.worker), heed
}

func (b *Breakers) forget(id string) {
	if b.found[id] != nil {
		delete(b.found, id)
		b.cfg.Pool.Avoid(id, time.Time{}, "")
	}
}

// review drops what is over and judges the workers. A proxy may also come into the pool after the word about it, or again.
func (b *Breakers) review() {
	b.mu.Lock()
	defer b.mu.Unlock()
	reports := map[string]int{}
	for id, f := range b.found {
		if time.Until(f.until) <= 0 {
			delete(b.found, id) // the pool keeps the time itself
			continue
		}
		var s rotation.Status
		s, f.known = b.cfg.Pool.StatusOf(id)
		if f.known && f.heeded && s.AvoidedUntil.IsZero() {
			b.heed(id, f, true)
		}
		if f.known {
			reports[f.worker]++
		}
	}
	b.judge(reports)
	for id, f := range b.found {
		if heed := !b.doubted[f.worker]; heed != f.heeded {
			b.heed(id, f, heed)
		}
	}
}

// judge says whom to follow, by how many of the pool's proxies each worker reports.
func (b *Breakers) judge(reports map[string]int) {
	size := b.cfg.Pool.Len()
	for worker := range b.doubted {
		if 2*reports[worker] <= size {
			delete(b.doubted, worker)
			b.cfg.Log.Info("another worker's breakers are followed again", "worker", worker)
		}
	}
	for worker, n := range reports {
		if 2*n > size && !b.doubted[worker] {
			b.doubted[worker] = true
			b.cfg.Log.Warn("another worker's breakers are not followed, it found more than half of the pool dead", "worker", worker, "proxies", n)
		}
	}
}
