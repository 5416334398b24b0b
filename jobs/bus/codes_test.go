package bus_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs/bus"
)

func TestEveryErrorCodeOfTheServerIsClassified(t *testing.T) {
	for _, documented := range server.ApiErrors {
		if got := bus.Classify(jetstream.ErrorCode(documented.ErrCode)); got == 0 {
			t.Errorf("error code %d (%s) is not classified", documented.ErrCode, documented.Description)
		}
	}
}

func TestErrorsAreToldApartByWhatWaitingDoes(t *testing.T) {
	api := func(code jetstream.ErrorCode, text string) error {
		return fmt.Errorf("publish: %w", &jetstream.APIError{Code: 400, ErrorCode: code, Description: text})
	}
	for _, c := range []struct {
		err                            error
		permanent, waiting, unstorable bool
	}{
		{api(10008, "JetStream system temporarily unavailable"), false, true, false},
		{api(10005, "no suitable peers for placement"), false, true, false},
		{api(10077, "maximum bytes exceeded"), false, false, false},
		{api(10077, "no space left on device"), false, true, false},
		{api(10077, "message too large"), true, false, true},
		{api(10047, "insufficient storage resources available"), false, false, false},
		{api(10059, "stream not found"), false, true, false},
		{api(10054, "message size exceeds maximum allowed"), true, false, true},
		{api(10097, "header size exceeds maximum allowed of 64k"), true, false, true},
		{api(10109, "invalid operation on sealed stream"), true, false, false},
		{api(10188, "message schedules is disabled"), true, false, false},
		{api(10074, "replicas > 1 not supported in non-clustered mode"), true, false, false},
		{api(10027, "maximum number of streams reached"), true, false, false},
		{api(10148, "consumer already exists"), true, false, false},
		{&jetstream.APIError{Code: 400, ErrorCode: 19999, Description: "of a newer server"}, true, false, true},
		{&jetstream.APIError{Code: 503, ErrorCode: 19999, Description: "of a newer server"}, false, true, false},
		{nats.ErrBadHeaderMsg, true, false, true},
		{nats.ErrMaxPayload, true, false, true},
		{nats.ErrPermissionViolation, true, false, false},
		{bus.ErrNoJetStream, true, false, false},
		{bus.ErrNoLeader, false, true, false},
		{bus.ErrNotSetUp, false, true, false},
		{nats.ErrTimeout, false, true, false},
		{nats.ErrDisconnected, false, true, false},
		{errors.New("anything else"), false, true, false},
	} {
		if got := bus.IsPermanent(c.err); got != c.permanent {
			t.Errorf("%v: permanent %v, want %v", c.err, got, c.permanent)
		}
		if got := bus.CuredByWaiting(c.err); got != c.waiting {
			t.Errorf("%v: cured by waiting %v, want %v", c.err, got, c.waiting)
		}
		if got := bus.IsUnstorable(c.err); got != c.unstorable {
			t.Errorf("%v: unstorable %v, want %v", c.err, got, c.unstorable)
		}
	}
}
