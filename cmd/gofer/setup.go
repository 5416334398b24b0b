package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs/bus"
)

// setupCommand makes the installation as it is configured. It may be called again at any time: what is as configured is
// left alone.
func (a *app) setupCommand() *cobra.Command {
	var dryRun bool
	// It bounds only the wait at the end, not the changes.
	timeout := 10 * time.Minute // a large stream takes its time
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Create and update streams, buckets and consumers",
		Long: `Creates the streams, buckets and consumers that are missing and changes those that differ from the
configuration (GOFER_REPLICAS, GOFER_RESULTS_MAX_AGE, GOFER_RESULTS_MAX_BYTES, GOFER_JOBS_MAX_MSGS,
GOFER_JOBS_MAX_BYTES, GOFER_QUEUES). A consumer of jobs that the server does not change is created again: running jobs are fetched again.
Workers create what is missing too, but never change what is there.
After a change of the replicas it waits until all of them are current: stop no server before.
The replicas of a stream with waiting jobs change only on nats-server 2.14.10, 2.15.3 and newer: older ones forget when the jobs are due.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.connect(cmd.Context(), "setup")
			if err != nil {
				return err
			}
			defer s.close()
			// Plan and Apply return the same list, so a dry run shows what a run does.
			act := s.bus.Apply
			if dryRun {
				act = s.bus.Plan
			}
			done, err := act(cmd.Context(), s.config.Settings())
			// What was done before an error is printed, too.
			if err == nil || len(done) > 0 {
				a.printDifferences(done, dryRun)
			}
			// One replica is never behind.
			if err != nil || dryRun || timeout == 0 || s.config.Settings().Replicas == 1 {
				return err
			}
			return a.awaitReplicas(cmd.Context(), s, timeout, slices.ContainsFunc(done, changesReplicas))
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only show what would be done")
	cmd.Flags().Var((*durationFlag)(&timeout), "timeout", "how long to wait until new replicas are current; 0 means not to wait")
	return cmd
}

// changesReplicas reports whether a difference moves a stream to other servers, which takes time after the call.
// The field has the name that JetStream's configuration has in JSON.
func changesReplicas(d bus.Difference) bool { return d.Field == "num_replicas" }

// errReplicasBehind ends the wait for replicas. The servers go on with their work.
var errReplicasBehind = errors.New("the replicas are not current yet: stop no server before they are, it may take messages along; see nats stream report")

// noteEvery is the time between two notes about what is awaited.
const noteEvery = 5 * time.Second

// awaitReplicas waits until all replicas are current, limit at most, and says every noteEvery how far they are. If setup
// has not changed the replicas, it waits only if an earlier change still goes on: a server that is away would keep it
// waiting. A limit that is reached is an error: errReplicasBehind.
func (a *app) awaitReplicas(ctx context.Context, s *session, limit time.Duration, changed bool) error {
	behind, err := s.bus.ReplicaLags(ctx, s.config.Settings())
	if err != nil || !changed && !slices.ContainsFunc(behind, func(b bus.ReplicaLag) bool { return b.Moving }) {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errReplicasBehind)
	defer cancel()
	// The zero time makes the first call note at once.
	var noted time.Time
	// The function is called after each look, and behind is never empty then.
	err = s.bus.AwaitReplicas(ctx, s.config.Settings(), func(behind []bus.ReplicaLag) {
		if time.Since(noted) < noteEvery {
			return
		}
		noted = time.Now()
		a.note("waiting for the replicas of %d streams and consumers, stop no server meanwhile; %s", len(behind), behind[0])
	})
	if err == nil && !a.json {
		return a.out.line("All replicas are current.")
	}
	return err
}

// printDifferences prints what was done, or with dryRun what would be done. A line that cannot be written makes the
// verb fail at its end: see run.
func (a *app) printDifferences(list []bus.Difference, dryRun bool) {
	// A list that is empty is printed as [].
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
