package bus_test

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs/bus"
)

// TestAStoredMessageThatLooksLikeAWordOfTheServerIsFound has messages without a payload whose status is what the server says when
// it has no message, has given all, or is not there.
func TestAStoredMessageThatLooksLikeAWordOfTheServerIsFound(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	for _, status := range []string{"100", "204", "400", "404", "408", "503", "x"} {
		subject := "gofer.jobs.default.word" + status
		ack, err := in.js.PublishMsg(soon(t), &nats.Msg{Subject: subject, Header: nats.Header{"Status": {status}}})
		must(t, err)
		for how, get := range map[string]func() (*nats.Msg, error){
			"by its sequence": func() (*nats.Msg, error) { return in.MessageAt(soon(t), "GOFER_JOBS", ack.Sequence) },
			"by its subject":  func() (*nats.Msg, error) { return in.LastMessage(soon(t), "GOFER_JOBS", subject) },
			"as the next one": func() (*nats.Msg, error) { return in.NextMessage(soon(t), "GOFER_JOBS", "gofer.jobs.>", ack.Sequence) },
		} {
			msg, err := get()
			if err != nil || msg.Header.Get("Status") != status || msg.Header.Get("Nats-Subject") != subject {
				t.Errorf("a message with status %s is read %s as %v, %v", status, how, msg, err)
			}
		}
	}
	if _, err := in.MessageAt(soon(t), "GOFER_JOBS", 99); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("a message that is not there is read: %v", err)
	}
	if _, err := in.MessageAt(soon(t), "GOFER_NONE", 1); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("a message of a stream that is not there is read: %v", err)
	}
}
