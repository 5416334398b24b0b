package experiments_test

import (
	"fmt"
	"slices"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// hours is the slowest query over a day of 10,000 jobs an hour through 1,000 proxies, beside a look at every attempt.
func hours() row {
	const facts = 240_000
	book := rollup.NewBook()
	raw := make([]rollup.AttemptFact, 0, facts)
	from := time.Now().Add(-24 * time.Hour)
	for i := range facts {
		at := from.Add(time.Duration(i) * 24 * time.Hour / facts)
		a := rollup.AttemptFact{
			Proxy: fmt.Sprintf("p%03d", i%1000), Status: 200, Duration: time.Duration(i) * time.Microsecond, Bytes: 9000, At: at,
		}
		raw = append(raw, a)
		book.AddAttempt(a)
		book.AddJob(rollup.JobFact{Queue: "default", Outcome: jobs.Succeeded, Policy: "exponential/3", Attempts: 1 + i%3, Duration: a.Duration, At: at})
		if i%1000 == 0 {
			for _, p := range book.Changed() {
				book.Stored(p)
			}
		}
	}
	slow := timed(func() { scan(raw) })
	fast := slices.Max([]time.Duration{
		timed(func() { book.Series(24) }), timed(func() { book.ByProxy(24) }), timed(func() { book.ByPolicy(24) }),
		timed(func() { book.Total(24) }), timed(func() { book.Retries() }),
	})
	return row{
		name: "7 slowest query of a day of 240,000 jobs, beside reading every attempt", where: "memory", aim: "< 100 ms",
		baseline: milliseconds(slow), gofer: milliseconds(fast), gain: change(slow.Seconds(), fast.Seconds()), met: fast < 100*time.Millisecond,
	}
}

// scan is what a query by proxy would have to do without hours.
func scan(raw []rollup.AttemptFact) map[string]*rollup.Histogram {
	byProxy := map[string]*rollup.Histogram{}
	for _, a := range raw {
		h := byProxy[a.Proxy]
		if h == nil {
			h = &rollup.Histogram{}
			byProxy[a.Proxy] = h
		}
		h.Observe(a.Duration)
	}
	return byProxy
}

// timed is the longest of a few runs.
func timed(do func()) (longest time.Duration) {
	for range 5 {
		from := time.Now()
		do()
		longest = max(longest, time.Since(from))
	}
	return longest
}
