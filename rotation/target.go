package rotation

import "time"

// standing is what is known of a target when an attempt there failed.
type standing uint8

const (
	unknown standing = iota
	doubted          // it failed before, through this proxy or another one
	healthy          // it answers through other proxies
	suspect          // it fails through so many that it is to blame
)

// targets remembers through which proxies a target failed since it last answered. A target that failed through three is held
// to blame: its failures open no breaker. One that lately answered through another proxy is not, as a whole: the failure is the
// proxy's, if the proxy fails most of the time. So it is when the answer comes after the failure.
type targets struct{ byHost aged[*target] }

type target struct {
	failed   [3]failure
	answered time.Duration // zero: never
}

// failure is the latest one through a proxy.
type failure struct {
	by   *entry
	at   time.Duration
	open uint64 // the number of the lease if it is not known yet who is to blame; zero: it is
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

// succeeded notes an answer; the failures are those that were not the target's.
func (t *targets) succeeded(host uint64, now time.Duration) (failed [3]failure, some bool) {
	x := t.get(host)
	if some = x.failed[0].by != nil; some {
		failed, x.failed = x.failed, failed
	}
	x.answered = now
	return failed, some
}

// failed notes a failure through a proxy, and returns the note unless there were too many before.
func (t *targets) failed(host uint64, by *entry, pool int, now time.Duration) (f *failure, s standing) {
	x := t.get(host)
	n := 0
	for n < len(x.failed) && x.failed[n].by != nil && x.failed[n].by != by {
		n++
	}
	again := false
	if n < len(x.failed) {
		f = &x.failed[n]
		again = f.by == by
		*f = failure{by: by, at: now}
	}
	for n < len(x.failed) && x.failed[n].by != nil {
		n++
	}
	switch {
	case n >= min(len(x.failed), max(2, pool)):
		return f, suspect
	case x.answered > 0 && now-x.answered < lately:
		return f, healthy
	case n > 1 || again:
		return f, doubted
	}
	return f, unknown
}
