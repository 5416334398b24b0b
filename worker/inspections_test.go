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
	asked := map[string]int{}
	w.until("only lists and the consumer of the queue with work to be asked for between two lists", func() bool {
		for subject, n := range traffic.Sent() {
			if strings.HasPrefix(subject, info) || subject == list {
				asked[subject] += n
			}
		}
		if asked[list] < 2 {
			return false
		}
		found := len(asked) == 2 && asked[info+"busy"] > 0
		clear(asked) // the others may not have been quiet for long enough yet
		return found
	})
	w.editConsumer("i3", consumerEdit{change: func(c *jetstream.ConsumerConfig) { c.HeadersOnly = true }})
	w.until("the worker to name the edit", func() bool { return strings.Contains(fmt.Sprint(w.worker.PullError()), "headers_only") })
	if _, err := w.client.Apply(t.Context(), w.set); err != nil {
		t.Fatal(err)
	}
	w.until("the worker to see that it is repaired", func() bool { return w.worker.PullError() == nil })
}
