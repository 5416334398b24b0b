package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
)

// cancelFlags are the flags of cancel. The filters are joined by and.
type cancelFlags struct {
	// It is empty for any state.
	bulk
	state string
}

// cancelCommand takes IDs, or flags that find jobs, and not both: a flag beside an ID could only be a mistake.
func (a *app) cancelCommand() *cobra.Command {
	var f cancelFlags
	cmd := &cobra.Command{
		Use: "cancel [ID…|-]", Short: "End queued, waiting or running jobs with a cancelled result",
		Long: `Cancels the jobs that the IDs name; - stands for IDs on standard input, one a line. Without an ID it cancels all jobs that fit every
flag given. More than one job is asked about first: --yes skips the question, and is required without a terminal.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			// The check needs no connection, so a wrong call fails even without a server.
			if err := f.check(cmd, args); err != nil {
				return err
			}
			return a.verb("cancel", func(ctx context.Context, s *session, args []string) error { return a.cancel(ctx, s, f, args) })(cmd, args)
		},
	}
	f.add(cmd.Flags(), "jobs")
	cmd.Flags().StringVar(&f.state, "state", "", "all jobs in this state: "+stateNames())
	return cmd
}

// check refuses a call that names no job, or that names jobs in two ways. --queue alone names all jobs of a queue.
func (f *cancelFlags) check(cmd *cobra.Command, args []string) error {
	// --queue with an ID is allowed: it names the queue in which the ID is looked up.
	filtered := f.site != "" || f.since.given || f.state != ""
	switch {
	case len(args) == 0 && !filtered && f.queue == "":
		return usage("too few arguments: %s", cmd.UseLine())
	case len(args) > 0 && filtered:
		return usage("cancel: --site, --since and --state find jobs: leave out the IDs")
	}
	// The state is checked by name, because a filter for an unknown one would find nothing and look like
	// success.
	return checkState(f.state)
}

// cancel ends the jobs that the arguments name or the flags find. It counts those that were cancelled and names those
// that were not. One job that cannot be cancelled does not keep the others from it.
func (a *app) cancel(ctx context.Context, s *session, f cancelFlags, args []string) error {
	// One name is by far the most frequent call, and gets a sentence of its own.
	if len(args) == 1 && args[0] != "-" {
		return a.cancelOne(ctx, s, f.queue, args[0])
	}
	keys, unknown, err := a.toCancel(ctx, s, f, args)
	if err != nil {
		return err
	}
	if err := a.confirm(f.yes, len(keys), len(args) == 0, "Cancel "+count(len(keys), "job")+"?"); err != nil {
		return err
	}
	done, err := forEach(ctx, keys, s.client.Cancel)
	// The count is printed before the error, for what was cancelled stays so.
	if said := a.say(map[string]any{"cancelled": done, "failed": len(keys) - done + len(unknown)}, "Cancelled: %s.", count(done, "job")); said != nil {
		return said
	}
	// Names of no job and failures to cancel become one error, so the exit code is 1 if anything is left.
	return joinFirst(append(unknown, err))
}

// cancelOne cancels the one job that the call names, without a question. Errors: those of client.Cancel, such as
// client.ErrFinished for a job that has ended.
func (a *app) cancelOne(ctx context.Context, s *session, queue, name string) error {
	k, err := key(ctx, s, queue, name)
	if err != nil {
		return err
	}
	if err := s.client.Cancel(ctx, k); err != nil {
		return err
	}
	return a.say(map[string]any{"queue": k.Queue, "id": k.ID, "outcome": jobs.Cancelled}, "Job %s is cancelled.", k)
}

// toCancel returns the jobs that the arguments name or the filter finds. unknown holds an error for each name that is no
// job. err ends the call: the server cannot be asked, or a name is written wrongly.
func (a *app) toCancel(ctx context.Context, s *session, f cancelFlags, args []string) (keys []client.Key, unknown []error, err error) {
	// Without names the filters decide.
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

// filter returns what the flags say of the jobs. Flags that are not given admit every job.
func (b *bulk) filter(state string) client.ListFilter {
	return client.ListFilter{Queue: b.queue, State: state, Site: b.site, Since: b.since.Time}
}
