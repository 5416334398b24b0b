package bus_test

import (
	"context"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs/bus"
)

// miscounted is a consumer whose count stays above zero after a purge of its stream.
type miscounted struct{ jetstream.Consumer }

func (m miscounted) Info(ctx context.Context) (*jetstream.ConsumerInfo, error) {
	info, err := m.Consumer.Info(ctx)
	if err == nil {
		info.NumPending = 3
	}
	return info, err
}

func (m miscounted) CachedInfo() *jetstream.ConsumerInfo {
	info := *m.Consumer.CachedInfo()
	info.NumPending = 3
	return &info
}

func TestAReaderEndsThoughTheCountOfItsConsumerIsWrong(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	consumer, err := in.js.Consumer(soon(t), "GOFER_EVENTS", bus.Reader)
	must(t, err)
	must(t, in.ReadUntilNow(soon(t), miscounted{consumer}))
}
