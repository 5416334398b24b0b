package client_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/stream"
)

// TestQueuesAreListedWithoutAListOfAllJobs has queues that are served, that have only queued jobs, and that have only waiting
// ones.
func TestQueuesAreListedWithoutAListOfAllJobs(t *testing.T) {
	in := install(t, bus.Settings{Queues: []string{"default", "low"}})
	listener := in.server.Connect()
	infos, err := listener.SubscribeSync("$JS.API.STREAM.INFO.*")
	must(t, err)
	must(t, listener.Flush())
	for i, queue := range []string{"default", "misspelt", "misspelt", "NOPE"} {
		_, err := in.js.Publish(soon(t), in.names.Job(queue, fmt.Sprint("j", i)), []byte("http://a.test/"))
		must(t, err)
	}
	for i, queue := range []string{"low", "low", "orphan"} {
		_, err := stream.New(in.bus).Schedule(soon(t), queue, fmt.Sprint("w", i), []byte("http://a.test/"), &jobs.Progress{JobSeq: uint64(i + 1)}, time.Now().Add(time.Hour))
		must(t, err)
	}
	_, err = stream.New(in.bus).WaitForSite(soon(t), "a.test", "low", "s", 0, []byte("http://a.test/"), &jobs.Progress{JobSeq: 9, SiteSince: time.Now()}, time.Now().Add(time.Hour))
	must(t, err)
	// The server tells a consumer of a job a moment after it has confirmed the job.
	testenv.Eventually(t, "the consumer's count", func() bool {
		c, err := in.js.Consumer(soon(t), "GOFER_JOBS", "worker-default")
		return err == nil && c.CachedInfo().NumPending == 1
	})
	all, err := in.Queues(soon(t))
	must(t, err)
	consumed, err := in.ConsumedQueues(soon(t))
	must(t, err)
	for what, test := range map[string]struct {
		list []string
		want string
	}{
		"Queues":         {rows(all), "NOPE 1 0 false, default 1 0 true, low 0 3 true, misspelt 2 0 false, orphan 0 1 false"},
		"ConsumedQueues": {rows(consumed), "NOPE 1 0 false, default 1 0 true, low 0 0 true, misspelt 2 0 false"},
	} {
		if got := strings.Join(test.list, ", "); got != test.want {
			t.Errorf("%s: got %s, want %s", what, got, test.want)
		}
	}
	must(t, listener.Flush())
	for n, _, err := infos.Pending(); n > 0; n, _, err = infos.Pending() {
		must(t, err)
		msg, err := infos.NextMsgWithContext(soon(t))
		must(t, err)
		if strings.Contains(string(msg.Data), "subjects_filter") {
			t.Errorf("a list of subjects was asked for: %s %s", msg.Subject, msg.Data)
		}
	}
}

// rows are queues with their queued jobs, their waiting ones, and whether they are served.
func rows(list []client.QueueState) (out []string) {
	for _, q := range list {
		out = append(out, fmt.Sprint(q.Queue, " ", q.Queued, " ", q.Waiting, " ", q.Served))
	}
	return out
}
