package worker_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker"
)

// consumerEdit is what somebody does to the consumer of a queue under a worker.
type consumerEdit struct {
	change func(*jetstream.ConsumerConfig)
	// anew: the server refuses the change, so the consumer is deleted and created with it.
	anew bool
	// named is the setting that makes the consumer unusable; empty if jobs go on.
	named string
}

func consumerEdits() map[string]consumerEdit {
	type config = *jetstream.ConsumerConfig
	return map[string]consumerEdit{
		"description":     {change: func(c config) { c.Description = "ours" }},
		"metadata":        {change: func(c config) { c.Metadata = map[string]string{"team": "x"} }},
		"sample":          {change: func(c config) { c.SampleFrequency = "100" }},
		"batch":           {change: func(c config) { c.MaxRequestBatch = 1 }},
		"expires":         {change: func(c config) { c.MaxRequestExpires = time.Millisecond }},
		"bytes":           {change: func(c config) { c.MaxRequestMaxBytes = 1 }},
		"ack_pending":     {change: func(c config) { c.MaxAckPending = 1 }},
		"threshold":       {change: func(c config) { c.InactiveThreshold = 100 * time.Millisecond }},
		"wait":            {change: func(c config) { c.AckWait = 1100 * time.Millisecond }},
		"backoff":         {change: func(c config) { c.BackOff = []time.Duration{1500 * time.Millisecond, 1100 * time.Millisecond} }},
		"waiting":         {change: func(c config) { c.MaxWaiting = 1 }, anew: true},
		"memory":          {change: func(c config) { c.MemoryStorage = true }, anew: true},
		"short_wait":      {change: func(c config) { c.AckWait = 50 * time.Millisecond }, named: "ack_wait"},
		"short_backoff":   {change: func(c config) { c.BackOff = []time.Duration{2 * time.Second, time.Millisecond} }, named: "backoff"},
		"headers":         {change: func(c config) { c.HeadersOnly = true }, named: "headers_only"},
		"deliver":         {change: func(c config) { c.MaxDeliver = 1 }, named: "max_deliver"},
		"narrow":          {change: func(c config) { c.FilterSubject += ">"; c.FilterSubject = "gofer.jobs.narrow.x9" }, named: "filter_subject"},
		"several":         {change: severalFilters, named: "filter_subject"},
		"pinned":          {change: priority(jetstream.PriorityPolicyPinned), named: "priority_policy"},
		"overflow":        {change: priority(jetstream.PriorityPolicyOverflow), named: "priority_policy"},
		"prioritized":     {change: priority(jetstream.PriorityPolicyPrioritized), named: "priority_policy"},
		"replay":          {change: func(c config) { c.ReplayPolicy = jetstream.ReplayOriginalPolicy }, anew: true, named: "replay_policy"},
		"push":            {change: func(c config) { c.DeliverSubject, c.MaxWaiting = "nobody.listens", 0 }, anew: true, named: "deliver_subject"},
		"push_to_a_group": {change: pushToGroup, anew: true, named: "deliver_group"},
	}
}

func severalFilters(c *jetstream.ConsumerConfig) {
	c.FilterSubject, c.FilterSubjects = "", []string{"gofer.jobs.several.x1", "gofer.jobs.several.x2"}
}

func priority(policy jetstream.PriorityPolicy) func(*jetstream.ConsumerConfig) {
	return func(c *jetstream.ConsumerConfig) { c.PriorityPolicy, c.PriorityGroups = policy, []string{"g"} }
}

func pushToGroup(c *jetstream.ConsumerConfig) {
	c.DeliverSubject, c.DeliverGroup, c.MaxWaiting = "nobody.listens", "g", 0
	c.FlowControl, c.IdleHeartbeat = true, time.Second
}

