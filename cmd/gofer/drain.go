package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/control"
)

// drainCommand drains one worker. Names of workers need not be unique, so several workers of one name are drained only
// with --all.
func (a *app) drainCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "drain WORKER", Short: "Let one worker finish its jobs and end, as SIGTERM does",
		Long: `The worker takes no more jobs, lets the running ones end or hands them back, and exits with 0.
It answers before it does so; 'gofer workers' lists it until it is gone. Whatever restarts your workers will start it again.
If several workers bear the name, it takes --all to drain them.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: a.verb("drain", func(ctx context.Context, s *session, args []string) error {
			// Names follow the same rule as ids, since they are a token of a subject.
			if !jobs.ValidID(args[0]) {
				return usage("%q is not the name of a worker; see gofer workers", args[0])
			}
			// Counted first: the request reaches every worker of the name, and nobody can take it back.
			same, err := s.countWorkersNamed(ctx, args[0])
			if err != nil {
				return err
			}
			if same > 1 && !all {
				// Nothing was drained, so the call can be repeated with --all.
				return fmt.Errorf("%d workers are named %s: --all drains them all; give each its own GOFER_WORKER_NAME", same, args[0])
			}
			// As many answers are awaited as workers have the name, at least one: without --all the call returns at
			// the first.
			drained, err := askFleet[control.DrainResponse](ctx, s, control.Drain, control.DrainRequest{Worker: args[0]}, max(1, same))
			if errors.Is(err, control.ErrNoWorkers) && !errors.Is(err, bus.ErrPermission) {
				return fmt.Errorf("no worker named %s answers; see gofer workers", args[0])
			}
			if err != nil {
				return err
			}
			// The JSON has the number of workers in any case.
			answer := map[string]any{"worker": args[0], "draining": true, "workers": len(drained)}
			if len(drained) > 1 {
				return a.printDone(answer, "%d workers named %s drain.", len(drained), args[0])
			}
			return a.printDone(answer, "Worker %s drains.", args[0])
		}),
	}
	cmd.Flags().BoolVar(&all, "all", false, "drain all workers of that name")
	return cmd
}

// countWorkersNamed returns how many workers of a name run: those that answer, and those that are too busy to answer this
// question and are known by their pings, since they may still take the request to drain. No worker at all is no error.
func (s *session) countWorkersNamed(ctx context.Context, name string) (n int, err error) {
	var list []control.Status
	var silent []control.Silent
	err = s.bus.Ask(ctx, control.Subject(s.names, control.Workers), func(ctx context.Context) (err error) {
		list, silent, err = control.AskAll[control.Status](ctx, s.nc, s.names, control.Workers, nil)
		return err
	})
	if err != nil && (!errors.Is(err, control.ErrNoWorkers) || errors.Is(err, bus.ErrPermission)) {
		return 0, err
	}
	for _, w := range list {
		if w.Worker == name {
			n++
		}
	}
	for _, w := range silent {
		if w.Worker == name {
			n++
		}
	}
	return n, nil
}
