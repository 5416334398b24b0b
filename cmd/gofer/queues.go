package main

import (
	"context"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
)

// queuesCommand lists each queue with its jobs by state. Overdue jobs are counted by a request of their own, whose
// failure leaves only that column at zero.
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
