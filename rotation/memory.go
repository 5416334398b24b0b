package rotation

import (
	"slices"
	"sync"
	"time"
)

// most bounds what is remembered of targets and pairs; beyond it the oldest half is forgotten.
const most = 1 << 16

// hash is FNV-1a over a and b: the same on every worker.
func hash(a, b string) uint64 {
	h := uint64(14695981039346656037)
	for _, s := range [2]string{a, b} {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
		h = (h ^ 0xff) * 1099511628211
	}
	// FNV leaves the high bits of short texts alike; rendezvous hashing needs them spread.
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	return h ^ h>>33
}

// coolDowns are the pairs of proxy and host that rest.
type coolDowns struct {
	mu    sync.RWMutex
	pairs map[uint64]time.Time
}

func newCoolDowns() *coolDowns { return &coolDowns{pairs: map[uint64]time.Time{}} }

func (c *coolDowns) key(proxy, host string) uint64 { return hash(proxy, host) }

func (c *coolDowns) resting(proxy, host string, now time.Time) bool {
	return c.until(proxy, host).After(now)
}

// until is when the pair's rest ends; zero when it does not rest.
func (c *coolDowns) until(proxy, host string) time.Time {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if len(c.pairs) == 0 {
		return time.Time{}
	}
	return c.pairs[c.key(proxy, host)]
}

func (c *coolDowns) rest(proxy, host string, d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if len(c.pairs) >= most {
		forget(c.pairs, now, func(t time.Time) time.Time { return t })
	}
	c.pairs[c.key(proxy, host)] = now.Add(d)
}

// forget drops what is over, and if that is not enough the older half.
func forget[V any](m map[uint64]V, now time.Time, at func(V) time.Time) {
	times := make([]time.Time, 0, len(m))
	for key, v := range m {
		if at(v).Before(now) {
			delete(m, key)
			continue
		}
		times = append(times, at(v))
	}
	if len(times) < most/2 {
		return
	}
	slices.SortFunc(times, time.Time.Compare)
	middle := times[len(times)/2]
	for key, v := range m {
		if at(v).Before(middle) {
			delete(m, key)
		}
	}
}

// standing is what is known of a target when an attempt there failed.
type standing uint8

const (
	unknown standing = iota
	healthy          // it answers through other proxies
	suspect          // it fails through other proxies too
)

// targets remembers through which proxies a target failed since it last answered. A target that failed through three is held
// to blame: its failures open no breaker. One that lately answered through another proxy is not: the failure is the proxy's.
type targets struct {
	mu   sync.Mutex
	byID map[uint64]*target
}

type target struct {
	failedBy [3]string
	answered time.Time
	seen     time.Time
}

func newTargets() *targets { return &targets{byID: map[uint64]*target{}} }

// lately is how long an answer speaks for a target.
const lately = time.Minute

func (t *targets) succeeded(id uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	x := t.get(id)
	x.failedBy = [3]string{}
	x.answered = x.seen
}

func (t *targets) failed(id uint64, proxy string, pool int) standing {
	t.mu.Lock()
	defer t.mu.Unlock()
	x := t.get(id)
	n := 0
	for i, p := range x.failedBy {
		if p == "" || p == proxy {
			x.failedBy[i] = proxy
			n = max(n, i+1)
			break
		}
		n = i + 1
	}
	for n < len(x.failedBy) && x.failedBy[n] != "" {
		n++
	}
	switch {
	case n >= min(len(x.failedBy), max(2, pool)):
		return suspect
	case !x.answered.IsZero() && x.seen.Sub(x.answered) < lately:
		return healthy
	}
	return unknown
}

func (t *targets) get(id uint64) *target {
	now := time.Now()
	x := t.byID[id]
	if x == nil {
		if len(t.byID) >= most {
			forget(t.byID, now.Add(-time.Hour), func(x *target) time.Time { return x.seen })
		}
		x = new(target)
		t.byID[id] = x
	}
	x.seen = now
	return x
}
