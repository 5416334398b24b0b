package main

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
func (r *rig) fleetBreakers() *fleet.Breakers {
	if !r.config.Breaker.Share {
		return nil
	}
	b := r.config.BreakerConfig()
	slack := rotation.MaxFailedProbes * b.ProbeLease
	// An open time is up to a fifth longer than the longest, by its jitter.
	longest := b.MaxOpenTimeout + b.MaxOpenTimeout/5 + slack
	return fleet.NewBreakers(fleet.BreakersConfig{
		Pool: r.pool, Worker: r.config.WorkerName, Slack: slack, Longest: longest, Log: r.log,
	})
}

// avoided counts the proxies that other workers found dead.
func (r *rig) avoided() int {
	if r.fleet == nil {
		return 0
	}
	return r.fleet.Avoided()
}

func (r *rig) breakersChanged(events []rotation.Event) {
	for _, e := range events {
		if e.ProxyID == "" {
			r.poolChanged(e)
			continue
		}
		event := jobs.BreakerEvent{
			ProxyID: e.ProxyID, FromState: e.From.String(), ToState: e.To.String(), Timestamp: e.At.UTC(), Reason: e.Reason,
			FailureCount: e.Failures, Worker: r.config.WorkerName,
		}
		if !e.NextTest.IsZero() {
			next := e.NextTest.UTC()
			event.NextTestTime = &next
		}
		r.log.Warn("breaker changed", "proxy", e.ProxyID, "from", event.FromState, "to", event.ToState, "reason", e.Reason)
		r.book.Breaker(event)
		r.metrics.Breaker(event)
		r.send(func(ctx context.Context) error { return r.line.Load().client.PublishBreaker(ctx, event) })
		if r.fleet != nil {
			r.fleet.Changed(e)
		}
	}
}

// poolChanged tells that the pool fails as a whole, or no longer does.
func (r *rig) poolChanged(e rotation.Event) {
	event := jobs.PoolEvent{Worker: r.config.WorkerName, Failing: e.To != breaker.Closed, Timestamp: e.At.UTC(), Reason: e.Reason}
	r.log.Warn("pool changed", "failing", event.Failing, "reason", event.Reason)
	r.send(func(ctx context.Context) error { return r.line.Load().client.PublishPool(ctx, event) })
}

// breakers lists the first most breakers, those that are not closed or avoided before the others.
func (r *rig) breakers(most int) (list any, total int) {
	status := r.pool.Status()
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
func (r *rig) resetHere(proxy string) (reset int) {
	ids := []string{proxy}
	if proxy == "" {
		ids = ids[:0]
		for _, s := range r.pool.Status() {
			ids = append(ids, s.ID)
		}
	}
	for _, id := range ids {
		events, found := r.pool.Reset(id)
		if !found {
			continue
		}
		reset++
		r.breakersChanged(events)
		if r.fleet != nil {
			r.fleet.Reset(id)
		}
	}
	return reset
}

// resetBreaker closes a proxy's breaker in every worker. This one comes first, and does nothing when its own message
// reaches it.
func (r *rig) resetBreaker(ctx context.Context, proxy string) error {
	r.resetHere(proxy)
	l := r.line.Load()
	if l == nil || !l.nc.IsConnected() {
		return bus.ErrUnreachable
	}
	request, err := json.Marshal(control.ResetRequest{ProxyID: proxy})
	if err != nil {
		return err
	}
	if err := l.nc.Publish(control.Subject(r.names, control.ResetBreakers), request); err != nil {
		return err
	}
	return l.nc.FlushWithContext(ctx)
}
