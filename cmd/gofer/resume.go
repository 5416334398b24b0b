package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
)

// resumeCommand ends the pause of both consumers of a queue. A queue that is not paused stays as it is.
func (a *app) resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "resume QUEUE", Short: "Let workers take jobs of a paused queue again", Args: args(cobra.ExactArgs(1)),
		RunE: a.verb("resume", func(ctx context.Context, s *session, args []string) error {
			// The name becomes a part of a consumer's name. A wrong name is a usage error, not a queue that is
			// missing.
			if !jobs.ValidQueue(args[0]) {
				return usage("%q is not the name of a queue", args[0])
			}
			if err := s.client.Resume(ctx, args[0]); err != nil {
				return unknownQueue(err)
			}
			return a.printDone(map[string]any{"queue": args[0], "paused": false}, "Queue %s goes on.", args[0])
		}),
	}
}

// unknownQueue adds the remedy to the error of a queue without consumers. A worker creates them when it first serves the queue,
// as gofer setup does for GOFER_QUEUES, so a queue of waiting jobs may have none.
func unknownQueue(err error) error {
	if errors.Is(err, client.ErrNotFound) {
		return fmt.Errorf("%w: no worker has ever served it; gofer queues lists the queues", err)
	}
	return err
}
