package main

import (
	"context"
	"errors"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
)

func (a *app) queuesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "queues", Short: "List the queues and how they stand",
		Long: `Lists the queues and how many jobs of each are queued, due (they waited, and their time has come), running, or waiting
for their time, a retry or a proxy. Overdue jobs wait although their time has passed, because the server has not released them; a worker
does so within two minutes.`,
		Args: args(cobra.NoArgs),
		RunE: a.verb("queues", func(ctx context.Context, s *session, _ []string) error {
			list, err := s.client.Queues(ctx)
			if err != nil {
				return err
			}
			if err := s.client.CountOverdue(ctx, list); err != nil {
				a.note("overdue jobs are not counted: %v", err)
			}
			if a.json {
				return a.printJSON(list)
			}
			var rows []table.Row
			for _, q := range list {
				state := "served"
				switch {
				case !q.Served:
					state = "not served by any worker"
				case !q.PausedUntil.IsZero():
					state = "paused"
				}
				rows = append(rows, table.Row{q.Queue, q.Queued, q.Due, q.Running, q.Waiting, q.Overdue, state})
			}
			return a.out.table(table.Row{"queue", "queued", "due", "running", "waiting", "overdue", "state"}, rows)
		}),
	}
}

// verb is the frame of a verb that needs a connection.
func (a *app) verb(name string, do func(ctx context.Context, s *session, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		s, err := a.connect(cmd.Context(), name)
		if err != nil {
			return err
		}
		defer s.close()
		return do(cmd.Context(), s, args)
	}
}

// say prints that something was done.
func (a *app) say(fields map[string]any, format string, args ...any) error {
	if a.json {
		return a.printJSON(fields)
	}
	return a.out.line(format, args...)
}

func (a *app) pauseCommand() *cobra.Command {
	var length string
	cmd := &cobra.Command{
		Use: "pause QUEUE", Short: "Stop workers from taking jobs of a queue; running jobs end as usual", Args: args(cobra.ExactArgs(1)),
	}
	cmd.Flags().StringVar(&length, "for", "", "how long, such as 10m; unset means until gofer resume")
	cmd.RunE = a.verb("pause", func(ctx context.Context, s *session, args []string) error {
		if !jobs.ValidQueue(args[0]) {
			return usage("%q is not the name of a queue", args[0])
		}
		var until time.Time
		if length != "" {
			d, err := jobs.ParseDuration(length)
			if errors.Is(err, jobs.ErrTooLong) {
				return usage("--for: %w", err)
			}
			if err != nil || d <= 0 {
				return usage("--for: not a duration such as 10m")
			}
			until = time.Now().Add(d)
		}
		if err := s.client.Pause(ctx, args[0], until); err != nil {
			return err
		}
		if until.IsZero() {
			return a.say(map[string]any{"queue": args[0], "paused": true}, "Queue %s is paused.", args[0])
		}
		stamp := until.UTC().Format(time.RFC3339)
		return a.say(map[string]any{"queue": args[0], "paused": true, "paused_until": stamp}, "Queue %s is paused until %s.", args[0], stamp)
	})
	return cmd
}

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
