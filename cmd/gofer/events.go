package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
)

// eventsCommand follows the stream of events until it is interrupted, or with --until-now to the newest event.
func (a *app) eventsCommand() *cobra.Command {
	var f client.Filter
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Follow retries, changes of breakers, pools and sites, and duplicates as they come",
		Args:  args(cobra.NoArgs),
		// verb is not used, because the flags are checked before the connection is made.
		RunE: func(cmd *cobra.Command, _ []string) error {
			// A prepared consumer has its own filter and its own position, so the flags for these are refused.
			if err := checkDurable(f.Durable, f.Queue, f.All); err != nil {
				return err
			}
			s, err := a.connect(cmd.Context(), "events")
			if err != nil {
				return err
			}
			defer s.close()
			a.warnOfUnknownQueue(cmd.Context(), s, f.Queue)
			// Events returns when ctx ends, with its cause, and after the newest event with UntilNow.
			return s.explainDurable("EVENTS", f.Durable, s.client.Events(cmd.Context(), f, a.printEvent))
		},
	}
	cmd.Flags().StringVar(&f.Queue, "queue", "", "only events of jobs of this `QUEUE`")
	cmd.Flags().BoolVar(&f.All, "all", false, "begin with the events that are kept")
	// For scripts: without it the verb never ends by itself.
	cmd.Flags().BoolVar(&f.UntilNow, "until-now", false, "end with the newest event that is kept, instead of waiting")
	cmd.Flags().StringVar(&f.Durable, "durable", "", "follow from where this durable `CONSUMER` stopped; gofer creates one, "+client.Reader+", also for users who may not")
	return cmd
}

// warnOfUnknownQueue notes that no worker has ever served a queue, so that nothing may ever come from it. An empty name
// means all queues. A user who may not read the queue's consumer gets no note.
func (a *app) warnOfUnknownQueue(ctx context.Context, s *session, queue string) {
	if queue == "" {
		return
	}
	if _, err := s.bus.JobConsumerInfo(bus.Optional(ctx), queue, false); errors.Is(err, bus.ErrNotFound) {
		a.note("queue %s: no worker has ever served it; gofer queues lists the queues", queue)
	}
}

// printEvent prints one event. With --json, a payload that is no JSON, which a stranger published, is printed as a string.
func (a *app) printEvent(e client.Event) error {
	if a.json {
		// Only workers publish events, but other users of the account may have the right to. One broken event must not end the output.
		if !json.Valid(e.Payload) {
			e.Payload, _ = json.Marshal(string(e.Payload))
		}
		return a.printJSON(e)
	}
	// out.line makes control characters visible, which an event of a stranger may hold.
	return a.out.line("%s  %-9s  %s", e.StoredAt.UTC().Format(time.RFC3339), e.Kind, eventLine(e))
}

// soon is a delay in words: "at once" or "in 2s".
func soon(wait time.Duration) string {
	if wait <= 0 {
		return "at once"
	}
	return "in " + shortDuration(wait).String()
}

// eventLine is an event in words. An event of an unknown kind, or one that cannot be read, is shown as it is: a newer worker may
// have published it. The caller escapes the result.
func eventLine(e client.Event) string {
	// A payload that cannot be read falls through to the end, where it is shown as it is.
	switch e.Kind {
	case "retry":
		var r jobs.RetryEvent
		if json.Unmarshal(e.Payload, &r) == nil {
			return fmt.Sprintf("%s/%s attempt %d of %d via %s failed (%s: %s), again %s", r.Queue, r.JobID, r.Attempt, r.MaxAttempts, r.Proxy, r.Fault, r.Error, soon(r.Delay.Std()))
		}
	case "breaker":
		var b jobs.BreakerEvent
		if json.Unmarshal(e.Payload, &b) == nil {
			return fmt.Sprintf("%s %s → %s (%s), seen by %s", b.ProxyID, b.FromState, b.ToState, b.Reason, b.Worker)
		}
	case "pool":
		var p jobs.PoolEvent
		if json.Unmarshal(e.Payload, &p) == nil {
			what := "works again"
			if p.Failing {
				what = "fails as a whole"
			}
			return fmt.Sprintf("of %s %s: %s", p.Worker, what, p.Reason) // printed behind the kind, "pool"
		}
	case "site":
		var x jobs.SiteEvent
		if json.Unmarshal(e.Payload, &x) == nil {
			return fmt.Sprintf("%s %s → %s (%s), seen by %s", x.Site, x.FromState, x.ToState, x.Reason, x.Worker)
		}
	case "duplicate":
		var d jobs.DuplicateEvent
		if json.Unmarshal(e.Payload, &d) == nil {
			return fmt.Sprintf("%s/%s was published again after its end and stored nothing", d.Queue, d.JobID)
		}
	}
	return string(e.Payload)
}
