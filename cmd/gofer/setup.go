package main

import (
	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs/bus"
)

func (a *app) setupCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Create and update streams, buckets and consumers",
		Long: `Creates the streams, buckets and consumers that are missing and changes those that differ from the
configuration (GOFER_REPLICAS, GOFER_RESULTS_MAX_AGE, GOFER_RESULTS_MAX_BYTES, GOFER_JOBS_MAX_MSGS,
GOFER_JOBS_MAX_BYTES, GOFER_QUEUES). A consumer of jobs that the server does not change is created again: running jobs are fetched again.
Workers create what is missing too, but never change what is there.
The replicas of a stream with waiting jobs change only on nats-server 2.14.10, 2.15.3 and newer: older ones forget when the jobs are due.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.connect(cmd.Context(), "setup")
			if err != nil {
				return err
			}
			defer s.close()
			act := s.bus.Apply
			if dryRun {
				act = s.bus.Plan
			}
			done, err := act(cmd.Context(), s.config.Settings())
			if err == nil || len(done) > 0 {
				a.printDifferences(done, dryRun)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only show what would be done")
	return cmd
}

func (a *app) printDifferences(list []bus.Difference, dryRun bool) {
	if a.json {
		if list == nil {
			list = []bus.Difference{}
		}
		_ = a.printJSON(map[string]any{"dry_run": dryRun, "differences": list})
		return
	}
	for _, d := range list {
		_ = a.out.line("%s", d)
	}
	switch {
	case len(list) == 0:
		_ = a.out.line("Everything is as configured.")
	case dryRun:
		_ = a.out.line("Nothing was changed (--dry-run).")
	}
}