// TestEditedConsumerCostsNoJob edits the consumers of many queues under a worker while jobs come. Those whose edit can be obeyed
// go on. From the others no job is taken, the worker says why, and all of them end once gofer setup has repaired the consumer.
func TestEditedConsumerCostsNoJob(t *testing.T) {
	t.Parallel()
	edits := consumerEdits()
	queues := slices.Sorted(maps.Keys(edits))
	w := newWorld(t, bus.Settings{Queues: queues})
	w.serve(queues)
	const each = 12
	publish := func(from int) {
		for _, queue := range queues {
			for i := from; i < from+each/2; i++ {
				w.publishTo(queue, fmt.Sprint("x", i))
			}
		}
	}
	publish(0)
	for _, queue := range queues {
		w.editConsumer(queue, edits[queue])
	}
	publish(each / 2)
	for _, queue := range queues {
		if named := edits[queue].named; named == "" {
			w.untilEnded(queue, each)
		} else {
			w.until("the worker to name "+named+" of queue "+queue, func() bool {
				err := w.worker.PullError()
				return err != nil && strings.Contains(err.Error(), "consumer worker-"+queue+" of stream GOFER_JOBS: "+named)
			})
		}
	}
	if _, err := w.client.Apply(t.Context(), w.set); err != nil {
		t.Fatal(err)
	}
	for _, queue := range queues {
		w.untilEnded(queue, each)
	}
	w.until("the worker to see that all are repaired", func() bool { return w.worker.PullError() == nil })
}

// TestBoundsOfPullsAreObeyed counts what the worker logs: it may meet the bound once, and obeys it from then on.
func TestBoundsOfPullsAreObeyed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{Queues: []string{"bounded"}})
	w.serve([]string{"bounded"})
	w.editConsumer("bounded", consumerEdit{change: func(c *jetstream.ConsumerConfig) {
		c.MaxRequestBatch, c.MaxRequestExpires = 3, 10*time.Millisecond
	}})
	for i := range 300 {
		w.publishTo("bounded", fmt.Sprint("x", i))
	}
	w.untilEnded("bounded", 300)
	if n := strings.Count(w.logged.String(), "jobs cannot be pulled"); n > 1 {
		t.Errorf("pulls were refused %d times, want once at most:\n%s", n, w.logged.String())
	}
	w.until("the worker to say which bounds it keeps to", func() bool {
		said := fmt.Sprint(w.worker.ObeyedSettings())
		return strings.Contains(said, "max_batch is 3") && strings.Contains(said, "max_expires is 10ms") && w.worker.PullError() == nil
	})
}

// serve runs a worker for queues whose jobs all succeed.
func (w *world) serve(queues []string) {
	w.Helper()
	var list []worker.Queue
	for _, queue := range queues {
		list = append(list, worker.Queue{Name: queue})
	}
	w.queues, w.slots = list, 32
	w.start(func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome {
		return finished(jobs.Succeeded, "", nil)
	})
	w.until("the worker to reach its consumers", func() bool { return w.worker.PullError() == nil })
}

func (w *world) publishTo(queue, id string) {
	w.Helper()
	js := w.client.JetStream()
	if _, err := js.Publish(w.Context(), "gofer.jobs."+queue+"."+id, []byte(page)); err != nil {
		w.Fatalf("publish %s/%s: %v", queue, id, err)
	}
}

func (w *world) editConsumer(queue string, edit consumerEdit) {
	w.Helper()
	js, name := w.client.JetStream(), "worker-"+queue
	consumer, err := js.Consumer(w.Context(), "GOFER_JOBS", name)
	if err != nil {
		w.Fatal(err)
	}
	config := consumer.CachedInfo().Config
	edit.change(&config)
	if !edit.anew {
		_, err = js.UpdateConsumer(w.Context(), "GOFER_JOBS", config)
		if err != nil {
			w.Fatalf("edit of queue %s: %v", queue, err)
		}
		return
	}
	// The worker creates what is missing, so this may have to be quick more than once.
	w.until("the consumer of "+queue+" to be another one", func() bool {
		_ = js.DeleteConsumer(w.Context(), "GOFER_JOBS", name)
		if config.DeliverSubject != "" {
			_, err = js.CreatePushConsumer(w.Context(), "GOFER_JOBS", config)
		} else {
			_, err = js.CreateConsumer(w.Context(), "GOFER_JOBS", config)
		}
		return err == nil
	})
}

