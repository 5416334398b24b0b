package daemon

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/worker/admin"
	"github.com/gofer-mq/gofer/worker/control"
	"github.com/gofer-mq/gofer/worker/fleet"
)

// fleetBreakers share what this worker's breakers find, unless the owner does not want that.
func (d *daemon) fleetBreakers() *fleet.Breakers {
	if d.cfg.KeepFindings {
		return nil
	}
	b := d.cfg.Breaker
	slack := rotation.MaxFailedProbes * b.ProbeLease
	// An open time is up to a fifth longer than the longest, by its jitter.
	longest := b.MaxOpenTimeout + b.MaxOpenTimeout/5 + slack
	return fleet.NewBreakers(fleet.BreakersConfig{
		Pool: d.pool, Worker: d.cfg.Name, Slack: slack, Longest: longest, Log: d.log,
	})
}

// avoided counts the proxies that other workers found dead.
func (d *daemon) avoided() int {
	if d.fleet == nil {
		return 0
	}
	return d.fleet.Avoided()
}

func (d *daemon) breakersChanged(events []rotation.Event) {
	for _, e := range events {
		if e.ProxyID == "" {
			d.poolChanged(e)
			continue
		}
		event := jobs.BreakerEvent{
			ProxyID: e.ProxyID, FromState: e.From.String(), ToState: e.To.String(), Timestamp: e.At.UTC(), Reason: e.Reason,
			FailureCount: e.Failures, Worker: d.cfg.Name,
		}
		if !e.NextTest.IsZero() {
			next := e.NextTest.UTC()
			event.NextTestTime = &next
		}
		d.log.Warn("breaker changed", "proxy", e.ProxyID, "from", event.FromState, "to", event.ToState, "reason", e.Reason)
		d.book.Breaker(event)
		d.metrics.Breaker(event)
		d.send(func(ctx context.Context) error { return d.connected.Load().stream.PublishBreaker(ctx, event) })
		if d.fleet != nil {
			d.fleet.Changed(e)
		}
	}
}

// poolChanged tells that the pool fails as a whole, or no longer does.
func (d *daemon) poolChanged(e rotation.Event) {
	event := jobs.PoolEvent{Worker: d.cfg.Name, Failing: e.To != breaker.Closed, Timestamp: e.At.UTC(), Reason: e.Reason}
	d.log.Warn("pool changed", "failing", event.Failing, "reason", event.Reason)
	d.send(func(ctx context.Context) error { return d.connected.Load().stream.PublishPool(ctx, event) })
}

// breakers lists the first most breakers, those that are not closed or avoided before the others.
func (d *daemon) breakers(most int) (list any, total int) {
	status := d.pool.Status()
	closed := func(s rotation.Status) int {
		if s.State == breaker.Closed && s.AvoidedUntil.IsZero() {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(status, func(a, b rotation.Status) int { return closed(a) - closed(b) })
	shown := make([]admin.Breaker, min(most, len(status)))
	for i := range shown {
		shown[i] = admin.BreakerOf(status[i])
	}
	return shown, len(status)
}

// resetHere closes the breaker of one proxy in this worker, or all if proxy is empty, and returns how many those were.
func (d *daemon) resetHere(proxy string) (reset int) {
	ids := []string{proxy}
	if proxy == "" {
		ids = ids[:0]
		for _, s := range d.pool.Status() {
			ids = append(ids, s.ID)
		}
	}
	for _, id := range ids {
		events, found := d.pool.Reset(id)
		if !found {
			continue
		}
		reset++
		d.breakersChanged(events)
		if d.fleet != nil {
			d.fleet.Reset(id)
		}
	}
	return reset
}

// resetBreaker closes a proxy's breaker in every worker. This one comes first, and does nothing when its own message
// reaches it.
func (d *daemon) resetBreaker(ctx context.Context, proxy string) error {
	d.resetHere(proxy)
	conn := d.connected.Load()
	if conn == nil || !conn.nc.IsConnected() {
		return bus.ErrUnreachable
	}
	request, err := json.Marshal(control.ResetRequest{ProxyID: proxy})
	if err != nil {
		return err
	}
	if err := conn.nc.Publish(control.Subject(d.names, control.ResetBreakers), request); err != nil {
		return err
	}
	return conn.nc.FlushWithContext(ctx)
}
