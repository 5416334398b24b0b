package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
)

// scanTime bounds how long jobs are searched for those of one site, URL or state. The server cannot filter by any of them, so the
// search reads the jobs one after the other.
const scanTime = 5 * time.Second

// errScanTime is the cause of the context of a search that takes too long.
var errScanTime = errors.New("the search takes too long")

// jobsCommand is the group of verbs about jobs that have not ended.
func (a *app) jobsCommand() *cobra.Command {
	return verbGroup("jobs", "List the jobs that have not ended", a.jobsLsCommand())
}

// jobsLsCommand lists jobs without results. A job that has ended is found by gofer results or gofer job. The flags
// have the names of those of cancel, so that a list can be tried before it is cancelled.
func (a *app) jobsLsCommand() *cobra.Command {
	var b bulkFlags
	var state, url string
	// It is also the default that help shows.
	limit := wholeFlag(100)
	cmd := &cobra.Command{
		Use: "ls", Short: "List jobs that are queued, running or waiting, the oldest first", Args: args(cobra.NoArgs),
		Long: `Lists the jobs that have not ended and fit every flag given, the oldest first. Since is when a job was published, or began to wait.
A job that was just handed back by its worker is shown as running. With --site, --url or --state the search ends after 5 seconds, prints what it has found and says how many jobs it has read.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkState(state); err != nil {
				return err
			}
			if url != "" {
				if _, err := jobs.ParseURL(url); err != nil {
					return usage("--url: %v", err)
				}
			}
			// Zero is refused rather than taken for no limit.
			if limit < 1 {
				return usage("--limit: at least 1")
			}
			return a.verb("jobs ls", func(ctx context.Context, s *session, _ []string) error {
				f := b.filter(state)
				f.URL = url
				return a.jobsLs(ctx, s, f, int(limit))
			})(cmd, args)
		},
	}
	cmd.Flags().StringVar(&b.queue, "queue", "", "only this `QUEUE`")
	cmd.Flags().StringVar(&state, "state", "", "only jobs in this `STATE`: "+stateNames())
	cmd.Flags().Var((*siteFlag)(&b.site), "site", "only jobs of this `SITE`, such as example.com or example.com:8443")
	cmd.Flags().StringVar(&url, "url", "", "only jobs of this `URL`, which is compared before any redirect")
	cmd.Flags().Var(&b.since, "since", "only jobs since this `TIME` (RFC 3339), or for no longer than this duration")
	cmd.Flags().Var(&limit, "limit", "how many jobs")
	return cmd
}

// jobsLs prints at most limit jobs and says if more follow. A search for one site, URL or state may have to read all jobs, so
// it ends after scanTime with what it has found, which is no error.
func (a *app) jobsLs(ctx context.Context, s *session, f client.ListFilter, limit int) error {
	scan, cancel := ctx, context.CancelFunc(func() {})
	// Without these filters, limit bounds what is read.
	if f.Site != "" || f.URL != "" || f.State != "" {
		scan, cancel = context.WithTimeoutCause(ctx, scanTime, errScanTime)
	}
	defer cancel()
	found, err := s.client.Search(scan, f, limit)
	list := found.List
	switch {
	case errors.Is(err, errScanTime):
		// What was found is printed below, with exit code 0. A signal is no such end: it ends ctx with another cause.
		a.note("the search stopped after %s at %d of about %d jobs; so far it found %s: narrow the search with --queue or --since", scanTime, found.Looked, found.Jobs, count(len(list), "job"))
	case err != nil:
		return err
	case found.More:
		a.note("more jobs follow: raise --limit")
	}
	if a.json {
		// JSON gets [] instead of null.
		if list == nil {
			list = []client.Listed{}
		}
		return a.printJSON(list)
	}
	var rows []table.Row
	for _, job := range list {
		rows = append(rows, table.Row{job.Key, job.State, age(job.Since), untilNext(job.Until), job.Site})
	}
	return a.list(table.Row{"job", "state", "for", "next try", "site"}, rows, "No jobs.")
}

// age is how long ago a time of the server was. If the clocks differ it may be negative, which is shown as it is: it points at
// the clocks.
func age(since time.Time) string { return time.Since(since).Round(time.Second).String() }

// untilNext says in words when a time comes: "now" if it has passed, empty for the zero time.
func untilNext(at time.Time) string {
	// Rounded to a second, so a time that comes in less counts as now.
	switch wait := time.Until(at).Round(time.Second); {
	case at.IsZero():
		return ""
	case wait > 0:
		return "in " + wait.String()
	}
	return "now"
}

// stateNames lists the states for help and errors.
func stateNames() string { return strings.Join(jobs.States(), ", ") }

// checkState refuses a state that no job can have: it would find nothing, which looks like an answer. Empty means any state.
func checkState(state string) error {
	if state != "" && !slices.Contains(jobs.States(), state) {
		return usage("--state: %q is none of %s; gofer results lists the jobs that have ended", state, stateNames())
	}
	return nil
}
