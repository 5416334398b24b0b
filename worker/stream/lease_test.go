package stream_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

func TestAHeartbeatThatNobodyConfirmsFails(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	_, err := in.client.Submit(soon(t), job("a"))
	must(t, err)
	consumer, err := in.EnsureJobConsumer(soon(t), "default", false)
	must(t, err)
	msg, err := consumer.Next()
	must(t, err)
	must(t, in.Heartbeat(soon(t), msg))
	must(t, in.JetStream().DeleteConsumer(soon(t), "GOFER_JOBS", "worker-default"))
	if err := in.Heartbeat(soon(t), msg); err == nil {
		t.Error("a heartbeat to a consumer that is gone was confirmed")
	}
}

func TestAHeartbeatKeepsAJob(t *testing.T) {
	t.Parallel()
	const ackWait = 4 * time.Second
	in := install(t, bus.Settings{AckWait: ackWait})
	consumer, msg := in.take(t, "a")
	before, isLate := time.Now(), false // a machine that is too slow does not keep it
	for range 5 {
		renewed := time.Now()
		must(t, in.Heartbeat(soon(t), msg))
		isLate = isLate || time.Since(before) >= ackWait
		before = renewed
		batch, err := consumer.Fetch(1, jetstream.FetchMaxWait(ackWait/4))
		must(t, err)
		for range batch.Messages() {
			if !isLate && time.Since(renewed) < ackWait {
				t.Fatal("the job was given to another one")
			}
		}
	}
}

func TestHandingBackReleasesAJob(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{AckWait: time.Hour})
	consumer, msg := in.take(t, "a")
	must(t, in.Heartbeat(soon(t), msg))
	must(t, in.HandBack(soon(t), msg))
	again, err := consumer.Next(jetstream.FetchMaxWait(testenv.Patience)) // else it came in an hour
	must(t, err)
	must(t, again.DoubleAck(soon(t)))
}

// take submits a job and takes it.
func (in *installation) take(t *testing.T, id string) (jetstream.Consumer, jetstream.Msg) {
	t.Helper()
	_, err := in.client.Submit(soon(t), job(id))
	must(t, err)
	consumer, err := in.EnsureJobConsumer(soon(t), "default", false)
	must(t, err)
	msg, err := consumer.Next(jetstream.FetchMaxWait(testenv.Patience))
	must(t, err)
	return consumer, msg
}
