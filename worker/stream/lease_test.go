package stream_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs/bus"
)

func TestAHeartbeatThatNobodyConfirmsFails(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	_, err := in.client.Submit(soon(t), job("a"))
	must(t, err)
	lane, err := in.Lane(soon(t), "default", false)
	must(t, err)
	msg, err := lane.Next()
	must(t, err)
	must(t, in.Heartbeat(soon(t), msg))
	must(t, in.JetStream().DeleteConsumer(soon(t), "GOFER_JOBS", "worker-default"))
	if err := in.Heartbeat(soon(t), msg); err == nil {
		t.Error("a heartbeat to a consumer that is gone was confirmed")
	}
}

func TestAHeartbeatKeepsAJobAndHandingBackReleasesIt(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{AckWait: 500 * time.Millisecond})
	_, err := in.client.Submit(soon(t), job("a"))
	must(t, err)
	lane, err := in.Lane(soon(t), "default", false)
	must(t, err)
	msg, err := lane.Next()
	must(t, err)
	for range 5 {
		must(t, in.Heartbeat(soon(t), msg))
		batch, err := lane.Fetch(1, jetstream.FetchMaxWait(200*time.Millisecond))
		must(t, err)
		for range batch.Messages() {
			t.Fatal("the job was given to another one")
		}
	}
	began := time.Now()
	must(t, in.HandBack(soon(t), msg))
	again, err := lane.Next()
	must(t, err)
	if got := time.Since(began); got > 400*time.Millisecond {
		t.Errorf("it came back after %s, want at once", got)
	}
	must(t, again.DoubleAck(soon(t)))
}
