package main

import (
	"context"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
)

// resultFilter says which kept results are listed: those that fit all flags given. Without a flag, none is listed.
type resultFilter struct {
	failed bool
	// status is a status such as "404" or a class such as "4xx"; empty fits all.
	status string
	since  sinceFlag
	// limit is zero unless --limit is given, which limited reports. A given limit below 1 is refused.
	limit   wholeFlag
	limited func() bool
}

// add adds the flags.
func (f *resultFilter) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.failed, "failed", false, "list the kept results of jobs that failed, and end")
	cmd.Flags().StringVar(&f.status, "status", "", "list the kept results with this `STATUS` or class, such as 404 or 4xx, and end")
	cmd.Flags().Var(&f.since, "since", "list the kept results since this `TIME` (RFC 3339), or of this duration before now, and end")
	cmd.Flags().Var(&f.limit, "limit", "list only the newest N of the kept results, and end")
	f.limited = func() bool { return cmd.Flags().Changed("limit") }
}

// isGiven reports whether any flag of the filter was given. Without one, results are followed instead of listed.
func (f *resultFilter) isGiven() bool {
	return f.failed || f.status != "" || f.since.given || f.limited()
}

// check refuses values that no result can have, as a usage error.
func (f *resultFilter) check() error {
	if f.limited() && f.limit < 1 {
		return usage("--limit: at least 1")
	}
	if f.status == "" || slices.Contains(jobs.Classes(), f.status) {
		return nil
	}
	// Atoi also takes +404 and 0404, which matches would then compare with "404" and find nothing. The length refuses them.
	if status, err := strconv.Atoi(f.status); err != nil || status < 100 || status > 999 || len(f.status) != 3 {
		return usage("--status: %q is neither a status such as 404 nor one of 2xx, 3xx, 4xx, 5xx, none", f.status)
	}
	return nil
}

// matches reports whether a result is listed. It does not compare since, from which time on the stream is read.
func (f *resultFilter) matches(r *jobs.Result) bool {
	return (!f.failed || r.Outcome == jobs.Failed) &&
		(f.status == "" || f.status == jobs.StatusClass(r.Status) || f.status == strconv.Itoa(r.Status))
}

// listResults prints a line for each kept result that fits, in the order of storing. With a limit N it keeps at most 2 N
// results in memory and prints the newest N; without one it prints each at once.
func (a *app) listResults(ctx context.Context, s *session, queue string, f *resultFilter) error {
	a.warnOfUnknownQueue(ctx, s, queue)
	var newest []jobs.Result
	found := 0
	// UntilNow ends at the newest result at the time of the call, so a busy queue cannot keep it going.
	err := s.client.Follow(ctx, client.Filter{Queue: queue, Since: f.since.Time, UntilNow: true, HeadersOnly: true}, func(r jobs.Result) error {
		if !f.matches(&r) {
			return nil
		}
		found++
		if f.limit == 0 {
			return a.printHeaders(r)
		}
		// Only the newest N are kept. They are moved in blocks of N, so each result is moved once and not once for each newer one.
		if newest = append(newest, r); len(newest) >= 2*int(f.limit) {
			newest = slices.Delete(newest, 0, len(newest)-int(f.limit))
		}
		return nil
	})
	if err != nil {
		return err
	}
	// On standard error, so that a script that counts lines counts none.
	if found == 0 {
		return a.err.line("No results.")
	}
	for _, r := range newest[max(0, len(newest)-int(f.limit)):] {
		if err := a.printHeaders(r); err != nil {
			return err
		}
	}
	return nil
}

// printHeaders prints one line about a result that was read without its body. Its headers have all facts but the length of the
// body.
func (a *app) printHeaders(r jobs.Result) error {
	if !a.json {
		return a.printResult(r)
	}
	facts := r.Summary()
	facts.BodyBytes = nil // not known: the body was not read
	return a.printJSON(facts)
}
