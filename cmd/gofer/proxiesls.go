package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/config"
	"github.com/gofer-mq/gofer/worker/control"
)

// proxiesLsCommand shows the pool as the workers have it.
func (a *app) proxiesLsCommand() *cobra.Command {
	var limit wholeFlag
	cmd := &cobra.Command{
		Use: "ls", Short: "List the proxies of the running workers, or those that are configured if none answers", Args: args(cobra.NoArgs),
		Long: `Lists the proxies of all workers that answer: those that cannot be used first, then those that sites have banned, then the others. Until
is when a proxy that cannot be used is tried again. Bans are the sites at which a proxy cools down now. Exits shows of a gateway how many
attempts through its exits failed; each attempt or session has an exit of its own. Why also names a site at which the proxy's share
of 4xx is far from that of the others.

Of a pool with more than 1,000 proxies each worker lists the first 1,000 of those that cannot be used. One worker is asked for the others.

If no worker answers, or all are of an older version, the list is what a worker would have that is started here: the proxies that the
environment, the file, the URL and the fleet's bucket name.`,
		Example: `  gofer proxies ls
  gofer proxies ls --limit 20
  gofer proxies ls --json | jq -r '.[] | select(.state == "open") | .id'`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.proxiesLs(cmd.Context(), int(limit)) },
	}
	cmd.Flags().Var(&limit, "limit", "how many at most; 0 means all")
	return cmd
}

// proxiesLs asks the workers. If none answers, or no server is there, it lists what is configured, and says so: the states
// of the proxies are not known then.
func (a *app) proxiesLs(ctx context.Context, limit int) error {
	if limit < 0 {
		return usage("--limit: below zero")
	}
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	s, err := a.connect(ctx, "proxies ls")
	if err != nil {
		return a.configuredLs(ctx, &c, nil, err, limit)
	}
	defer s.close()
	pool, silent, err := a.askPool(ctx, s, limit)
	// Three reasons why no worker answers: this user may not ask, workers run and are silent or too old, or none runs. Only the last
	// one says that the fleet is down, so each has its own note.
	if errors.Is(err, control.ErrNoWorkers) {
		switch {
		case errors.Is(err, bus.ErrPermission):
			a.note("%v", err)
		case len(silent) > 0:
			a.noteSilent(silent, errors.Is(err, control.ErrUnknownVerb))
		default:
			a.note("no worker answers")
		}
		a.note("this is what is configured here and in the fleet's bucket")
		return a.configuredLs(ctx, &c, s, nil, limit)
	}
	if err != nil {
		return err
	}
	return a.printPool(pool, limit)
}

// fleetProxy is a proxy as the workers have it. Each worker has its own breaker of a proxy, so the states may differ. The
// embedded facts are those of the worker in which the proxy is worst: an operator has to see that first.
type fleetProxy struct {
	control.Proxy

	// Workers is the number of workers by the state that the proxy has there. Workers whose state is unknown are not counted.
	Workers map[string]int `json:"workers"`
}

// fleetPool is the running pool of the fleet. One goroutine uses it.
type fleetPool struct {
	workers []control.ProxiesResponse // sorted by name: the first page of each, and all pages of the workers that pagesOf asked
	proxies map[string]*fleetProxy    // by id
}

// askPool asks all workers for their first page. The first page has the proxies with trouble, and a hash of all proxies. Workers
// with the same hash have the same proxies, so only one of them is asked for the other pages: the cost does not grow with the
// number of workers. askPool asks for no more than limit needs; zero means all.
func (a *app) askPool(ctx context.Context, s *session, limit int) (*fleetPool, []control.Silent, error) {
	list, silent, err := askAll[control.ProxiesResponse](ctx, a, s, control.Proxies, nil)
	if err != nil {
		return nil, silent, err
	}
	byName := func(a, b control.ProxiesResponse) int { return cmp.Compare(a.Worker, b.Worker) }
	slices.SortFunc(list, byName)
	pool := &fleetPool{proxies: map[string]*fleetProxy{}}
	groups := map[string][]control.ProxiesResponse{} // by the hash of their proxies
	for _, w := range list {
		groups[w.Pool] = append(groups[w.Pool], w)
	}
	// In a fixed order, so that two calls ask the same workers.
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		group := groups[key]
		// Any worker of the group would do: their pools have the same hash, and so the same proxies.
		first := &group[0]
		// The first page has the proxies with trouble, which are most of what a list with a limit shows.
		if len(first.Proxies) < first.Total && (limit == 0 || limit > len(first.Proxies)) {
			rest, err := a.pagesOf(ctx, s, first.Worker)
			if err != nil {
				return nil, silent, err
			}
			// If the worker has ended since, its first page may have more than the pages that followed.
			if len(rest) > len(first.Proxies) {
				first.Proxies = rest
			}
		}
		// Only workers of one pool are added together: a worker that does not have a proxy must not count it as closed.
		pool.add(group)
		pool.workers = append(pool.workers, group...)
	}
	slices.SortFunc(pool.workers, byName)
	return pool, silent, nil
}

