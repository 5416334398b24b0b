package daemon_test

import (
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker"
	"github.com/gofer-mq/gofer/worker/daemon"
)

// TestManyViewersOfTheQueuesCostWhatOneCosts: each answer lists the consumers. The worker counts every few seconds besides.
func TestManyViewersOfTheQueuesCostWhatOneCosts(t *testing.T) {
	server := testenv.StartNATS(t, nil)
	r := run(t, daemon.Config{NATS: bus.Dial{URL: server.URL()}, Name: "w1"})
	r.until("nats: connected")
	r.first("/queues", "queues", func(map[string]any) bool { return true })
	var lists atomic.Int64
	nc := server.Connect()
	if _, err := nc.Subscribe("$JS.API.CONSUMER.LIST.GOFER_JOBS", func(*nats.Msg) { lists.Add(1) }); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var viewers sync.WaitGroup
	for range 50 {
		viewers.Go(func() {
			for range 4 {
				if status, answer := r.call("GET", "/queues", ""); status != 200 || list(answer, "queues") != 1 {
					t.Errorf("a viewer gets %d %v", status, answer)
				}
			}
		})
	}
	viewers.Wait()
	if most := int64(3 + 2*time.Since(began).Seconds()); lists.Load() > most {
		t.Errorf("200 questions within %s list the consumers %d times, want %d at most", time.Since(began), lists.Load(), most)
	}
	paused := func() any {
		_, answer := r.call("GET", "/queues", "")
		queues, _ := answer["queues"].([]any)
		return queues[0].(map[string]any)["paused_until"]
	}
	if status, answer := r.call("POST", "/queues/default/pause", ""); status != 200 {
		t.Fatalf("pause: %d %v", status, answer)
	}
	if paused() == nil {
		t.Error("the queue is not paused in the answer that follows its pause")
	}
}

// TestAQueueIsServedOnlyWhileAWorkerRuns: the consumers of a queue stay when its last worker has gone.
func TestAQueueIsServedOnlyWhileAWorkerRuns(t *testing.T) {
	server := testenv.StartNATS(t, nil)
	r := run(t, daemon.Config{NATS: bus.Dial{URL: server.URL()}, Name: "w1"})
	r.until("nats: connected")
	served := func() map[string]bool {
		_, answer := r.call("GET", "/queues", "")
		queues, _ := answer["queues"].([]any)
		out := map[string]bool{}
		for _, q := range queues {
			name, _ := q.(map[string]any)["queue"].(string)
			out[name], _ = q.(map[string]any)["served"].(bool)
		}
		return out
	}
	other := run(t, daemon.Config{NATS: bus.Dial{URL: server.URL()}, Name: "w2", Queues: []worker.Queue{{Name: "other"}}})
	both := map[string]bool{"default": true, "other": true}
	testenv.Eventually(t, "both queues to be served", func() bool { return maps.Equal(served(), both) })
	other.stop()
	testenv.Eventually(t, "the queue of the worker that has ended to be unserved", func() bool {
		return maps.Equal(served(), map[string]bool{"default": true, "other": false})
	})
}
