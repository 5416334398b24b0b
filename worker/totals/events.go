package totals

import (
	"context"
	"encoding/json"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// readEvents reads the breaker events that were stored since the last call. If the stream was created again, it drops the events
// of the old stream, and reads the new one from the start.
func (t *Totals) readEvents(ctx context.Context, s store) error {
	r := &t.reader
	state, err := s.StateOf(ctx, events)
	isSame := state == r.events
	if err != nil || isSame && r.confirmed {
		return err
	}
	if !state.CreatedAt.Equal(r.events.CreatedAt) {
		t.fleet.DropBreakerEvents()
		r.nextEvent = 1
	}
	err = s.ReadFrom(ctx, events, s.Names().BreakerEvent("*"), r.nextEvent, func(m bus.Message) {
		r.nextEvent = m.Seq + 1
		var e jobs.BreakerEvent
		err := json.Unmarshal(m.Data, &e)
		if err == nil {
			err = t.fleet.RestoreBreakerEvent(e, m.At)
		}
		if err != nil && r.malformedLogged.CompareAndSwap(false, true) {
			t.cfg.Log.Warn("some of the fleet's breaker events are left out", "subject", m.Subject, "error", err)
		}
	})
	if err == nil {
		r.events, r.confirmed = state, isSame
	}
	return err
}
