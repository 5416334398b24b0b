package bus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs/bus"
)

// TestEachOfManyPublishesHearsItsOwnAnswer has two publishes of each subject: one is stored, and the other one is refused.
func TestEachOfManyPublishesHearsItsOwnAnswer(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	const subjects = 200
	errs := make([][2]error, subjects)
	var sending sync.WaitGroup
	for i := range 2 * subjects {
		sending.Go(func() {
			errs[i/2][i%2] = in.PublishOnce(soon(t), &nats.Msg{Subject: in.names.ResultIngress("default", fmt.Sprint("j", i/2)), Header: nats.Header{}})
		})
	}
	sending.Wait()
	for i, both := range errs {
		refused := 0
		for _, err := range both {
			switch {
			case bus.IsTaken(err):
				refused++
			case err != nil:
				t.Errorf("subject %d: %v", i, err)
			}
		}
		if refused != 1 {
			t.Errorf("subject %d: %d of 2 publishes are refused, want 1", i, refused)
		}
	}
}

func TestAPublishThatTheServerRefusesSaysSo(t *testing.T) {
	t.Parallel()
	b := mute(t)
	err := b.PublishOnce(soon(t), &nats.Msg{Subject: "gofer.events.a", Header: nats.Header{}})
	isError(t, err, nats.ErrPermissionViolation)
}

func TestAPublishThatNoStreamHearsEnds(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	err := in.PublishOnce(soon(t), &nats.Msg{Subject: "nobody.listens", Header: nats.Header{}})
	isError(t, err, jetstream.ErrNoStreamResponse)
}

// A subscriber that takes the message and says nothing stands for a server that died before its answer.
func TestAPublishWithoutAnAnswerEndsWithItsContext(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	sub, err := in.Conn().SubscribeSync("somebody.listens")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = sub.NextMsg(time.Minute)
		cancel()
	}()
	if err := in.PublishOnce(ctx, &nats.Msg{Subject: "somebody.listens", Header: nats.Header{}}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that the context ended", err)
	}
}

func TestAnAnswerThatIsNoConfirmationIsAnError(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	for text, want := range map[string]error{`{"stream":""}`: jetstream.ErrInvalidJSAck, `+OK`: jetstream.ErrInvalidJSAck, `{"stream":"S","seq":1}`: nil} {
		sub, err := in.Conn().Subscribe("odd.answers", func(msg *nats.Msg) { _ = msg.Respond([]byte(text)) })
		must(t, err)
		if err := in.PublishOnce(soon(t), &nats.Msg{Subject: "odd.answers", Header: nats.Header{}}); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", text, err, want)
		}
		must(t, sub.Unsubscribe())
	}
	sub, err := in.Conn().Subscribe("odd.answers", func(msg *nats.Msg) {
		_ = msg.Respond([]byte(`{"stream":"S","error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"},"seq":0}`))
	})
	must(t, err)
	if err := in.PublishOnce(soon(t), &nats.Msg{Subject: "odd.answers", Header: nats.Header{}}); !bus.IsFull(err) {
		t.Errorf("got %v, want that the stream is full", err)
	}
	must(t, sub.Unsubscribe())
}
