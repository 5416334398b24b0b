package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
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
			// Events returns when ctx ends, with its cause, and after the newest event with UntilNow.
			return s.client.Events(cmd.Context(), f, a.printEvent)
		},
	}
	cmd.Flags().StringVar(&f.Queue, "queue", "", "only events of this queue's jobs")
	cmd.Flags().BoolVar(&f.All, "all", false, "begin with the events that are kept")
	// For scripts: without it the verb never ends by itself.
	cmd.Flags().BoolVar(&f.UntilNow, "until-now", false, "end with the newest event that is kept, instead of waiting")
	cmd.Flags().StringVar(&f.Durable, "durable", "", "follow with this prepared consumer, such as "+client.Reader+", for users who may not create one")
	return cmd
}

// printEvent prints one event. Anybody who may publish events may publish bytes that are no JSON, so --json prints such a
// payload as a string. It is called for one event at a time. An error ends the following.
func (a *app) printEvent(e client.Event) error {
	if a.json {
		// Embedding the bytes would make the whole line invalid.
		if !json.Valid(e.Payload) { // it was not written by a worker
			e.Payload, _ = json.Marshal(string(e.Payload))
		}
		return a.printJSON(e)
	}
	// out.line makes control characters visible, which an event of a stranger may hold.
	return a.out.line("%s  %-9s  %s", e.StoredAt.UTC().Format(time.RFC3339), e.Kind, eventLine(e))
}

// soon is a delay in words: "at once" or "in 2s". Delays below a millisecond count as none: see brief. The delay is
// the one that was announced. It counts from the event, not from now.
func soon(wait time.Duration) string {
	if wait <= 0 {
		return "at once"
	}
	return "in " + brief(wait).String()
}

// eventLine is an event in words. An event of an unknown kind, or one that cannot be read, is shown as it is: a newer
// worker may have written it. The result is not printable by itself: printEvent escapes it.
func eventLine(e client.Event) string {
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
			// The kind stands before it in the line, so this reads "pool of WORKER fails as a whole".
			return fmt.Sprintf("of %s %s: %s", p.Worker, map[bool]string{true: "fails as a whole", false: "works again"}[p.Failing], p.Reason)
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
