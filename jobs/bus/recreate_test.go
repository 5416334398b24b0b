package bus_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

// TestAnAckOfADeletedStreamTakesNoJobOfTheNextOne creates the streams of jobs again under the names that they had. The server
// tells acks by these names and by the sequence.
func TestAnAckOfADeletedStreamTakesNoJobOfTheNextOne(t *testing.T) {
	t.Parallel()
	for _, due := range []bool{false, true} {
		t.Run(fmt.Sprint("due=", due), func(t *testing.T) {
			t.Parallel()
			in := install(t, bus.Settings{})
			take := func(id string) jetstream.Msg {
				if due {
					in.park(t, id, time.Now())
				} else {
					_, err := in.client.Submit(soon(t), job(id))
					must(t, err)
				}
				consumer, err := in.EnsureJobConsumer(soon(t), "default", due)
				must(t, err)
				msg, err := consumer.Next(jetstream.FetchMaxWait(testenv.Patience))
				must(t, err)
				return msg
			}
			old := take("old")
			must(t, in.js.DeleteStream(soon(t), in.JobStream(due)))
			must(t, in.Ensure(soon(t), bus.Settings{}))
			take("new")
			must(t, old.DoubleAck(soon(t)))
			info, err := in.StreamInfo(soon(t), in.JobStream(due))
			must(t, err)
			if info.State.Msgs != 1 {
				t.Errorf("%d jobs in the new stream, want the one that runs", info.State.Msgs)
			}
		})
	}
}
