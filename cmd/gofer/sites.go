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
	"github.com/gofer-mq/gofer/worker/rollup"
)

// sitesCommand is the group of verbs about sites. Each worker has its own view of a site, so the answers of the workers
// are shown together.
func (a *app) sitesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "sites", Short: "List the sites of the fleet, and end the rest of one", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
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
	return cmd
}

// workerSites is one worker's answer. Total also counts the sites for which the answer has no room. Those that rest
// come first, so a short answer has what matters.
type workerSites struct {
	Worker string       `json:"worker"`
	Total  int          `json:"total"`
	Sites  []admin.Site `json:"sites"`
}

// sitesOf returns the names in the spelling of the workers that the name of a site stands for. What no site can be called is a
// usage error.
func sitesOf(text string) ([]string, error) {
	names, err := jobs.SiteNames(text)
	if err != nil {
		return nil, usage("%q is not a site: write HOST or HOST:PORT", text)
	}
	return names, nil
}

// askSites asks each worker for its sites, or for the one that is named. The answers are sorted by worker.
func askSites(ctx context.Context, s *session, request control.SiteRequest) ([]workerSites, error) {
	list, err := askFleet[workerSites](ctx, s, control.Sites, request, 0)
	slices.SortFunc(list, func(a, b workerSites) int { return cmp.Compare(a.Worker, b.Worker) })
	return list, err
}

// sitesLs prints a row for each site, those first that most workers let rest; or with --json the answer of each
// worker. Each worker's view is its own, so a site may rest in some and not in others.
func (a *app) sitesLs(ctx context.Context, s *session, _ []string) error {
	list, err := askSites(ctx, s, control.SiteRequest{})
	if err != nil {
		return err
	}
	for _, w := range list {
		if w.Total > len(w.Sites) {
			a.note("worker %s remembers %d sites; those shown are %d, the ones that rest first", w.Worker, w.Total, len(w.Sites))
		}
	}
	if a.json {
		return a.printJSON(list)
	}
	header, rows := siteTable(mergeSites(list))
	return a.list(header, rows, "No sites.")
}

// mergeSites puts the answers of the workers together: a site has one entry, and those come first that most workers let rest.
func mergeSites(list []workerSites) []*fleetSite {
	fleet := map[string]*fleetSite{}
	for _, w := range list {
		for _, site := range w.Sites {
			if fleet[site.Site] == nil {
				fleet[site.Site] = newFleetSite(site.Site)
			}
			fleet[site.Site].add(site)
		}
	}
	return slices.SortedFunc(maps.Values(fleet), func(a, b *fleetSite) int {
		return cmp.Or(b.resting()-a.resting(), cmp.Compare(b.Attempts, a.Attempts), cmp.Compare(a.Site, b.Site))
	})
}

// siteTable makes a row for each site.
func siteTable(list []*fleetSite) (header table.Row, rows []table.Row) {
	for _, f := range list {
		rows = append(rows, append(table.Row{f.Site, f.state()}, f.counts()...))
	}
	return append(table.Row{"site", "state"}, countColumns()...), rows
}

// countColumns are the columns of fleetSite.counts.
func countColumns() table.Row {
	return table.Row{"attempts", "classes", "bans", "failures", "next test", "why"}
}

// fleetSite is what the workers say of one site: how many see it in each state, the first test that any of them has planned, why
// one of them lets it rest, the sums of their counts, and the latest error.
type fleetSite struct {
	Site         string           `json:"site"`
	Workers      map[string]int   `json:"workers"`
	NextTestTime *time.Time       `json:"next_test_time"`
	Reason       string           `json:"reason"`
	Attempts     int64            `json:"attempts"`
	Classes      rollup.Classes   `json:"classes"`
	Bans         int64            `json:"bans"`
	Failures     map[string]int64 `json:"failures"`
	LastError    string           `json:"last_error"`
	LastErrorAt  *time.Time       `json:"last_error_at"`
}

