package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/admin"
	"github.com/gofer-mq/gofer/worker/control"
	"github.com/gofer-mq/gofer/worker/doctor"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// sitesCommand is the group of verbs about sites. Each worker has its own view of a site.
func (a *app) sitesCommand() *cobra.Command {
	return verbGroup("sites", "List the sites of the fleet, and end the rest of one",
		&cobra.Command{
			Use: "ls", Short: "List the sites that workers remember, and in how many workers each is in which state",
			Long: `Lists the sites that workers remember, those that rest first, then those with the most attempts, and in how many workers each is in
which state. A site that rests does not answer, and its jobs wait. A new site has never answered. Sites that do not rest may be
forgotten. Attempts, their status classes, bans and failures by fault are those of the last 30 to 60 minutes, of all workers together.`,
			Args: args(cobra.NoArgs), RunE: a.verb("sites ls", a.sitesLs),
		},
		&cobra.Command{
			Use: "show SITE", Short: "Show how each worker sees a site: HOST or HOST:PORT",
			Args: args(cobra.ExactArgs(1)), RunE: a.verb("sites show", a.sitesShow),
		},
		&cobra.Command{
			Use: "reset SITE", Short: "End the rest of a site in every worker, so that its jobs come back",
			Args: args(cobra.ExactArgs(1)), RunE: a.verb("sites reset", a.sitesReset),
		},
	)
}

// siteNamesOf returns the names of the sites that a text means, in the spelling of the workers. A text that is no site is a
// usage error.
func siteNamesOf(text string) ([]string, error) {
	names, err := jobs.SiteNames(text)
	if err != nil {
		return nil, usage("%q is not a site: write HOST or HOST:PORT", text)
	}
	return names, nil
}

// askSites asks each worker for its sites, or for the one that is named. The answers are sorted by worker.
func askSites(ctx context.Context, s *session, request control.SiteRequest) ([]admin.WorkerSites, error) {
	list, err := askFleet[admin.WorkerSites](ctx, s, control.Sites, request, 0)
	slices.SortFunc(list, func(a, b admin.WorkerSites) int { return cmp.Compare(a.Worker, b.Worker) })
	return list, err
}

// sitesLs prints a row for each site, or with --json the answer of each worker.
func (a *app) sitesLs(ctx context.Context, s *session, _ []string) error {
	list, err := askSites(ctx, s, control.SiteRequest{})
	if err != nil {
		return err
	}
	for _, w := range list {
		if w.Total > len(w.Sites) {
			a.note("worker %s remembers %d sites and lists %d of them, those that rest first", w.Worker, w.Total, len(w.Sites))
		}
	}
	if a.json {
		return a.printJSON(list)
	}
	merged, _ := admin.MergeSites(list)
	header, rows := siteTable(merged)
	return a.list(header, rows, "No sites.")
}

// siteTable makes a row for each site.
func siteTable(list []*admin.FleetSite) (header table.Row, rows []table.Row) {
	for _, f := range list {
		rows = append(rows, append(table.Row{f.Site, siteState(f)}, siteCounts(f)...))
	}
	return append(table.Row{"site", "state"}, countColumns()...), rows
}

// countColumns are the columns of siteCounts.
func countColumns() table.Row {
	return table.Row{"attempts", "classes", "bans", "failures", "next test", "why"}
}

// siteState is the worst state of the site, and in how many workers it has that, if not in all.
func siteState(f *admin.FleetSite) string {
	all := 0
	for _, n := range f.Workers {
		all += n
	}
	if n := f.Workers[f.State]; n < all {
		return fmt.Sprintf("%s in %d of %d", f.State, n, all)
	}
	return f.State
}

