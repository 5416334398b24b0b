package worker_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker"
)

// TestOnlyConsumersOfQueuesWithWorkAreInspectedOneByOne has eight queues, of which one has a job that runs. An edit of a consumer
// of the others is noticed nevertheless, and its repair.
func TestOnlyConsumersOfQueuesWithWorkAreInspectedOneByOne(t *testing.T) {
	t.Parallel()
	queues := []string{"busy", "i1", "i2", "i3", "i4", "i5", "i6", "i7"}
	w := newWorld(t, bus.Settings{Queues: queues})
	for _, queue := range queues {
		w.queues = append(w.queues, worker.Queue{Name: queue})
	}
	w.slots = 8
	traffic := w.nats.Trace("")
	var runs atomic.Bool
	end := make(chan struct{})
	w.start(func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome {
		runs.Store(true)
		<-end
		return finished(jobs.Succeeded, "", nil)
	})
	defer close(end)
	w.publishTo("busy", "x1")
	w.until("the job to run", runs.Load)
	const list, info = "$JS.API.CONSUMER.LIST.GOFER_JOBS", "$JS.API.CONSUMER.INFO.GOFER_JOBS.worker-"
	w.until("the first list", func() bool { return traffic.Sent()[list] > 0 })
	asked := map[string]int{}
	w.until("two more lists", func() bool {
		for subject, n := range traffic.Sent() {
			if strings.HasPrefix(subject, info) || subject == list {
				asked[subject] += n
			}
		}
		return asked[list] > 1
	})
	if len(asked) != 2 || asked[info+"busy"] == 0 {
		t.Errorf("asked %v, want the consumers of the queue with work and lists only", asked)
	}
	w.editConsumer("i3", consumerEdit{change: func(c *jetstream.ConsumerConfig) { c.HeadersOnly = true }})
	w.until("the worker to name the edit", func() bool { return strings.Contains(fmt.Sprint(w.worker.PullError()), "headers_only") })
	if _, err := w.client.Apply(t.Context(), w.set); err != nil {
		t.Fatal(err)
	}
	w.until("the worker to see that it is repaired", func() bool { return w.worker.PullError() == nil })
}