// newFleetSite makes the maps, so that JSON shows {} and add need not check.
func newFleetSite(name string) *fleetSite {
	return &fleetSite{Site: name, Failures: map[string]int64{}, Workers: map[string]int{}}
}

// add adds what one worker says. A worker that lets the site rest names the reason. A reason of a worker that does
// not let it rest is kept only while there is no other.
func (f *fleetSite) add(s admin.Site) {
	f.Workers[s.State]++
	if s.NextTestTime != nil && (f.NextTestTime == nil || s.NextTestTime.Before(*f.NextTestTime)) {
		f.NextTestTime = s.NextTestTime
	}
	// The list of states is that of package sites.
	if s.State == "resting" || s.State == "testing" || f.Reason == "" {
		f.Reason = s.Reason
	}
	f.Attempts += s.Attempts
	f.Bans += s.Bans
	f.Classes.Merge(s.Classes)
	for fault, n := range s.Failures {
		f.Failures[fault] += n
	}
	// Of several workers' errors the newest one is shown.
	if s.LastErrorAt != nil && (f.LastErrorAt == nil || s.LastErrorAt.After(*f.LastErrorAt)) {
		f.LastError, f.LastErrorAt = s.LastError, s.LastErrorAt
	}
}

// state is the state of the site that is worst, and in how many workers it is in that if it is not in all. The
// order of the list is that of badness.
func (f *fleetSite) state() string {
	all := 0
	for _, n := range f.Workers {
		all += n
	}
	for _, state := range []string{"resting", "testing", "new", "up"} {
		switch n := f.Workers[state]; {
		case n == all:
			return state
		case n > 0:
			return fmt.Sprintf("%s in %d of %d", state, n, all)
		}
	}
	return "" // no worker is known
}

// counts are the cells of countColumns. The reason of a rest comes before the latest error.
func (f *fleetSite) counts() table.Row {
	var why []string
	if f.resting() > 0 {
		why = append(why, strings.ReplaceAll(f.Reason, "_", " "))
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
	for i, n := range []int64{c.Status2xx, c.Status3xx, c.Status4xx, c.Status5xx, c.None} {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", jobs.Classes()[i], n))
		}
	}
	return strings.Join(parts, ", ")
}

// resting counts the workers in which no attempt may begin at the site.
func (f *fleetSite) resting() int { return f.Workers["resting"] + f.Workers["testing"] }

// nextTest says in words when a test is planned: empty for none, "now" for one whose time has come.
func nextTest(at *time.Time) string {
	if at == nil {
		return ""
	}
	if wait := time.Until(*at).Round(time.Second); wait > 0 {
		return "in " + wait.String()
	}
	return "now"
}

// sitesShow prints a row for each worker that remembers the site. It fails if none does.
func (a *app) sitesShow(ctx context.Context, s *session, args []string) error {
	names, err := sitesOf(args[0])
	if err != nil {
		return err
	}
	var name string
	var list []workerSites
	for _, name = range names {
		if list, err = askSites(ctx, s, control.SiteRequest{Site: name}); err != nil {
			return err
		}
		// A worker that does not know the site answers with an empty list.
		if list = slices.DeleteFunc(list, func(w workerSites) bool { return len(w.Sites) == 0 }); len(list) > 0 {
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
		// Empty if the site has never changed its state in this worker.
		since := ""
		if site.LastStateChange != nil {
			since = time.Since(*site.LastStateChange).Round(time.Second).String()
		}
		// One worker's site is a fleet of one, so both tables have the same cells.
		one := newFleetSite(name)
		one.add(site)
		rows = append(rows, append(table.Row{w.Worker, site.State, since}, one.counts()...))
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
	names, err := sitesOf(args[0])
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
	return a.say(map[string]any{"site": name, "workers": list}, "The site %s does not rest any more: %d of %d workers remember it.", name, workers, len(list))
}
