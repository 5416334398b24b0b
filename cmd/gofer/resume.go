package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
)

// resumeCommand ends the pause of a queue. A queue that is not paused stays as it is.
func (a *app) resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "resume QUEUE", Short: "Let workers take jobs of a paused queue again", Args: args(cobra.ExactArgs(1)),
		RunE: a.verb("resume", func(ctx context.Context, s *session, args []string) error {
			if !jobs.ValidQueue(args[0]) {
				return usage("%q is not the name of a queue", args[0])
			}
			if err := s.client.Resume(ctx, args[0]); err != nil {
				return err
			}
			return a.say(map[string]any{"queue": args[0], "paused": false}, "Queue %s goes on.", args[0])
		}),
	}
}
