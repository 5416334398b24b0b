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
	_, err = in.ReadUntilNow(soon(t), miscounted{consumer})
	must(t, err)
}

// late is a consumer whose first answers do not count the latest messages, as those of a busy server may do.
type late struct {
	jetstream.Consumer
	answers *int
}

func (l late) CachedInfo() *jetstream.ConsumerInfo {
	info := *l.Consumer.CachedInfo()
	info.NumPending = 0
	return &info
}

func (l late) Info(ctx context.Context) (*jetstream.ConsumerInfo, error) {
	info, err := l.Consumer.Info(ctx)
	if *l.answers++; err == nil && *l.answers == 1 {
		info.NumPending = 0
	}
	return info, err
}

func TestAReaderGetsMessagesThatItsConsumerHasNotCountedYet(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	consumer, err := in.js.Consumer(soon(t), "GOFER_EVENTS", bus.Reader)
	must(t, err)
	_, err = in.js.Publish(soon(t), in.Names().PoolEvent("w"), nil)
	must(t, err)
	got, err := in.ReadUntilNow(soon(t), late{consumer, new(int)})
	if must(t, err); got != 1 {
		t.Errorf("%d messages were read, want 1", got)
	}
}
