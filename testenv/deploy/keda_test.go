package deploy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/stream"
)

// kedaLag is what KEDA counts of a consumer: num_pending + num_ack_pending of /jsz?acc=ACCOUNT&consumers=true&config=true
// (getMaxMsgLag in pkg/scalers/nats_jetstream_scaler.go of kedacore/keda). Without the consumer it is the last sequence of the
// stream, which would be the largest fleet.
func kedaLag(t *testing.T, endpoint, streamName, consumer string) int {
	t.Helper()
	resp, err := http.Get(endpoint + "/jsz?acc=GOFER&consumers=true&config=true")
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	var page struct {
		Accounts []struct {
			Name    string `json:"name"`
			Streams []struct {
				Name      string `json:"name"`
				Consumers []struct {
					Name       string `json:"name"`
					Pending    int    `json:"num_pending"`
					AckPending int    `json:"num_ack_pending"`
				} `json:"consumer_detail"`
			} `json:"stream_detail"`
		} `json:"account_details"`
	}
	must(t, json.NewDecoder(resp.Body).Decode(&page))
	for _, account := range page.Accounts {
		for _, s := range account.Streams {
			for _, c := range s.Consumers {
				if account.Name == "GOFER" && s.Name == streamName && c.Name == consumer {
					return c.Pending + c.AckPending
				}
			}
		}
	}
	t.Fatalf("/jsz has no consumer %s of %s", consumer, streamName)
	return 0
}

// TestKEDACountsJobsThatNeedAWorker has jobs that nobody has taken, one that runs, and some that wait for their time.
func TestKEDACountsJobsThatNeedAWorker(t *testing.T) {
	passwords(t, "worker", "admin", "publisher", "reader")
	addr := freeAddr(t)
	srv := startWith(t, t.TempDir(), withExamples(t), func(o *server.Options) {
		o.HTTPHost = "127.0.0.1"
		_, err := fmt.Sscanf(addr, "127.0.0.1:%d", &o.HTTPPort)
		must(t, err)
	})
	worker := byName("worker").client(t, srv)
	must(t, worker.Ensure(soon(t), bus.Settings{}))
	must(t, worker.EnsureQueue(soon(t), "default", bus.Settings{}))
	data, err := os.ReadFile("../../deploy/kubernetes/overlays/keda/scaledobject.yaml")
	must(t, err)
	for _, consumer := range []string{"worker-default", "due-default"} {
		if !strings.Contains(string(data), "consumer: "+consumer+"\n") {
			t.Errorf("the ScaledObject does not count consumer %s", consumer)
		}
	}
	publisher := client.New(byName("publisher").client(t, srv))
	for i := range 5 {
		_, err := publisher.Submit(soon(t), jobs.Job{ID: fmt.Sprint("j", i), URL: "http://a.test/"})
		must(t, err)
	}
	consumer, err := worker.EnsureJobConsumer(soon(t), "default", false)
	must(t, err)
	counts := func(what string, fresh, due int) {
		t.Helper()
		testenv.Eventually(t, what, func() bool {
			return kedaLag(t, "http://"+addr, "GOFER_JOBS", "worker-default") == fresh && kedaLag(t, "http://"+addr, "GOFER_RETRIES", "due-default") == due
		})
	}
	counts("five jobs to be counted", 5, 0)
	msg, err := consumer.Next()
	must(t, err)
	counts("a running job to be counted still", 5, 0)
	for i, at := range []time.Time{time.Now().Add(time.Hour), time.Now().Add(24 * time.Hour), time.Now()} {
		_, err := stream.New(worker).Schedule(soon(t), "default", fmt.Sprint("w", i), msg.Data(), &jobs.Progress{JobSeq: 1}, at)
		must(t, err)
	}
	must(t, msg.DoubleAck(soon(t)))
	counts("waiting jobs to be counted when they are due only", 4, 1)
}
