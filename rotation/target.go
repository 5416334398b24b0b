package rotation

import "time"

// standing is what is known of a target when an attempt there failed.
type standing uint8

const (
	unknown standing = iota
	healthy          // it answers through other proxies
	suspect          // it fails through other proxies too
)

// targets remembers through which proxies a target failed since it last answered. A target that failed through three is held
// to blame: its failures open no breaker. One that lately answered through another proxy is not, as a whole: the failure is the
// proxy's, if the proxy fails most of the time.
type targets struct{ byHost aged[*target] }

type target struct {
	failedBy [3]*entry
	answered time.Duration // zero: never
}

// lately is how long an answer speaks for a target.
const lately = time.Minute

func (t *targets) get(host uint64) *target {
	x, ok := t.byHost.get(host)
	if !ok {
		x = new(target)
		t.byHost.put(host, x)
	}
	return x
}

func (t *targets) succeeded(host uint64, now time.Duration) {
	x := t.get(host)
	if x.failedBy[0] != nil {
		x.failedBy = [3]*entry{}
	}
	x.answered = now
}

func (t *targets) failed(host uint64, e *entry, pool int, now time.Duration) standing {
	x := t.get(host)
	n := 0
	for n < len(x.failedBy) && x.failedBy[n] != nil && x.failedBy[n] != e {
		n++
	}
	if n < len(x.failedBy) {
		x.failedBy[n] = e
	}
	for n < len(x.failedBy) && x.failedBy[n] != nil {
		n++
	}
	switch {
	case n >= min(len(x.failedBy), max(2, pool)):
		return suspect
	case x.answered > 0 && now-x.answered < lately:
		return healthy
	}
	return unknown
}
