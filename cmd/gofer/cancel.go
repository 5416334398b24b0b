package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
)

// cancelFlags are the flags of cancel.
type cancelFlags struct {
	bulkFlags
	state string // empty for any state
}

// cancelCommand takes IDs, or flags that find jobs, and not both: a flag beside an ID could only be a mistake.
func (a *app) cancelCommand() *cobra.Command {
	var f cancelFlags
	cmd := &cobra.Command{
		Use: "cancel [ID…|-]", Short: "End queued, waiting or running jobs with a cancelled result",
		Long: `Cancels the jobs that the IDs name; - stands for IDs on standard input, one a line. Without an ID it cancels all jobs that fit every
flag given. Jobs found by flags are always asked about first, and named ones from two on: --yes skips the question, and is required
in its place without a terminal.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			// The check needs no connection, so a wrong call fails even without a server.
			if err := f.check(args); err != nil {
				return err
			}
			return a.verb("cancel", func(ctx context.Context, s *session, args []string) error { return a.cancel(ctx, s, f, args) })(cmd, args)
		},
	}
	f.add(cmd.Flags(), "jobs")
	cmd.Flags().StringVar(&f.state, "state", "", "all jobs in this `STATE`: "+stateNames())
	return cmd
}

// check refuses a call that names no job, or that names jobs in two ways. --queue alone names all jobs of a queue.
func (f *cancelFlags) check(args []string) error {
	// --queue with an ID is allowed: it names the queue in which the ID is looked up.
	filtered := f.site != "" || f.since.given || f.state != ""
	switch {
	case len(args) == 0 && !filtered && f.queue == "":
		return usage("cancel: name IDs, or jobs by a flag such as --queue")
	case len(args) > 0 && filtered:
		return usage("cancel: --site, --since and --state find jobs: leave out the IDs")
	}
	// The state is checked by name, because a filter for an unknown one would find nothing and look like
	// success.
	return checkState(f.state)
}

// cancel ends the jobs that the arguments name or the flags find. It prints how many were cancelled and names those that
// were not. A job that cannot be cancelled does not keep the others.
func (a *app) cancel(ctx context.Context, s *session, f cancelFlags, args []string) error {
	// One name is by far the most frequent call. Its answer names the job, where the others give a number.
	if len(args) == 1 && args[0] != "-" {
		return a.cancelOne(ctx, s, f.queue, args[0])
	}
	keys, unknown, err := a.jobsToCancel(ctx, s, f, args)
	if err != nil {
		return err
	}
	if err := a.confirm(f.yes, len(keys), len(args) == 0, "Cancel "+count(len(keys), "job")+"?"); err != nil {
		return err
	}
	// The error is joined below and not returned here: the user has to learn how many jobs were cancelled in any case.
	done, err := forEach(ctx, keys, s.cancel)
	if printErr := a.printDone(map[string]any{"cancelled": done, "failed": len(keys) - done + len(unknown)}, "Cancelled: %s.", count(done, "job")); printErr != nil {
		return printErr
	}
	// Names of no job and failures to cancel become one error, so the exit code is 1 if anything is left.
	return joinFirst(append(unknown, err))
}

// cancel cancels one job. The error about a job that has ended says how and when: a user who cancels too late wants to know what
// was fetched.
func (s *session) cancel(ctx context.Context, k client.Key) error {
	err := s.client.Cancel(ctx, k)
	if !errors.Is(err, client.ErrFinished) {
		return err
	}
	r, resultErr := s.client.Result(ctx, k)
	if resultErr != nil { // it may have expired since
		return err
	}
	outcome := r.Outcome
	if outcome == jobs.Cancelled {
		outcome = "was cancelled"
	}
	return fmt.Errorf("job %s %s at %s: %w, so there is nothing to cancel", k, outcome, localTime(r.FinishedAt), client.ErrFinished)
}

// cancelOne cancels the one job that the call names, without a question. Errors: those of cancel.
func (a *app) cancelOne(ctx context.Context, s *session, queue, name string) error {
	k, err := key(ctx, s, queue, name)
	if err != nil {
		return err
	}
	if err := s.cancel(ctx, k); err != nil {
		return err
	}
	return a.printDone(map[string]any{"queue": k.Queue, "id": k.ID, "outcome": jobs.Cancelled}, "Job %s is cancelled.", k)
}

// jobsToCancel returns the jobs that the arguments name or the filter finds. unknown holds an error for each name that is no
// job. err ends the call: the server cannot be asked, or a name is written wrongly.
func (a *app) jobsToCancel(ctx context.Context, s *session, f cancelFlags, args []string) (keys []client.Key, unknown []error, err error) {
	if len(args) == 0 {
		// All keys are gathered before the question, so that the question can name their number. A job that
		// ends meanwhile fails to be cancelled and is counted as such.
		err := s.client.List(ctx, f.filter(f.state), func(job client.Listed) error {
			keys = append(keys, job.Key)
			return nil
		})
		return keys, nil, err
	}
	names, err := a.ids(args)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		k, err := key(ctx, s, f.queue, name)
		switch {
		case err == nil:
			keys = append(keys, k)
		// A misspelt name would be misspelt in every call. An interruption must not look like names that are
		// unknown.
		case exitCode(err) == exitUsage || ctx.Err() != nil:
			return nil, nil, err
		default:
			unknown = append(unknown, err)
		}
	}
	return keys, unknown, nil
}

// filter returns the flags and a state as a filter of jobs.
func (b *bulkFlags) filter(state string) client.ListFilter {
	return client.ListFilter{Queue: b.queue, State: state, Site: b.site, Since: b.since.Time}
}