// maxListed bounds a list, whatever a worker says of its length.
const maxListed = 1 << 20

// pagesOf asks one worker for its whole pool, page by page. If the worker ends meanwhile, it notes that the list is short.
// If the pool changes meanwhile, a proxy may be listed twice or not at all.
func (a *app) pagesOf(ctx context.Context, s *session, worker string) (all []control.Proxy, err error) {
	// From counts proxies and not pages, because the worker decides how many proxies a page holds: as many as its answer has room
	// for.
	for {
		page, err := askFleet[control.ProxiesResponse](ctx, s, control.Proxies, control.ProxiesRequest{Worker: worker, From: len(all)}, 1)
		if errors.Is(err, control.ErrNoWorkers) {
			a.note("worker %s does not answer any more: the list is not complete", worker)
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, page[0].Proxies...)
		if len(page[0].Proxies) == 0 || len(all) >= min(page[0].Total, maxListed) {
			return all, nil
		}
	}
}

// add adds workers with the same proxies. A proxy that a worker did not report is closed there, if the worker has reported
// all of its proxies that are not closed or are banned. Otherwise the worker is not counted for it.
func (p *fleetPool) add(group []control.ProxiesResponse) {
	complete := 0               // workers that have reported all proxies that are not closed or are banned
	namedBy := map[string]int{} // by id, how many of these workers reported the proxy
	for _, w := range group {
		// The worker puts the proxies with trouble first, so it has reported all of them if it reported Noted of them.
		noted := 0
		for i := range w.Proxies {
			if w.Proxies[i].IsNoted() {
				noted++
			}
		}
		isComplete := noted >= w.Noted
		if isComplete {
			complete++
		}
		for i := range w.Proxies {
			row := &w.Proxies[i]
			// A worker that has left out proxies with trouble says nothing about those that it did not name.
			if p.mergeProxy(row); isComplete {
				namedBy[row.ID]++
			} else {
				namedBy[row.ID] += 0 // an entry for the loop below
			}
		}
	}
	for id, n := range namedBy {
		if silent := complete - n; silent > 0 {
			p.proxies[id].Workers["closed"] += silent
		}
	}
}

// mergeProxy adds what one worker reports of a proxy. It adds up attempts, but not bans: the same site may have banned the
// proxy in several workers. Otherwise it keeps the report of the worker in which the proxy is worst, and of equal ones that
// with more failures.
func (p *fleetPool) mergeProxy(row *control.Proxy) {
	known := p.proxies[row.ID]
	if known == nil {
		known = &fleetProxy{Proxy: *row, Workers: map[string]int{}}
		p.proxies[row.ID] = known
	} else {
		// These are facts of the fleet. They are kept here, because the next step may replace the whole report.
		bans, inFlight := max(known.Bans, row.Bans), known.InFlight+row.InFlight
		tried, failed := known.ExitsTried+row.ExitsTried, known.ExitsFailed+row.ExitsFailed
		unusual := cmp.Or(known.Unusual, row.Unusual)
		if troubleRank(row) > troubleRank(&known.Proxy) || troubleRank(row) == troubleRank(&known.Proxy) && row.Failures > known.Failures {
			known.Proxy = *row
		}
		known.Bans, known.InFlight, known.ExitsTried, known.ExitsFailed, known.Unusual = bans, inFlight, tried, failed, unusual
	}
	known.Workers[row.State]++
}

// troubleRank orders proxies: the higher the rank, the less a proxy can be used. A state that only a newer worker knows counts
// like avoided.
func troubleRank(p *control.Proxy) int {
	switch {
	case p.State == "open":
		return 4
	case p.State == "half_open":
		return 3
	case p.State != "closed":
		return 2
	case p.Bans > 0 || p.Unusual != nil:
		return 1
	}
	return 0
}

// sortedProxies returns the proxies with the most trouble first. Proxies with equal trouble are sorted by id.
func (p *fleetPool) sortedProxies() []*fleetProxy {
	return slices.SortedFunc(maps.Values(p.proxies), func(a, b *fleetProxy) int {
		return cmp.Or(cmp.Compare(troubleRank(&b.Proxy), troubleRank(&a.Proxy)), cmp.Compare(a.ID, b.ID))
	})
}

