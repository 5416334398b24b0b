package rollup_test

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// goodParts are the parts of a worker that counted something.
func goodParts() map[rollup.Kind][]byte {
	b := rollup.NewBook()
	b.AddAttempt(rollup.AttemptFact{Proxy: "p1", Status: 200, Duration: time.Second, Bytes: 512})
	b.AddAttempt(rollup.AttemptFact{Proxy: "p2", Fault: jobs.FaultProxy, Reason: "timeout", Duration: time.Minute})
	b.AddRetry(jobs.RetryEvent{})
	b.AddBreakerEvent(jobs.BreakerEvent{ProxyID: "p2", ToState: "open"})
	b.AddJob(rollup.JobFact{Outcome: jobs.Succeeded, Policy: "exponential/3", Attempts: 2, Duration: time.Second})
	out := map[rollup.Kind][]byte{}
	for _, p := range b.Changed() {
		out[p.Kind] = p.Data
	}
	return out
}

// answersOf asks a book that holds one sum.
func answersOf(kind rollup.Kind, parts ...[]byte) (a answers, errs int) {
	sum := rollup.NewSum(kind)
	for _, data := range parts {
		if sum.Add(data) != nil {
			errs++
		}
	}
	b := rollup.NewBook()
	b.Put(time.Now(), sum)
	hour := b.Hour(0)
	return answers{
		Series: b.Series(1), Proxies: b.ByProxy(24), Policies: b.ByPolicy(1), Errors: hour.Errors(), Failures: hour.Failures(),
		Retries: rollup.Retries{SuccessByAttempt: hour.SuccessByAttempt(), BreakerEvents: hour.BreakerChanges()},
	}, errs
}

// FuzzSum adds any bytes to a good part. Malformed ones change nothing; others only add, and no number leaves its bounds.
func FuzzSum(f *testing.F) {
	for kind, data := range goodParts() {
		f.Add(kind == rollup.Totals, data)
		f.Add(kind != rollup.Totals, data)
		f.Add(kind == rollup.Totals, data[:len(data)-1])
		f.Add(kind == rollup.Totals, bytes.Repeat(data, 3))
	}
	for _, data := range [][]byte{
		nil, {0}, {0, 0}, {1, 'x'}, record(nil, "attempts", 7, 8, 9), record(nil, "attempts"), record(nil, "job.succeeded", 1<<49), record(nil, "job.unknown", 1),
		record(nil, "latency", make([]int64, 256)...), record(nil, "~", 1, 2, 3, 4, 5, 6, 7), record(nil, "p.1", 1), record(nil, "p1", 1<<62), bytes.Repeat(record(nil, "p1", 1<<62), 2), bytes.Repeat(record(nil, "attempts", 1<<62), 2), bytes.Repeat([]byte{0xff}, 20),
	} {
		f.Add(true, data)
		f.Add(false, data)
	}
	good, answered := goodParts(), map[rollup.Kind]answers{}
	for kind, data := range good {
		answered[kind], _ = answersOf(kind, data)
	}
	f.Fuzz(func(t *testing.T, totals bool, data []byte) {
		kind := map[bool]rollup.Kind{true: rollup.Totals, false: rollup.Proxies}[totals]
		after, errs := answersOf(kind, data, good[kind])
		before := answered[kind]
		if errs > 0 {
			before, _ = answersOf(kind, good[kind]) // of the same hour
		}
		switch {
		case errs > 0 && !reflect.DeepEqual(after, before):
			t.Errorf("after malformed bytes: got %+v, want %+v", after, before)
		case errs > 1:
			t.Error("a good part is malformed after another one")
		}
		now, was := after.Series[0], before.Series[0]
		if now.TotalRequests < was.TotalRequests || now.Attempts < was.Attempts || now.TotalRetries < was.TotalRetries || now.Bytes < was.Bytes || now.BreakerOpens < was.BreakerOpens {
			t.Errorf("got %+v, want no number below %+v", now, was)
		}
		if now.SuccessRate < 0 || now.SuccessRate > 1 && kind == rollup.Proxies || now.AvgLatency < 0 || now.P99 < 0 {
			t.Errorf("got %+v, want rates and latencies within their bounds", now)
		}
		for _, p := range after.Proxies {
			if p.TotalAttempts < 0 || p.SuccessCount < 0 || p.FailureCount < 0 || p.Bytes < 0 || p.Opens < 0 || p.AvgLatency < 0 {
				t.Errorf("got %+v, want no number below zero", p)
			}
			if p.ProxyID != rollup.Rest && !jobs.ValidProxyID(p.ProxyID) {
				t.Errorf("got a row of %q, which is no proxy", p.ProxyID)
			}
		}
		if len(after.Proxies) > 1001 {
			t.Errorf("got %d rows, want at most 1,000 and the rest", len(after.Proxies))
		}
	})
}
