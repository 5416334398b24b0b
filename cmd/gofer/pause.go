package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
)

// pauseCommand pauses both consumers of a queue, so that neither fresh nor due jobs are taken. A second pause replaces the
// end of the first.
func (a *app) pauseCommand() *cobra.Command {
	var length string
	cmd := &cobra.Command{
		Use: "pause QUEUE", Short: "Stop workers from taking jobs of a queue; running jobs end as usual", Args: args(cobra.ExactArgs(1)),
	}
	cmd.Flags().StringVar(&length, "for", "", "`DURATION` of the pause, such as 10m; unset means until gofer resume")
	// The flag is no durationFlag, because zero, which would pause without an end, differs from an absent flag.
	cmd.RunE = a.verb("pause", func(ctx context.Context, s *session, args []string) error {
		// The name becomes a part of a consumer's name.
		if !jobs.ValidQueue(args[0]) {
			return usage("%q is not the name of a queue", args[0])
		}
		var until time.Time
		if length != "" {
			d, err := jobs.ParseDuration(length)
			if errors.Is(err, jobs.ErrTooLong) {
				return usage("--for: %w", err)
			}
			// Zero would mean a pause without an end.
			if err != nil || d <= 0 {
				return usage("--for: not a duration such as 10m")
			}
			until = time.Now().Add(d)
		}
		// A queue has two consumers: for fresh jobs and for due ones. If the call fails between the two, one of them is paused. The
		// call can be repeated.
		if err := s.client.Pause(ctx, args[0], until); err != nil {
			return unknownQueue(err)
		}
		// client.Pause takes the zero time as an end that is far away.
		if until.IsZero() {
			return a.printDone(map[string]any{"queue": args[0], "paused": true}, "Queue %s is paused.", args[0])
		}
		// The time is shown as it was sent; the server has its own clock.
		stamp := until.UTC().Format(time.RFC3339)
		return a.printDone(map[string]any{"queue": args[0], "paused": true, "paused_until": stamp}, "Queue %s is paused until %s.", args[0], stamp)
	})
	return cmd
}
