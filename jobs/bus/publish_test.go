package bus_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs/bus"
)

// TestOnlyTheFirstMessageOfASubjectIsPublishedOnce has a stream that would replace the message of a subject by a newer one.
func TestOnlyTheFirstMessageOfASubjectIsPublishedOnce(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	const subject = "_gofer.due.default.a"
	publish := func(text string) error {
		return in.PublishOnce(soon(t), &nats.Msg{Subject: subject, Data: []byte(text), Header: nats.Header{}})
	}
	must(t, publish("first"))
	if err := publish("second"); !bus.IsTaken(err) {
		t.Errorf("a second message: %v, want it refused", err)
	}
	if msg, err := in.LastMessage(soon(t), "GOFER_RETRIES", subject); err != nil || string(msg.Data) != "first" {
		t.Errorf("%v, %v is kept, want the first message", msg, err)
	}
}

// TestAPublishWithoutAnAnswerEndsBeforeItsCallersTime has a caller with minutes left.
func TestAPublishWithoutAnAnswerEndsBeforeItsCallersTime(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	const subject = "_gofer.due.default.a"
	in.server.Swallow(subject)
	began := time.Now()
	_, err := in.Publish(soon(t), &nats.Msg{Subject: subject})
	if took := time.Since(began); err == nil || took > time.Minute {
		t.Errorf("%v after %s, want an error after seconds", err, took)
	}
}
