package daemon_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker"
	"github.com/gofer-mq/gofer/worker/daemon"
)

// TestAnIdleFleetAsksItsServerTwiceASecondPerWorkerAtMost has two workers with as many queues as a worker may have. Pulls
// that wait, watches and pings are no requests. A worker is quiet after a minute.
func TestAnIdleFleetAsksItsServerTwiceASecondPerWorkerAtMost(t *testing.T) {
	testenv.Long(t)
	t.Parallel()
	server := testenv.StartNATS(t, nil)
	var queues []worker.Queue
	for i := range worker.MaxQueues {
		queues = append(queues, worker.Queue{Name: fmt.Sprint("q", i)})
	}
	const workers = 2
	for i := range workers {
		r := run(t, daemon.Config{NATS: bus.Dial{URL: server.URL()}, Name: fmt.Sprint("w", i), Queues: queues, DrainTimeout: 30 * time.Second})
		r.until("nats: connected")
	}
	<-time.After(80 * time.Second)
	before, began := server.Received("gofer worker"), time.Now()
	<-time.After(time.Minute)
	perSecond := float64(server.Received("gofer worker")-before) / time.Since(began).Seconds() / workers
	t.Logf("%.2f requests a second per worker", perSecond)
	if perSecond > 2 {
		t.Errorf("an idle worker makes %.2f requests a second, want 2 at most", perSecond)
	}
}
