package fleet_test

import (
	"encoding/json"
	"log/slog"
	"reflect"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/fleet"
)

// buckets are those that a worker follows.
func buckets() []string { return []string{"proxies", "policy", "deny", "breakers"} }

func spares() []string { return []string{"spare1", "spare2", "spare3"} }

// followed is a worker that knows a good value of each bucket, beside a proxy of its own list.
type followed struct {
	*fleet.Settings
	breakers *fleet.Breakers
	pool     *rotation.Pool
}

const (
	goodPolicy  = `{"max_attempts": 7}`
	goodFinding = `{"worker":"w2","instance":"x","duration":60}`
	goodProxy   = "http://192.0.2.2:3128"
	longestFind = 2 * time.Minute
)

func newFollowed(t *testing.T) *followed {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	f := &followed{pool: rotation.New(rotation.Config{})}
	f.Settings = fleet.New(fleet.Config{Pool: f.pool, Policy: jobs.DefaultPolicy(), Strategy: rotation.RoundRobin, Log: log})
	f.breakers = fleet.NewBreakers(fleet.BreakersConfig{Pool: f.pool, Worker: "w1", MaxDuration: longestFind, Log: log})
	listed, err := proxylist.ParseLine("http://192.0.2.1:3128 id=listed")
	if err != nil {
		t.Fatal(err)
	}
	f.SetListed([]proxylist.Proxy{listed})
	f.set("proxies", "good", []byte(goodProxy))
	for _, id := range spares() { // so that two findings are about less than half of the pool
		f.set("proxies", id, []byte("http://192.0.2.3:3128 tags="+id))
	}
	f.set("policy", fleet.PolicyKey, []byte(goodPolicy))
	f.set("policy", fleet.StrategyKey, []byte("random"))
	f.set("deny", "good.test", []byte{})
	f.set("breakers", "good", []byte(goodFinding))
	return f
}

// set applies a value as the follower of its bucket does.
func (f *followed) set(bucket, key string, value []byte) {
	if bucket == "breakers" {
		f.breakers.Set(key, value, 0)
		return
	}
	f.Set(bucket, key, value)
}

// FuzzBucketValues sets any key of a bucket to any value. What the other keys say still holds, what is there is valid, and a good
// value holds as soon as it is set.
func FuzzBucketValues(f *testing.F) {
	for i := range buckets() {
		for _, value := range []string{
			"", goodPolicy, goodFinding, goodProxy, "random", `{}`, `null`, `[]`, `{"max_attempts":-1}`, `{"max_attempts":1e400}`, "\xef\xbb\xbfrandom\r\n",
			`{"worker":"w2","duration":1e300}`, `{"worker":"w2","duration":"-1h"}`, `{"worker":"","duration":60}`, `{"duration":9223372036854775807,"worker":"w"}`,
			"http://u:p@[::1%25x]:1 id=good tags=a,b weight=1e9", "# nothing", "http://192.0.2.9:1 id=other", "\x00", "socks5h://192.0.2.9:1\nhttp://192.0.2.8:1",
		} {
			for _, key := range []string{"good", fleet.PolicyKey} {
				f.Add(uint8(i), key, []byte(value))
			}
		}
	}
	for i, key := range []string{"listed", fleet.StrategyKey, "good.test", "other", "=", "metrics", "leader.overdue", ""} {
		f.Add(uint8(i), key, []byte("random"))
		f.Add(uint8(i), key, []byte(goodProxy))
	}
	f.Fuzz(func(t *testing.T, i uint8, key string, value []byte) {
		bucket := buckets()[int(i)%len(buckets())]
		w := newFollowed(t)
		policy, _ := w.Policy()
		w.set(bucket, key, value)
		w.isWhole(t, bucket, key, policy)
		w.set("policy", fleet.PolicyKey, []byte(`{"max_attempts": 5}`))
		if policy, _ := w.Policy(); policy.MaxAttempts != 5 {
			t.Errorf("max attempts: got %d, want the 5 that were set last", policy.MaxAttempts)
		}
		w.set("proxies", "good", []byte("http://192.0.2.7:3128"))
		w.set("breakers", "good", []byte(goodFinding))
		if s, found := w.pool.StatusOf("good"); !found || time.Until(s.AvoidedUntil) < 50*time.Second {
			t.Errorf("the proxy of a good line and a good finding: got %+v, want it in the pool and avoided", s)
		}
		w.set("policy", fleet.StrategyKey, []byte("weighted"))
		if got := w.pool.Strategy(); got != rotation.Weighted {
			t.Errorf("strategy: got %s, want the one that was set last", got)
		}
	})
}

// isWhole checks what holds whatever was set.
func (f *followed) isWhole(t *testing.T, bucket, key string, before jobs.Policy) {
	t.Helper()
	policy, _ := f.Policy()
	if bucket != "policy" || key != fleet.PolicyKey {
		if !reflect.DeepEqual(policy, before) {
			t.Errorf("policy: got %+v, want %+v", policy, before)
		}
	}
	data, err := json.Marshal(policy)
	if err == nil {
		_, err = jobs.DecodePolicy(data, jobs.DefaultPolicy())
	}
	if err != nil {
		t.Errorf("the policy %+v that applies is not valid: %v", policy, err)
	}
	if got := f.pool.Strategy(); got != rotation.Random && (bucket != "policy" || key != fleet.StrategyKey) {
		t.Errorf("strategy: got %s, want random", got)
	}
	if _, err := rotation.ParseStrategy(string(f.pool.Strategy())); err != nil {
		t.Errorf("the strategy that applies is not valid: %v", err)
	}
	if !f.IsDenied("good.test") {
		t.Error("a denied host is allowed again")
	}
	for _, id := range append(spares(), "listed", "good") {
		if _, found := f.pool.StatusOf(id); !found && (bucket != "proxies" || key != id || id == "listed") {
			t.Errorf("proxy %s is gone", id)
		}
	}
	for _, s := range f.pool.Status() {
		if !jobs.ValidProxyID(s.ID) || time.Until(s.AvoidedUntil) > longestFind {
			t.Errorf("proxy %q is avoided until %v, want a valid id and at most %v", s.ID, s.AvoidedUntil, longestFind)
		}
	}
	if s, found := f.pool.StatusOf("good"); found && s.AvoidedUntil.IsZero() && key != "good" {
		t.Error("a finding about a proxy is gone")
	}
}
