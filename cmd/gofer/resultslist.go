package main

import (
	"context"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
)

// resultFilter says which kept results are listed. The zero value asks for no list. Filters are joined by and.
type resultFilter struct {
	failed bool
	status string
	since  sinceFlag
	limit  wholeFlag
	// limited tells that a limit was given: 0 is none that can be kept to.
	limited func() bool
}

// add adds the flags. limited looks at the flag itself, which is parsed by the time it is called.
func (f *resultFilter) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.failed, "failed", false, "list the kept results of jobs that failed, and end")
	cmd.Flags().StringVar(&f.status, "status", "", "list the kept results with this status or class, such as 404 or 4xx, and end")
	cmd.Flags().Var(&f.since, "since", "list the kept results since this time (RFC 3339), or of this duration before now, and end")
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
	// Atoi would also take +404 or 0404.
	if status, err := strconv.Atoi(f.status); err != nil || status < 100 || status > 999 || len(f.status) != 3 {
		return usage("--status: %q is neither a status such as 404 nor one of 2xx, 3xx, 4xx, 5xx, none", f.status)
	}
	return nil
}

// fits reports whether a result is listed.
func (f *resultFilter) fits(r *jobs.Result) bool {
	// A status matches by its class or by its number. since is not compared here: the stream is read from that time
	// on.
	return (!f.failed || r.Outcome == jobs.Failed) &&
		(f.status == "" || f.status == jobs.StatusClass(r.Status) || f.status == strconv.Itoa(r.Status))
}

// listResults prints a line for each kept result that fits, in the order of storing. With a limit N it keeps at most 2 N
// results in memory and prints the newest N; without one it prints each at once.
func (a *app) listResults(ctx context.Context, s *session, queue string, f *resultFilter) error {
	var newest []jobs.Result
	found := 0
	// UntilNow ends at the newest result at the time of the call, so a busy queue cannot keep it going.
	err := s.client.Follow(ctx, client.Filter{Queue: queue, Since: f.since.Time, UntilNow: true, HeadersOnly: true}, func(r jobs.Result) error {
		if !f.fits(&r) {
			return nil
		}
		found++
		if f.limit == 0 {
			return a.printHeaders(r)
		}
		// Deleting in blocks of limit keeps the copying to one move for each result.
		if newest = append(newest, r); len(newest) >= 2*int(f.limit) {
			newest = slices.Delete(newest, 0, len(newest)-int(f.limit))
		}
		return nil
	})
	if err != nil {
		return err
	}
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

// printHeaders prints one line about a result that was read without its body.
func (a *app) printHeaders(r jobs.Result) error {
	if !a.json {
		return a.printResult(r)
	}
	facts := r.Summary()
	// A result without its body has no length of it; zero would be a wrong fact.
	facts.BodyBytes = nil
	return a.printJSON(facts)
}
