package daemon_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/daemon"
)

// TestAListThatIsAwaitedHoldsUpTheJobs: no job is taken before it was asked for, and none ends before it was read once.
func TestAListThatIsAwaitedHoldsUpTheJobs(t *testing.T) {
	nats := testenv.StartNATS(t, nil)
	names, err := jobs.NewNames("")
	if err != nil {
		t.Fatal(err)
	}
	b, err := bus.New(nats.Connect(), names)
	if err != nil {
		t.Fatal(err)
	}
	failed, started := make(chan struct{}), atomic.Bool{}
	w := run(t, daemon.Config{
		NATS: bus.Dial{URL: nats.URL()}, AwaitProxies: true, Proxies: parse(t, "http://127.0.0.1:1 region=us"), Started: func() { started.Store(true) },
		WatchProxies: func(ctx context.Context, use func([]proxylist.Proxy, error)) {
			select {
			case <-failed:
				use(nil, errors.New("the list is not there"))
			case <-ctx.Done():
			}
		},
	})
	w.until("denied hosts are known") // asked of the server after the watch began
	if _, page := w.ready(); started.Load() || !strings.Contains(page, "1 in the pool; a list of proxies is being fetched") {
		t.Errorf("started: %v; ready says\n%s", started.Load(), page)
	}
	key := client.Key{Queue: "default", ID: "j1"}
	if _, err := b.JetStream().Publish(t.Context(), "gofer.jobs.default.j1", []byte(`{"url":"http://shop.test/","proxy":{"region":"de","region_strict":true}}`)); err != nil {
		t.Fatal(err)
	}
	close(failed)
	var job client.Listed
	testenv.Eventually(t, "the job to wait or to end", func() bool {
		job, err = client.New(b).StateOf(t.Context(), key)
		return err == nil && job.State != jobs.StateQueued && job.State != jobs.StateRunning
	})
	if job.State != jobs.StateNoProxy {
		t.Errorf("the job is %s, want it to wait for a proxy", job.State)
	}
	w.until("the proxies cannot be read since ")
}
