package fleet

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
)

// Finding is the value under the id of a proxy in the bucket of breakers: a worker found the proxy dead. A later finding replaces
// an earlier one.
type Finding struct {
	// Worker is the finder's name. A finding without one is not valid, because workers judge the finder by its findings.
	Worker string `json:"worker"`
	// Instance identifies one start of the process: after a restart the worker follows its own old findings like others'.
	Instance string `json:"instance"`
	// Duration is how long others should avoid the proxy, from when the server stored this.
	Duration jobs.Duration `json:"duration"`
	// Reason is for people, who find it in the logs of other workers.
	Reason string `json:"reason,omitempty"`
}

// BreakersConfig is what Breakers are made of; all fields are required.
type BreakersConfig struct {
	// Pool receives the proxies to avoid, and the exits of sessions.
	Pool *rotation.Pool
	// Worker is this worker's name.
	Worker string
	// Slack is how much longer other workers avoid a proxy than its finder does: as long as the tests of a proxy may take, so
	// that those of one worker speak for the fleet.
	Slack time.Duration
	// MaxDuration bounds the time of another worker's finding, so that a mistaken one cannot keep a proxy out for days.
	MaxDuration time.Duration
	Log         *slog.Logger
}

// Breakers report to the fleet which proxies this worker found dead, and make this worker avoid the proxies that others found
// dead. They do the same for the exits of sessions that failed. Make them with NewBreakers; they may be shared by any number of
// goroutines.
//
// A finding is advice. It changes no breaker; the pool takes such a proxy when nothing else is left; and it ends with its time,
// when a worker's probe succeeds or when the breaker is reset. A worker that reports more than half of this pool is more likely
// to have a bad network than to be right, and is not followed until it reports fewer. If a finding is lost, old or not valid,
// or if the bucket cannot be reached, each worker decides alone.
type Breakers struct {
	cfg      BreakersConfig
	instance string // as in Finding
	// updates and sessions have locks of their own.
	updates  updateQueue[update]
	sessions *sessions

	// mu guards the fields below. It is held while the pool takes over a finding, so that of two findings the later one wins.
	mu       sync.Mutex
	findings map[string]*finding
	ignored  map[string]bool // workers that are not followed
}

// finding is a finding of another worker.
type finding struct {
	worker  string
	until   time.Time
	known   bool // the pool has the proxy; else the finding waits for it
	avoided bool // the pool avoids it, if it has it
}

// NewBreakers makes Breakers; Run connects them with the fleet.
func NewBreakers(cfg BreakersConfig) *Breakers {
	return &Breakers{
		cfg: cfg, instance: rand.Text(), findings: map[string]*finding{}, ignored: map[string]bool{},
		updates: newUpdateQueue[update](), sessions: newSessions(cfg),
	}
}

// ShareChange reports to the fleet that a breaker of this worker opened or closed. It returns at once, whatever NATS does. It
// does not report an opening without an end, which somebody forced. Nor does it report an opening while proxies that worked fail
// one after the other: that may be an outage here. If no proxy works, openings stay queued until one does.
func (b *Breakers) ShareChange(e rotation.Event) {
	switch {
	case e.ProxyID == "" || e.To == breaker.HalfOpen:
		return
	case e.To == breaker.Closed:
		b.send(e.ProxyID, update{})
	case !e.NextTest.IsZero() && !b.cfg.Pool.MayBeOutage():
		b.send(e.ProxyID, update{until: e.NextTest.Add(b.cfg.Slack), reason: e.Reason})
	}
}

// WithdrawFinding removes the fleet's finding about a proxy, if there is one: in this worker at once, and then in the bucket.
func (b *Breakers) WithdrawFinding(proxy string) {
	b.mu.Lock()
	known := b.findings[proxy] != nil
	b.forget(proxy)
	b.mu.Unlock()
	if known {
		b.send(proxy, update{})
	}
}

// CountAvoided returns how many proxies of the pool this worker avoids because of the findings of others. Findings whose time is
// over do not count, although they stay until the next review.
func (b *Breakers) CountAvoided() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.findings {
		if f.known && f.avoided && time.Until(f.until) > 0 {
			n++
		}
	}
	return n
}

// send queues an update for the bucket. One line is logged if too many wait, until the queue has been empty.
func (b *Breakers) send(proxy string, u update) {
	if _, shouldLog := b.updates.put(proxy, u); shouldLog {
		b.cfg.Log.Warn("cannot share breakers with the fleet, too many changes wait to be published")
	}
}

