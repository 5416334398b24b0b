package bus_test

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs/bus"
)

func TestAConsumerOfAnotherNameBelongsToNoQueue(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	_, err := in.JetStream().CreateConsumer(soon(t), in.Names().Stream("JOBS"), jetstream.ConsumerConfig{
		Durable: "foreign", FilterSubject: in.Names().Jobs("foreign"), AckPolicy: jetstream.AckExplicitPolicy,
	})
	must(t, err)
	var queues []string
	must(t, in.EachJobConsumer(soon(t), false, func(queue string, _ *jetstream.ConsumerInfo) { queues = append(queues, queue) }))
	if len(queues) != 1 || queues[0] != "default" {
		t.Errorf("queues = %q, want only default", queues)
	}
}

func TestADeletedMessageIsGone(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	_, err := in.StoreResult(soon(t), success("deleted", []byte("body")))
	must(t, err)
	stream := in.Names().Stream("RESULTS")
	for _, want := range []bool{true, false} {
		deleted, err := in.DeleteMessage(soon(t), stream, 1)
		must(t, err)
		if deleted != want {
			t.Errorf("deleted = %t, want %t", deleted, want)
		}
	}
	if _, err := in.MessageAt(soon(t), stream, 1); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("after the deletion MessageAt returns %v, want %v", err, bus.ErrNotFound)
	}
}
