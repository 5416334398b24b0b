package experiments_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/fetch"
	settings "github.com/gofer-mq/gofer/worker/fleet"
)

// ran is a job under way while the policy changed.
type ran struct {
	started  time.Time
	attempts int
}

// policy changes the fleet's policy from two attempts to three under load, by way of NATS as its owner would. The time runs
// from the write to the start of the last job that still went by the old policy.
func policy(t *testing.T, s size) row {
	t.Helper()
	f := startFleet(t, 4)
	before := jobs.DefaultPolicy()
	before.MaxAttempts, before.BaseDelay, before.Jitter = 2, jobs.Duration(jobs.MinBaseDelay), false
	shared, kv := joined(t, f, before)
	fetcher := f.fetcher(t, fetch.Config{Policy: func() jobs.Policy { p, _ := shared.Policy(); return p }})
	job := decode(t, "http://shop.test/status/429")
	ended := make(chan ran, 1024)
	stop := repeat(64, func() {
		started := time.Now()
		n := fetcher.Do(t.Context(), job, &jobs.Progress{}).Result.AttemptCount
		ended <- ran{started, n}
	})
	take(ended, s.settle)
	written := put(t, kv, before, 3)
	all := take(ended, s.settle)
	stop()
	r := judge(append(all, take(ended, len(ended))...), written)
	if strings.HasPrefix(r.gain, "0 ") { // however busy the machine is
		t.Errorf("of %d jobs that ended after the write none went by the new policy", s.settle)
	}
	return r
}

func take(ended <-chan ran, n int) (all []ran) {
	for range n {
		all = append(all, <-ended)
	}
	return all
}

func judge(all []ran, written time.Time) row {
	var lag time.Duration
	var after int
	for _, r := range all {
		switch {
		case r.started.Before(written):
		case r.attempts == 3:
			after++
		default:
			lag = max(lag, r.started.Sub(written))
		}
	}
	return row{
		name: "9 from the write of a policy to the last job by the old one, no restart", where: "loopback, NATS", aim: "at once (< 1 s)",
		baseline: "a restart", gofer: milliseconds(lag), gain: count(after) + " jobs by the new", met: after > 0 && lag < time.Second,
	}
}

// joined is a worker's share of a fleet, and the bucket that the fleet's policy lives in.
func joined(t *testing.T, f *fleet, policy jobs.Policy) (*settings.Settings, jetstream.KeyValue) {
	t.Helper()
	names, err := jobs.NewNames("")
	if err != nil {
		t.Fatal(err)
	}
	client, err := bus.New(testenv.StartNATS(t, nil).Connect(), names)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	kv, err := client.JetStream().KeyValue(t.Context(), names.Bucket("policy"))
	if err != nil {
		t.Fatal(err)
	}
	shared := settings.New(settings.Config{Names: names, Pool: f.pool, Policy: policy, Log: slog.New(slog.DiscardHandler)})
	shared.SetListed(f.list)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { shared.Run(ctx, client.JetStream(), nil) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return shared, kv
}

// put writes the policy and returns when that began.
func put(t *testing.T, kv jetstream.KeyValue, p jobs.Policy, attempts int) time.Time {
	t.Helper()
	p.MaxAttempts = attempts
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if _, err := kv.Put(t.Context(), settings.PolicyKey, data); err != nil {
		t.Fatal(err)
	}
	return begun
}
