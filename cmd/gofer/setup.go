package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs/bus"
)

// setupCommand creates what is missing of the installation, and changes what is not as configured.
func (a *app) setupCommand() *cobra.Command {
	var dryRun bool
	timeout := 10 * time.Minute // of the wait after the changes; to copy a large stream takes time
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
			// Apply goes on after an error, and what it has changed stays, so it is printed in any case.
			if err == nil || len(done) > 0 {
				a.printDifferences(done, dryRun)
			}
			// A stream with one replica has no other one that could be behind.
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

// changesReplicas reports whether the repair of a difference moves a stream to other servers, which goes on after the call.
func changesReplicas(d bus.Difference) bool { return d.Field == "num_replicas" }

// errReplicasBehind ends the wait for replicas. The servers go on with their work.
var errReplicasBehind = errors.New("the replicas are not current yet: stop no server before they are, or its messages may be lost; see nats stream report")

// noteEvery is the time between two notes of awaitReplicas.
const noteEvery = 5 * time.Second

// awaitReplicas waits until all replicas are current, limit at most, and notes every noteEvery which are not. After limit
// it returns errReplicasBehind. If setup has not changed the replicas (changed), it waits only for an earlier change that
// goes on, and not for a server that is away.
func (a *app) awaitReplicas(ctx context.Context, s *session, limit time.Duration, changed bool) error {
	// Asked once before the wait, so that an installation that is current costs one request and prints no note.
	behind, err := s.bus.ReplicaLags(ctx, s.config.Settings())
	if err != nil || !changed && !slices.ContainsFunc(behind, func(b bus.ReplicaLag) bool { return b.Moving }) {
		return err
	}
	// The cause becomes the error, so that a wait that ends says more than "deadline exceeded".
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errReplicasBehind)
	defer cancel()
	// The zero time makes the first call note at once.
	var noted time.Time
	// AwaitReplicas calls the function after each request that finds replicas behind, so behind[0] exists.
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

// printDifferences prints what was done, or with dryRun what would be done. A line that cannot be written is
// reported by app.run.
func (a *app) printDifferences(list []bus.Difference, dryRun bool) {
	if a.json {
		// JSON would print null for a list that a script wants to loop over.
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
