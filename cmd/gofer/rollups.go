package main

import (
	"context"
	"fmt"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/worker/control"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// rollupsCommand asks one worker for the fleet's hours. A worker that cannot read them answers with its own, which is noted.
func (a *app) rollupsCommand() *cobra.Command {
	request := control.RollupRequest{Scope: control.ScopeCluster}
	cmd := &cobra.Command{
		Use: "rollups", Short: "Show what the fleet did, hour by hour",
		Long: `Prints a line for each hour of UTC, the running one last; hours before the first job are left out of the table.
Requests are the jobs that ended, and 2xx to none are the classes of their last status. p50 and p95 are quantiles of their durations, from the first attempt to the end.`,
		Args: args(cobra.NoArgs),
		RunE: a.verb("rollups", func(ctx context.Context, s *session, _ []string) error {
			// Older hours are deleted, so a larger number would only show empty rows.
			if request.Hours < 1 || request.Hours > rollup.RetentionHours {
				return usage("--hours: must be from 1 to %d", rollup.RetentionHours)
			}
			// Any worker knows the hours of the fleet, so one answer is enough.
			answers, err := askFleet[control.RollupResponse](ctx, s, control.Rollups, request, 1)
			if err != nil {
				return err
			}
			// A worker that cannot read the fleet's hours answers with its own. A reader must not take them for the fleet's.
			if got := answers[0]; got.Scope != request.Scope {
				a.note("these are the hours of worker %s since it started, not of the whole fleet", got.Worker)
			}
			if a.json {
				return a.printJSON(answers[0])
			}
			header := table.Row{"hour", "requests", "success", "2xx", "3xx", "4xx", "5xx", "none", "retries", "attempts", "p50", "p95", "MB", "breaker opens"}
			return a.out.table(header, hourRows(answers[0].Points))
		}),
	}
	// Set on the request, which the flag changes: help shows it as the default.
	request.Hours = 24
	cmd.Flags().Var((*wholeFlag)(&request.Hours), "hours", "how many hours, 1 to 168")
	return cmd
}

// hourRows makes the rows of the table. It leaves out the empty hours of the beginning, but never the running hour.
func hourRows(points []rollup.Point) (rows []table.Row) {
	for i, p := range points {
		// The first hours of a young installation are all empty and say nothing.
		if len(rows) == 0 && p.TotalRequests+p.Attempts+p.TotalRetries+p.BreakerOpens == 0 && i < len(points)-1 {
			continue
		}
		// A dash, because no request has no rate.
		success := "-"
		if p.TotalRequests > 0 {
			success = fmt.Sprintf("%.1f %%", 100*p.SuccessRate)
		}
		c := p.Classes
		rows = append(rows, table.Row{
			p.Timestamp.UTC().Format("2006-01-02 15:04"), p.TotalRequests, success, c.Status2xx, c.Status3xx, c.Status4xx, c.Status5xx, c.None,
			p.TotalRetries, p.Attempts, milliseconds(p.P50), milliseconds(p.P95), fmt.Sprintf("%.1f", float64(p.Bytes)/1e6), p.BreakerOpens,
		})
	}
	return rows
}