// untilEnded waits until the jobs x0, x1, … of the queue, n of them, have ended, all of them well.
func (w *world) untilEnded(queue string, n int) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 2*testenv.Patience)
	defer cancel()
	var keys []bus.Key
	for i := range n {
		keys = append(keys, bus.Key{Queue: queue, ID: fmt.Sprint("x", i)})
	}
	ended := 0
	err := client.New(w.client).WaitMany(ctx, keys, func(r jobs.Result) error {
		ended++
		if r.Outcome != jobs.Succeeded {
			w.Errorf("job %s/%s ended as %s %s: %s", queue, r.ID, r.Outcome, r.Error, r.Detail)
		}
		return nil
	})
	if err != nil {
		w.Fatalf("%d of %d jobs of queue %s ended in a minute: %v", ended, n, queue, err)
	}
}

// TestWhateverIsDeletedComesBack deletes all streams and buckets, then all consumers, one by one.
func TestWhateverIsDeletedComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{})
	w.serve([]string{"default"})
	js := w.client.JetStream()
	missing := func() (names []string) {
		found, err := w.client.Inspect(t.Context(), w.set)
		for _, d := range found {
			if d.Repair == bus.ByCreation {
				names = append(names, d.Name)
			}
		}
		if err != nil {
			names = append(names, err.Error())
		}
		return names
	}
	consumers := [][2]string{
		{"GOFER_JOBS", "worker-default"}, {"GOFER_RETRIES", "due-default"}, {"GOFER_RESULTS", bus.Reader}, {"GOFER_EVENTS", bus.Reader}, {"GOFER_DEAD", bus.Reader},
	}
	streams := []string{
		"GOFER_JOBS", "GOFER_RETRIES", "GOFER_RESULTS", "GOFER_EVENTS", "GOFER_DEAD", "GOFER_ROLLUPS",
		"KV_gofer-proxies", "KV_gofer-policy", "KV_gofer-deny", "KV_gofer-breakers", "KV_gofer-sites", "OBJ_gofer-bodies",
	}
	for _, name := range streams {
		if err := js.DeleteStream(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	w.until("all streams to be back", func() bool { return len(missing()) == 0 })
	w.until("the worker to see it", func() bool { return w.worker.StreamsError() == nil })
	for _, c := range consumers {
		if err := js.DeleteConsumer(t.Context(), c[0], c[1]); err != nil {
			t.Fatal(err)
		}
	}
	w.until("all consumers to be back", func() bool { return len(missing()) == 0 })
	w.publish("after", page)
	w.until("a job to end", w.hasResult("after"))
}

// TestEditedStreamCostsNoJob edits a stream while jobs run. The worker names the setting; where it makes jobs end wrongly none is
// taken, and all of them end well once gofer setup has repaired the stream.
func TestEditedStreamCostsNoJob(t *testing.T) {
	t.Parallel()
	type config = *jetstream.StreamConfig
	for name, edit := range map[string]struct {
		stream, named string
		change        func(config)
	}{
		"results without an answer":    {"GOFER_RESULTS", "no_ack", func(c config) { c.NoAck = true }},
		"results that cannot be read":  {"GOFER_RESULTS", "allow_direct", func(c config) { c.AllowDirect = false }},
		"results that have to be tiny": {"GOFER_RESULTS", "max_msg_size", func(c config) { c.MaxMsgSize = 10 }},
		"results elsewhere":            {"GOFER_RESULTS", "subject_transform", func(c config) { c.SubjectTransform = nil; c.RePublish = nil }},
		"results nowhere":              {"GOFER_RESULTS", "subjects", func(c config) { c.Subjects, c.SubjectTransform, c.RePublish = []string{"x"}, nil, nil }},
		"waiting jobs without answers": {"GOFER_RETRIES", "no_ack", func(c config) { c.NoAck = true }},
		"waiting jobs that are lost":   {"GOFER_RETRIES", "max_age", func(c config) { c.MaxAge = 24 * time.Hour }},
		"jobs that are lost":           {"GOFER_JOBS", "max_age", func(c config) { c.MaxAge = 24 * time.Hour }},
		"jobs elsewhere": {"GOFER_JOBS", "subject_transform", func(c config) {
			c.SubjectTransform = &jetstream.SubjectTransformConfig{Source: "gofer.jobs.other.>", Destination: "gofer.jobs.others.>"}
		}},
		"waiting jobs that have to be tiny": {"GOFER_RETRIES", "max_msg_size", func(c config) { c.MaxMsgSize = 10 }},
		"dead letters that have to be tiny": {"GOFER_DEAD", "max_msg_size", func(c config) { c.MaxMsgSize = 10 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, bus.Settings{})
			w.serve([]string{"default"})
			publish := func(from, to int) {
				for i := from; i < to; i++ {
					w.publish(fmt.Sprint("x", i), page)
				}
			}
			publish(0, 20)
			stream, err := w.client.JetStream().Stream(t.Context(), edit.stream)
			if err != nil {
				t.Fatal(err)
			}
			config := stream.CachedInfo().Config
			edit.change(&config)
			if _, err := w.client.JetStream().UpdateStream(t.Context(), config); err != nil {
				t.Fatal(err)
			}
			publish(20, 40)
			w.until("the worker to name "+edit.named, func() bool {
				err := w.worker.StreamsError()
				return err != nil && strings.Contains(err.Error(), "stream "+edit.stream+": "+edit.named)
			})
			publish(40, 60)
			if _, err := w.client.Apply(t.Context(), w.set); err != nil {
				t.Fatal(err)
			}
			w.untilEnded("default", 60)
			w.until("the worker to see that it is repaired", func() bool { return w.worker.StreamsError() == nil })
		})
	}
}

