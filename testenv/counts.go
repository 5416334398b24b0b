package testenv

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

// AwaitCounts waits until the consumers of a work queue count each of its messages as pending or unacked. The server tells a
// consumer of a message a moment after it has confirmed the message. A stream that is missing has no consumers.
func AwaitCounts(tb testing.TB, js jetstream.JetStream, queue string) {
	tb.Helper()
	Eventually(tb, "the consumers of "+queue+" to count its messages", func() bool {
		stream, err := js.Stream(tb.Context(), queue)
		if err != nil {
			return errors.Is(err, jetstream.ErrStreamNotFound)
		}
		counted := map[string]uint64{}
		consumers := stream.ListConsumers(tb.Context())
		for info := range consumers.Info() {
			counted[info.Config.FilterSubject] += info.NumPending + uint64(max(0, info.NumAckPending))
		}
		if consumers.Err() != nil {
			return false
		}
		for filter, n := range counted {
			info, err := stream.Info(tb.Context(), jetstream.WithSubjectFilter(filter))
			if err != nil {
				return false
			}
			for _, messages := range info.State.Subjects {
				n -= messages
			}
			if n != 0 {
				return false
			}
		}
		return true
	})
}