// printPool prints the running pool, and on standard error its numbers.
func (a *app) printPool(pool *fleetPool, limit int) error {
	// Sorted before it is cut, so that a limit keeps the proxies with trouble.
	list := pool.sortedProxies()
	shown := list
	if limit > 0 {
		shown = list[:min(limit, len(list))]
	}
	a.notePool(pool, len(shown))
	if a.json {
		return a.printJSON(append([]*fleetProxy{}, shown...))
	}
	rows := make([]table.Row, len(shown))
	for i, p := range shown {
		rows[i] = table.Row{p.ID, p.Addr, p.Region, strings.Join(p.Tags, ","), p.stateText(), nextTest(p.Until), p.Bans, p.exitsText(), p.remark()}
	}
	none := "No proxies: the workers have none. gofer proxies add adds one."
	return a.list(table.Row{"id", "address", "region", "tags", "state", "until", "bans", "exits", "why"}, rows, none)
}

// notePool notes how many proxies are in which state, which workers' proxies fail all at once, and which workers did not
// report all of their proxies.
func (a *app) notePool(pool *fleetPool, shown int) {
	// The largest pool counts: workers whose pools differ for a moment, after a change, must not be added up.
	size, states := 0, map[string]int{}
	for _, w := range pool.workers {
		size = max(size, w.Total)
	}
	size = max(size, len(pool.proxies))
	for _, p := range pool.proxies {
		states[p.State]++
	}
	// Workers report proxies with trouble first, so those that nobody reported are closed.
	if missing := size - len(pool.proxies); missing > 0 {
		states["closed"] += missing
	}
	var parts []string
	for _, state := range []string{"closed", "open", "half_open", "avoided"} {
		if n := states[state]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, strings.ReplaceAll(state, "_", " ")))
		}
	}
	if size > 0 {
		text := fmt.Sprintf("proxies: %d (%s), workers: %d", size, strings.Join(parts, ", "), len(pool.workers))
		if shown < size {
			text += fmt.Sprintf("; shown are %d, those that cannot be used first", shown)
		}
		a.note("%s", text)
	}
	for _, w := range pool.workers {
		if w.FailingSince != nil {
			a.note("worker %s: all its proxies fail at once, since %s: look at its network and at their provider", w.Worker, w.FailingSince.UTC().Format(time.RFC3339))
		}
		if w.Noted > len(w.Proxies) {
			a.note("worker %s: %d proxies are not closed or are banned; it lists %d of them", w.Worker, w.Noted, len(w.Proxies))
		}
	}
}

// stateText is the worst state of the proxy, and in how many of the workers that report it, if these are not all.
func (p *fleetProxy) stateText() string {
	all := 0
	for _, n := range p.Workers {
		all += n
	}
	text := strings.ReplaceAll(p.State, "_", " ")
	// All workers in one state are the usual case and need no number.
	if n := p.Workers[p.State]; n < all {
		text += fmt.Sprintf(" in %d of %d", n, all)
	}
	return text
}

// exitsText says of a gateway how many attempts through its exits failed. Empty for a proxy without exits.
func (p *fleetProxy) exitsText() string {
	switch {
	case p.Kind != "gateway":
		return ""
	case p.ExitsTried == 0:
		return "none tried"
	}
	return fmt.Sprintf("%d of %d failed", p.ExitsFailed, p.ExitsTried)
}

// configuredLs lists what a worker would have that is started here. connectErr is why there is no session.
func (a *app) configuredLs(ctx context.Context, c *config.Config, s *session, connectErr error, limit int) error {
	pool, err := a.configuredPool(ctx, c, s, connectErr)
	if err != nil {
		return err
	}
	list := []listedProxy{}
	for _, p := range pool {
		list = append(list, proxyFacts(p))
	}
	if limit > 0 {
		list = list[:min(limit, len(list))]
	}
	if a.json {
		return a.printJSON(list)
	}
	var rows []table.Row
	for _, p := range list {
		rows = append(rows, table.Row{p.ID, p.Addr, p.Kind, strings.Join(p.Tags, ","), p.Region, p.Weight, p.MaxInflight, p.Rate, p.Source})
	}
	return a.list(table.Row{"id", "address", "kind", "tags", "region", "weight", "max in flight", "rate", "source"}, rows, "No proxy is named here or in the fleet's bucket.")
}
