package bus

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// watched is JetStream with calls that end at once when the server refuses them to this user. Each method names the
// subjects that its call publishes to; nats-server/server/jetstream_api.go lists them.
type watched struct {
	jetstream.JetStream
	refusals *refusals
}

// api is the beginning of the subjects of the JetStream API in the server's own domain.
const api = "$JS.API."

// call is refusals.watch for a function that returns a value.
func call[T any](ctx context.Context, r *refusals, do func(context.Context) (T, error), subjects ...string) (out T, err error) {
	err = r.watch(ctx, func(ctx context.Context) (err error) {
		out, err = do(ctx)
		return err
	}, subjects...)
	return out, err
}

func (w watched) AccountInfo(ctx context.Context) (*jetstream.AccountInfo, error) {
	return call(ctx, w.refusals, w.JetStream.AccountInfo, api+"INFO")
}

func (w watched) PublishMsg(ctx context.Context, msg *nats.Msg, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	return call(ctx, w.refusals, func(ctx context.Context) (*jetstream.PubAck, error) {
		return w.JetStream.PublishMsg(ctx, msg, opts...)
	}, msg.Subject)
}

func (w watched) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	return call(ctx, w.refusals, func(ctx context.Context) (jetstream.Stream, error) {
		return w.JetStream.Stream(ctx, name)
	}, api+"STREAM.INFO."+name)
}

func (w watched) CreateStream(ctx context.Context, config jetstream.StreamConfig) (jetstream.Stream, error) {
	return call(ctx, w.refusals, func(ctx context.Context) (jetstream.Stream, error) {
		return w.JetStream.CreateStream(ctx, config)
	}, api+"STREAM.CREATE."+config.Name)
}

func (w watched) UpdateStream(ctx context.Context, config jetstream.StreamConfig) (jetstream.Stream, error) {
	return call(ctx, w.refusals, func(ctx context.Context) (jetstream.Stream, error) {
		return w.JetStream.UpdateStream(ctx, config)
	}, api+"STREAM.UPDATE."+config.Name)
}

func (w watched) Consumer(ctx context.Context, stream, name string) (jetstream.Consumer, error) {
	return call(ctx, w.refusals, func(ctx context.Context) (jetstream.Consumer, error) {
		return w.JetStream.Consumer(ctx, stream, name)
	}, api+"CONSUMER.INFO."+stream+"."+name)
}

func (w watched) CreateConsumer(ctx context.Context, stream string, config jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	return call(ctx, w.refusals, func(ctx context.Context) (jetstream.Consumer, error) {
		return w.JetStream.CreateConsumer(ctx, stream, config)
	}, api+"CONSUMER.CREATE."+stream, api+"CONSUMER.DURABLE.CREATE."+stream)
}

func (w watched) UpdateConsumer(ctx context.Context, stream string, config jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	return call(ctx, w.refusals, func(ctx context.Context) (jetstream.Consumer, error) {
		return w.JetStream.UpdateConsumer(ctx, stream, config)
	}, api+"CONSUMER.CREATE."+stream, api+"CONSUMER.DURABLE.CREATE."+stream)
}

func (w watched) OrderedConsumer(ctx context.Context, stream string, config jetstream.OrderedConsumerConfig) (jetstream.Consumer, error) {
	return call(ctx, w.refusals, func(ctx context.Context) (jetstream.Consumer, error) {
		return w.JetStream.OrderedConsumer(ctx, stream, config)
	}, api+"STREAM.INFO."+stream, api+"CONSUMER.CREATE."+stream)
}

func (w watched) PauseConsumer(ctx context.Context, stream, name string, until time.Time) (*jetstream.ConsumerPauseResponse, error) {
	return call(ctx, w.refusals, func(ctx context.Context) (*jetstream.ConsumerPauseResponse, error) {
		return w.JetStream.PauseConsumer(ctx, stream, name, until)
	}, api+"CONSUMER.PAUSE."+stream+"."+name)
}

func (w watched) ObjectStore(ctx context.Context, bucket string) (jetstream.ObjectStore, error) {
	return call(ctx, w.refusals, func(ctx context.Context) (jetstream.ObjectStore, error) {
		return w.JetStream.ObjectStore(ctx, bucket)
	}, api+"STREAM.INFO.OBJ_"+bucket)
}
