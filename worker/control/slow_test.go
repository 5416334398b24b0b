package control_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/control"
)

// slowAnswer takes its time to be read, like the page of a large pool.
type slowAnswer struct{}

func (*slowAnswer) UnmarshalJSON([]byte) error {
	<-time.After(100 * time.Millisecond)
	return nil
}

func TestAnswersThatHaveComeAreReadHoweverLongThatTakes(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nc := f.nats.Connect()
	const fleet = 60
	_, err := nc.Subscribe(control.Subject(f.names, "workers"), func(m *nats.Msg) {
		for range fleet {
			_ = m.Respond([]byte(`{}`))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	bounded, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	answers, err := control.Ask[slowAnswer](bounded, f.nc, control.Subject(f.names, "workers"), nil, 0)
	if err != nil || len(answers) != fleet {
		t.Errorf("%d answers, %v; want all %d", len(answers), err, fleet)
	}
}
