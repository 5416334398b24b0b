package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
)

// resultsCommand shows one result, lists kept results, or follows results, depending on its arguments. It refuses flags of
// another use.
func (a *app) resultsCommand() *cobra.Command {
	var queue, durable string
	var all, wait bool
	var list resultFilter
	cmd := &cobra.Command{
		Use:   "results [ID]",
		Short: "Show one result, or follow results as they come",
		Long: `With an ID, or QUEUE/ID, prints the body of that job's result, and its facts on standard error.
Without one, prints a line for each result as it comes, until interrupted; --all begins with those that are kept. With --failed,
--status, --since or --limit it lists the kept results that fit all of these flags, the oldest first, and ends.

A body reaches a file or a pipe unchanged. On a terminal what it would obey is shown in Go's notation (\x1b), and a binary body
is refused. Everything else that strangers wrote, such as URLs and reasons, is always shown so.`,
		Args: args(cobra.MaximumNArgs(1)),
		// Wrong combinations are refused before anything is connected.
		RunE: func(cmd *cobra.Command, ids []string) error {
			// The verb has three uses: one result, a list, and following. Flags of another use would be ignored, so they are refused.
			one := len(ids) == 1
			switch {
			case wait && !one:
				return usage("--wait needs an ID: without one, results are followed as they come")
			case list.isGiven() && (one || all || durable != ""):
				return usage("--failed, --status, --since and --limit list kept results: leave out the ID, --all and --durable")
			case one && (all || durable != ""):
				return usage("--all and --durable follow results: leave out the ID")
			}
			if err := errors.Join(list.check(), checkDurable(durable, queue, all)); err != nil {
				return err
			}
			// The session is made here and not by verb, because verb would connect before the flags are checked.
			s, err := a.connect(cmd.Context(), "results")
			if err != nil {
				return err
			}
			defer s.close()
			if list.isGiven() {
				return a.listResults(cmd.Context(), s, queue, &list)
			}
			if one {
				return a.oneResult(cmd.Context(), s, queue, ids[0], wait)
			}
			return a.followResults(cmd.Context(), s, queue, durable, all)
		},
	}
	cmd.Flags().StringVar(&queue, "queue", "", "only this `QUEUE`")
	cmd.Flags().StringVar(&durable, "durable", "", "follow from where this durable `CONSUMER` stopped; gofer creates one, "+client.Reader+", also for users who may not")
	cmd.Flags().BoolVar(&all, "all", false, "begin with the results that are kept; without an ID")
	list.add(cmd)
	cmd.Flags().BoolVar(&wait, "wait", false, "with an ID: wait for the result if it is not there yet")
	return cmd
}

// oneResult prints the body of one result to standard output and its facts to standard error, so that the body can be
// piped. A job that did not succeed has exit code 3. Errors: client.ErrNotFound if no result is kept and wait is
// false.
func (a *app) oneResult(ctx context.Context, s *session, queue, name string, wait bool) error {
	key, err := key(ctx, s, queue, name)
	if err != nil {
		return err
	}
	// Result asks once. Wait asks until the result comes or ctx ends, also for a job that does not exist yet.
	get := s.client.Result
	if wait {
		get = s.client.Wait
	}
	r, err := get(ctx, key)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r.Summary())
	}
	// It goes to standard error, so that standard output is the body and nothing else.
	_ = a.err.line("%s", resultLine(r))
	if err := a.printBody(ctx, s, r); err != nil {
		return err
	}
	// The facts were printed. The error sets the exit code, so that a script notices without reading them.
	if r.Outcome != jobs.Succeeded {
		return &failure{code: exitSomeFailed, err: fmt.Errorf("the job's outcome is %s", r.Outcome)}
	}
	return nil
}

// followResults prints a line for each result until ctx ends. It reads headers only, unless it reads with a durable, which
// delivers whole messages. A queue that no worker has ever served is noted first, because nothing may ever come.
func (a *app) followResults(ctx context.Context, s *session, queue, durable string, all bool) error {
	a.warnOfUnknownQueue(ctx, s, queue)
	// Bodies are not shown, so they are not fetched. A durable consumer was prepared by its owner, and this verb may not change it
	// to headers only.
	f := client.Filter{Queue: queue, All: all, HeadersOnly: durable == "", Durable: durable}
	return s.explainDurable("RESULTS", durable, s.client.Follow(ctx, f, func(r jobs.Result) error {
		if f.HeadersOnly {
			return a.printHeaders(r)
		}
		return a.printResult(r)
	}))
}