// siteCounts returns the cells of countColumns.
func siteCounts(f *admin.FleetSite) table.Row {
	var why []string
	if f.Resting() > 0 {
		why = append(why, doctor.SiteReason(f.Reason))
	}
	if f.LastErrorAt != nil {
		why = append(why, fmt.Sprintf("%s ago: %s", max(0, time.Since(*f.LastErrorAt)).Round(time.Second), f.LastError))
	}
	var failures []string
	// Faults without failures are left out, so the cell stays short.
	for _, fault := range slices.Sorted(maps.Keys(f.Failures)) {
		if n := f.Failures[fault]; n > 0 {
			failures = append(failures, fmt.Sprintf("%s %d", fault, n))
		}
	}
	return table.Row{f.Attempts, classesText(f.Classes), f.Bans, strings.Join(failures, ", "), nextTest(f.NextTestTime), strings.Join(why, "; ")}
}

// classesText lists the classes that occur.
func classesText(c rollup.Classes) string {
	var parts []string
	// The order is that of jobs.Classes.
	for i, n := range []int64{c.Status2xx, c.Status3xx, c.Status4xx, c.Status5xx, c.None} {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", jobs.Classes()[i], n))
		}
	}
	return strings.Join(parts, ", ")
}

// nextTest says in words when a test is planned; empty if none is.
func nextTest(at *time.Time) string {
	if at == nil {
		return ""
	}
	return untilNext(*at)
}

// sitesShow prints a row for each worker that remembers the site. It fails if none does.
func (a *app) sitesShow(ctx context.Context, s *session, args []string) error {
	names, err := siteNamesOf(args[0])
	if err != nil {
		return err
	}
	var name string
	var list []admin.WorkerSites
	// With port 80 or 443 a text means two sites: HOST:PORT, and HOST, whose name leaves out a default port. Of these the first one
	// that a worker knows is shown.
	for _, name = range names {
		if list, err = askSites(ctx, s, control.SiteRequest{Site: name}); err != nil {
			return err
		}
		// A worker that does not know the site answers with an empty list.
		if list = slices.DeleteFunc(list, func(w admin.WorkerSites) bool { return len(w.Sites) == 0 }); len(list) > 0 {
			break
		}
	}
	if len(list) == 0 {
		return errUnknownSite(name)
	}
	if a.json {
		return a.printJSON(list)
	}
	var rows []table.Row
	for _, w := range list {
		site := w.Sites[0]
		since := "" // the state has never changed in this worker
		if site.LastStateChange != nil {
			since = time.Since(*site.LastStateChange).Round(time.Second).String()
		}
		// One worker's site is a fleet of one, so both tables have the same cells.
		one := admin.NewFleetSite(name)
		one.Add(site)
		rows = append(rows, append(table.Row{w.Worker, site.State, since}, siteCounts(one)...))
	}
	return a.out.table(append(table.Row{"worker", "state", "since"}, countColumns()...), rows)
}

// errUnknownSite does not say that the site is fine: a worker forgets sites that do not rest.
func errUnknownSite(name string) error {
	return fmt.Errorf("no worker remembers a site %s; see gofer sites ls", name)
}

// sitesReset ends the rest of a site in every worker that answers. It fails if none remembers the site. It is no
// error if the site does not rest.
func (a *app) sitesReset(ctx context.Context, s *session, args []string) error {
	names, err := siteNamesOf(args[0])
	if err != nil {
		return err
	}
	var name string
	var list []control.SiteReset
	workers := 0
	for _, name = range names {
		if list, _, err = askAll[control.SiteReset](ctx, a, s, control.ResetSite, control.SiteRequest{Site: name}); err != nil {
			return err
		}
		for _, answer := range list {
			// A worker answers as well if it does not know the site.
			if answer.Known {
				workers++
				// The worker's spelling is printed, because gofer sites ls shows the same.
				name = cmp.Or(answer.Site, name)
			}
		}
		if workers > 0 {
			break
		}
	}
	if workers == 0 {
		return errUnknownSite(name)
	}
	slices.SortFunc(list, func(a, b control.SiteReset) int { return cmp.Compare(a.Worker, b.Worker) })
	return a.printDone(map[string]any{"site": name, "workers": list}, "The site %s does not rest any more: %d of %d workers remember it.", name, workers, len(list))
}
