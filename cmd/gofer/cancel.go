package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
)

func (a *app) cancelCommand() *cobra.Command {
	var queue string
	cmd := &cobra.Command{
		Use: "cancel ID", Short: "End a queued, waiting or running job with a cancelled result", Args: args(cobra.ExactArgs(1)),
		RunE: a.verb("cancel", func(ctx context.Context, s *session, args []string) error {
			k, err := key(ctx, s, queue, args[0])
			if err != nil {
				return err
			}
			if err := s.client.Cancel(ctx, k); err != nil {
				return err
			}
			return a.say(map[string]any{"queue": k.Queue, "id": k.ID, "outcome": jobs.Cancelled}, "Job %s is cancelled.", k)
		}),
	}
	cmd.Flags().StringVar(&queue, "queue", "", "the job's queue")
	return cmd
}
