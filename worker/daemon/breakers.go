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

// newFleetBreakers shares this worker's findings with the fleet. It returns nil if Config keeps them. Others avoid a proxy for
// its open time and the time that its probes may take; no finding is believed for longer than the longest open time and its
// probes.
func (d *daemon) newFleetBreakers() *fleet.Breakers {
	if d.cfg.KeepFindings {
		return nil
	}
	b := d.cfg.Breaker
	// A finding of this worker has to outlive the probes that follow the open time, or others would use the
	// proxy again while it is being tested.
	slack := rotation.MaxFailedProbes * b.ProbeLease
	// Jitter makes an open time up to a fifth longer.
	longest := b.MaxOpenTimeout + b.MaxOpenTimeout/5 + slack
	return fleet.NewBreakers(fleet.BreakersConfig{
		Pool: d.pool, Worker: d.cfg.Name, Slack: slack, MaxDuration: longest, Log: d.log,
	})
}

// countAvoided counts the proxies that this worker avoids because another worker found them dead.
func (d *daemon) countAvoided() int {
	if d.fleet == nil {
		return 0
	}
	return d.fleet.CountAvoided()
}

// recordBreakers logs, counts, publishes and shares changes of breakers. Every change passes here: those that attempts and probes
// cause, and resets. The pool calls it without its lock. An event without a proxy is about the pool as a whole.
func (d *daemon) recordBreakers(events []rotation.Event) {
	for _, e := range events {
		if e.ProxyID == "" {
			// The pool's own events come through the same list, so that their order among the others is kept.
			d.recordPool(e)
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
		// Warnings, because a fleet of healthy proxies has none of them.
		d.log.Warn("breaker changed", "proxy", e.ProxyID, "from", event.FromState, "to", event.ToState, "reason", e.Reason)
		d.book.AddBreakerEvent(event)
		d.metrics.CountBreakerChange(event)
		// The connection is looked up when the event is published, not now: an attempt can only run on a
		// connection.
		d.enqueue(func(ctx context.Context) error { return d.connected.Load().stream.PublishBreaker(ctx, event) })
		// Shared last, once the worker itself has counted and announced the change.
		if d.fleet != nil {
			d.fleet.ShareChange(e)
		}
	}
}

// recordPool logs and publishes that an outage began or ended.
func (d *daemon) recordPool(e rotation.Event) {
	event := jobs.PoolEvent{Worker: d.cfg.Name, Failing: e.To != breaker.Closed, Timestamp: e.At.UTC(), Reason: e.Reason}
	d.log.Warn("pool changed", "failing", event.Failing, "reason", event.Reason)
	d.enqueue(func(ctx context.Context) error { return d.connected.Load().stream.PublishPool(ctx, event) })
}

// breakers lists up to limit breakers, and counts all. Those that are not closed, or whose proxy is avoided, come first: an
// answer over NATS has no room for 100,000. The elements are what the HTTP API shows. It copies the state of every proxy, so it
// is for questions of people, not for scrapes.
func (d *daemon) breakers(limit int) (list any, total int) {
	status := d.pool.Status()
	closed := func(s rotation.Status) int {
		if s.State == breaker.Closed && s.AvoidedUntil.IsZero() {
			return 1
		}
		return 0
	}
	// The sort is stable, so proxies of the same kind keep the order of the list.
	slices.SortStableFunc(status, func(a, b rotation.Status) int { return closed(a) - closed(b) })
	shown := make([]admin.Breaker, min(limit, len(status)))
	for i := range shown {
		shown[i] = admin.BreakerOf(status[i])
	}
	return shown, len(status)
}

// resetHere closes the breaker of one proxy in this worker, or of all if proxy is empty, and returns how many proxies it found.
// It also withdraws this worker's findings, or the others would go on avoiding the proxy.
func (d *daemon) resetHere(proxy string) (reset int) {
	ids := []string{proxy}
	if proxy == "" {
		ids = ids[:0]
		for _, s := range d.pool.Status() {
			ids = append(ids, s.ID)
		}
	}
	// A proxy that was removed meanwhile is skipped.
	for _, id := range ids {
		events, found := d.pool.Reset(id)
		if !found {
			continue
		}
		reset++
		d.recordBreakers(events)
		// Others avoid the proxy by this worker's word, which a reset takes back.
		if d.fleet != nil {
			d.fleet.WithdrawFinding(id)
		}
	}
	return reset
}

// resetBreaker closes a proxy's breaker in this worker, also without a connection, and then in every other one. Errors: those of
// broadcast.
func (d *daemon) resetBreaker(ctx context.Context, proxy string) error {
	d.resetHere(proxy)
	return d.broadcast(ctx, control.ResetBreakers, control.ResetRequest{ProxyID: proxy})
}

// broadcast sends a verb to every worker and waits for no answer. It comes to this worker as well, which finds nothing left to
// do. Errors: bus.ErrUnreachable without a connection, ctx's error if the server does not confirm the message.
func (d *daemon) broadcast(ctx context.Context, verb string, request any) error {
	conn := d.connected.Load()
	if conn == nil || !conn.nc.IsConnected() {
		return bus.ErrUnreachable
	}
	data, err := json.Marshal(request)
	if err != nil {
		return err
	}
	if err := conn.nc.Publish(control.Subject(d.names, verb), data); err != nil {
		return err
	}
	return conn.nc.FlushWithContext(ctx)
}