// TestNoWaitingJobIsDroppedForWantOfRoom bounds all streams and lets every job wait twice. The server would drop the oldest
// waiting jobs without a word.
func TestNoWaitingJobIsDroppedForWantOfRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{JobsMaxBytes: 4 << 20, ResultsMaxBytes: 32 << 20})
	var open atomic.Bool // jobs end
	w.queues, w.slots = []worker.Queue{{Name: "default"}}, 8
	w.start(func(_ context.Context, _ *jobs.Job, progress *jobs.Progress) *jobs.RunOutcome {
		if open.Load() {
			return finished(jobs.Succeeded, "", nil)
		}
		return &jobs.RunOutcome{Kind: jobs.RunScheduled, At: time.Now().Add(time.Second), Progress: *progress}
	})
	const n = 100
	payload := `{"url":"` + page + `","method":"POST","body":"` + strings.Repeat("x", 100<<10) + `"}`
	published := 0
	for begin := time.Now(); published < n; {
		if time.Since(begin) > 2*testenv.Patience {
			t.Fatalf("%d of %d jobs were taken in after %s; streams: %v", published, n, 2*testenv.Patience, w.worker.StreamsError())
		}
		_, err := w.client.JetStream().Publish(t.Context(), fmt.Sprint("gofer.jobs.default.x", published), []byte(payload))
		switch {
		case err == nil:
			published++
		case !strings.Contains(err.Error(), "maximum bytes exceeded"):
			t.Fatal(err)
		case errors.Is(w.worker.StreamsError(), worker.ErrRetriesNearlyFull):
			open.Store(true) // nothing moves any more
		}
	}
	if !open.Load() {
		t.Error("the worker took all jobs, want it to say that there is no room")
	}
	w.untilEnded("default", n)
}
