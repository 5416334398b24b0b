package fleet_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/fleet"
)

// settings is a worker as far as the fleet's settings go.
type settings struct {
	*fleet.Settings
	pool *rotation.Pool
	log  *testenv.Log
}

// follow runs a worker that follows the fleet's settings until the test ends.
func (f *installation) follow(restore func(context.Context)) *settings {
	f.Helper()
	s := &settings{pool: rotation.New(rotation.Config{}), log: new(testenv.Log)}
	s.Settings = fleet.New(fleet.Config{
		Names: f.names, Pool: s.pool, Policy: jobs.DefaultPolicy(), Strategy: rotation.RoundRobin, Log: slog.New(slog.NewTextHandler(s.log, nil)),
	})
	js, err := jetstream.New(f.nats.Connect())
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx, js, restore) })
	f.Cleanup(func() { cancel(); running.Wait() })
	testenv.Eventually(f.T, "the settings to be read", func() bool { return s.Err() == nil })
	return s
}

// set writes a key of a bucket as anybody may.
func (f *installation) set(bucket, key, value string) {
	f.Helper()
	js, err := jetstream.New(f.nats.Connect())
	if err != nil {
		f.Fatal(err)
	}
	kv, err := js.KeyValue(f.Context(), f.names.Bucket(bucket))
	if err == nil {
		_, err = kv.PutString(f.Context(), key, value)
	}
	if err != nil {
		f.Fatal(err)
	}
}

// TestBrokenLineOfAProxyIsTheSameToAllWorkers has a worker that knew a good line before, and one that starts after.
func TestBrokenLineOfAProxyIsTheSameToAllWorkers(t *testing.T) {
	f := newFleet(t)
	before := f.follow(nil)
	f.set("proxies", "p1", "http://192.0.2.1:8080")
	testenv.Eventually(t, "the proxy to be in the pool", func() bool { return before.pool.Len() == 1 })
	f.set("proxies", "p1", "http://192.0.2.1:no-port")
	f.set("proxies", "p2", "http://192.0.2.2:8080")
	testenv.Eventually(t, "the other proxy to be in the pool", func() bool { _, found := before.pool.StatusOf("p2"); return found })
	after := f.follow(nil)
	for name, worker := range map[string]*settings{"the one before": before, "the one after": after} {
		if _, found := worker.pool.StatusOf("p1"); found || worker.pool.Len() != 1 {
			t.Errorf("%s has %d proxies, p1 among them: %v; want p2 alone", name, worker.pool.Len(), found)
		}
	}
}

func TestDeletedBucketIsFollowedAgainOnceItIsBack(t *testing.T) {
	for _, bucket := range []string{"proxies", "policy", "deny"} {
		t.Run(bucket, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			js, err := jetstream.New(f.nats.Connect())
			if err != nil {
				t.Fatal(err)
			}
			stream, err := js.Stream(t.Context(), "KV_"+f.names.Bucket(bucket))
			if err != nil {
				t.Fatal(err)
			}
			config := stream.CachedInfo().Config
			missed := make(chan struct{}, 100)
			s := f.follow(func(context.Context) { missed <- struct{}{} })
			if err := js.DeleteStream(t.Context(), config.Name); err != nil {
				t.Fatal(err)
			}
			<-missed
			if err := s.Err(); err == nil || !strings.Contains(err.Error(), "gofer-"+bucket+": it is missing") {
				t.Errorf("got trouble %v, want the bucket named", err)
			}
			if _, err := js.CreateStream(t.Context(), config); err != nil {
				t.Fatal(err)
			}
			f.set("proxies", "p1", "http://192.0.2.1:8080")
			f.set("policy", fleet.PolicyKey, `{"max_attempts":7}`)
			f.set("deny", fleet.DenyKey("shop.test"), "")
			testenv.Eventually(t, "the settings to hold", func() bool {
				policy, _ := s.Policy()
				return s.pool.Len() == 1 && policy.MaxAttempts == 7 && s.IsDenied("shop.test")
			})
			if s.Err() != nil {
				t.Errorf("got trouble %v, want none", s.Err())
			}
		})
	}
}

// TestBucketThatIsReplacedIsNoticed has a bucket that is there again before anybody has looked.
func TestBucketThatIsReplacedIsNoticed(t *testing.T) {
	f := newFleet(t)
	s := f.follow(nil)
	f.set("deny", "old.test", "")
	testenv.Eventually(t, "the host to be denied", func() bool { return s.IsDenied("old.test") })
	js, err := jetstream.New(f.nats.Connect())
	if err != nil {
		t.Fatal(err)
	}
	name := "KV_" + f.names.Bucket("deny")
	stream, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	if err := js.DeleteStream(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	f.set("deny", "new.test", "")
	testenv.Eventually(t, "the new bucket to hold", func() bool { return s.IsDenied("new.test") && !s.IsDenied("old.test") })
}

func TestHostThatSomebodyWroteByHandIsDenied(t *testing.T) {
	f := newFleet(t)
	s := f.follow(nil)
	f.set("deny", "Shop.TEST", "")
	testenv.Eventually(t, "the host to be denied", func() bool { return s.IsDenied("shop.test") && s.IsDenied("SHOP.test.") })
}