// Run follows the bucket and writes to it until ctx ends. What waits to be written then is lost. A missing bucket is created by
// others. It returns when all its parts have ended; call it once.
func (b *Breakers) Run(ctx context.Context, js jetstream.JetStream, names jobs.Names) {
	bucket := names.Bucket("breakers")
	var parts sync.WaitGroup
	parts.Go(func() { newFollower(bucket, b.cfg.Log, b.apply).run(ctx, js) })
	parts.Go(func() { b.write(ctx, js, bucket) })
	parts.Go(func() { b.sessions.run(ctx, js, bucket) })
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

// apply takes over changes of the bucket. If fresh, changes are all keys that it has, so findings under other keys are gone. A
// key is either a session's or a proxy's, so the order between the two does not matter.
func (b *Breakers) apply(fresh bool, all []change) {
	ofSessions, changes := splitSessions(all)
	b.sessions.apply(fresh, ofSessions)
	b.mu.Lock()
	defer b.mu.Unlock()
	if fresh {
		// Keys may have been deleted while nobody watched, so what the bucket lacks is dropped first.
		still := map[string]bool{}
		for _, c := range changes {
			still[c.key] = true
		}
		for id := range b.findings {
			if !still[id] {
				b.forget(id)
			}
		}
	}
	for _, c := range changes {
		b.take(c)
	}
}

// take applies what a key says now. The caller holds the lock. An entry that is not valid replaces the finding before: a worker
// that starts now would not have that one either. The age is subtracted after the bound, so that an old finding ends however long
// its duration is.
func (b *Breakers) take(c change) {
	if c.value == nil {
		b.forget(c.key)
		return
	}
	var f Finding
	err := json.Unmarshal(c.value, &f)
	if err == nil && f.Worker == "" {
		err = errors.New("it names no worker")
	}
	if err != nil {
		b.cfg.Log.Warn("a breaker that another worker shared is not valid and is left out", "proxy", c.key, "error", err)
		b.forget(c.key)
		return
	}
	left := min(f.Duration.Std(), b.cfg.MaxDuration) - c.age
	if f.Instance == b.instance || left <= 0 {
		b.forget(c.key)
		return
	}
	// A finding that is repeated extends the time, and is logged only when it is new.
	now := &finding{worker: f.Worker, until: time.Now().Add(left)}
	if b.findings[c.key] == nil {
		b.cfg.Log.Debug("proxy avoided, another worker found it dead", "proxy", c.key, "worker", f.Worker, "reason", f.Reason, "for", left.String())
	}
	b.findings[c.key] = now
	b.avoid(c.key, now, !b.ignored[f.Worker])
}

// avoid makes the pool avoid a proxy until the finding ends, or not avoid it. The caller holds the lock. A finding about a proxy
// that the pool lacks is kept, because the proxy may come later.
func (b *Breakers) avoid(id string, f *finding, avoid bool) {
	until := f.until
	if !avoid {
		until = time.Time{}
	}
	f.known, f.avoided = b.cfg.Pool.Avoid(id, until, f.worker), avoid
}

// forget drops a finding, and the pool no longer avoids its proxy. The caller holds the lock.
func (b *Breakers) forget(id string) {
	if b.findings[id] != nil {
		delete(b.findings, id)
		b.cfg.Pool.Avoid(id, time.Time{}, "")
	}
}

// review drops the findings whose time is over, and judges the workers. A proxy may also come into the pool after the finding
// about it, or come back: the new entry of the pool knows nothing of the finding.
func (b *Breakers) review() {
	b.mu.Lock()
	defer b.mu.Unlock()
	reports := map[string]int{}
	for id, f := range b.findings {
		if time.Until(f.until) <= 0 {
			delete(b.findings, id) // the pool keeps the time itself
			continue
		}
		var s rotation.Status
		s, f.known = b.cfg.Pool.StatusOf(id)
		if f.known && f.avoided && s.AvoidedUntil.IsZero() {
			b.avoid(id, f, true)
		}
		if f.known {
			reports[f.worker]++
		}
	}
	b.judge(reports)
	for id, f := range b.findings {
		if avoid := !b.ignored[f.worker]; avoid != f.avoided {
			b.avoid(id, f, avoid)
		}
	}
}

// judge decides whom to follow, by how many of the pool's proxies each worker reports: at most half of them. Findings about
// proxies that this pool lacks say nothing about the finder. The caller holds the lock.
func (b *Breakers) judge(reports map[string]int) {
	size := b.cfg.Pool.Len()
	// A worker without findings is in no report, so the ignored ones are checked on their own.
	for worker := range b.ignored {
		if 2*reports[worker] <= size {
			delete(b.ignored, worker)
			b.cfg.Log.Info("another worker's breakers are followed again", "worker", worker)
		}
	}
	for worker, n := range reports {
		if 2*n > size && !b.ignored[worker] {
			b.ignored[worker] = true
			b.cfg.Log.Warn("another worker's breakers are not followed, it found more than half of the pool dead", "worker", worker, "proxies", n)
		}
	}
}
