package bus_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs/bus"
)

func TestJobsOfADeadWorkerAreBackWithin15SecondsAndManyMayBeHeld(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	for _, due := range []bool{false, true} {
		consumer, err := in.EnsureJobConsumer(soon(t), "default", due)
		must(t, err)
		c := consumer.CachedInfo().Config
		// A worker that dies right after a heartbeat is noticed one ack wait later; the server counts it in whole seconds.
		if c.AckWait+time.Second > 15*time.Second || c.MaxAckPending < 10_000 || c.MaxDeliver != -1 {
			t.Errorf("due %v: ack wait %v, max ack pending %d, max deliver %d", due, c.AckWait, c.MaxAckPending, c.MaxDeliver)
		}
	}
}

func TestAMessageWithoutAnIDIsNoJob(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	_, err := in.JetStream().Publish(soon(t), "gofer.jobs.default", []byte("http://a.test/"))
	isError(t, err, jetstream.ErrNoStreamResponse)
}
