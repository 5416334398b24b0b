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
attempts through its exits failed; an exit is another one for each attempt or session. Why also names a site at which the proxy's share
of 4xx is far from that of the others.

Of a pool with more than 1,000 proxies each worker tells the first 1,000 of those that cannot be used; the others are asked of one worker.

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

// proxiesLs asks the workers, and reads what is configured if none answers or no server is there. A server that
// cannot be reached is no error while proxies are configured here.
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
	// Workers of an older version do not know the question, so their proxies cannot be listed.
	pool, silent, err := a.askPool(ctx, s, limit)
	// The fallback shows what a worker would have, and says so: states are not known without workers.
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

// fleetProxy is a proxy as the workers have it: what the worker says that is worst off, and in how many workers it is in which
// state.
type fleetProxy struct {
	control.Proxy

	Workers map[string]int `json:"workers"`
}

// fleetPool is the running pool of the fleet. It is used by one goroutine.
type fleetPool struct {
	workers []control.ProxiesResponse // by name: their first answers, with all proxies of a worker that was asked for each page
	proxies map[string]*fleetProxy
}

// askPool asks all workers for their first page. Pools of the same proxies are one; what its first pages lack is asked of one of
// its workers, so the cost does not grow with the number of workers. It asks for no more than limit needs; zero means all.
func (a *app) askPool(ctx context.Context, s *session, limit int) (*fleetPool, []control.Silent, error) {
	list, silent, err := askAll[control.ProxiesResponse](ctx, a, s, control.Proxies, nil)
	if err != nil {
		return nil, silent, err
	}
	byName := func(a, b control.ProxiesResponse) int { return cmp.Compare(a.Worker, b.Worker) }
	slices.SortFunc(list, byName)
	pool := &fleetPool{proxies: map[string]*fleetProxy{}}
	// Pool is a hash of the proxies, so workers with equal pools are asked once for what their first pages lack.
	groups := map[string][]control.ProxiesResponse{}
	for _, w := range list {
		groups[w.Pool] = append(groups[w.Pool], w)
	}
	// In a fixed order, so that two calls ask the same workers.
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		group := groups[key]
		first := &group[0]
		// The first page has the proxies with trouble, which are most of what a list with a limit shows.
		if len(first.Proxies) < first.Total && (limit == 0 || limit > len(first.Proxies)) {
			rest, err := a.pagesOf(ctx, s, first.Worker)
			if err != nil {
				return nil, silent, err
			}
			// A worker that has ended since may have sent more in its first answer.
			if len(rest) > len(first.Proxies) {
				first.Proxies = rest
			}
		}
		// Only workers of one pool are added together: a proxy that a worker does not have must not count as closed
		// there.
		pool.add(group)
		pool.workers = append(pool.workers, group...)
	}
	slices.SortFunc(pool.workers, byName)
	return pool, silent, nil
}

// maxListed bounds a list, whatever a worker says of its length.
const maxListed = 1 << 20

// pagesOf asks one worker for its whole pool, page by page. A worker that ends meanwhile leaves the list short,
// which is noted. A pool that changes meanwhile may give a proxy twice or not at all.
func (a *app) pagesOf(ctx context.Context, s *session, worker string) (all []control.Proxy, err error) {
	// From counts the proxies, not the pages: a worker may change the size of its pages.
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

// add adds the workers of one pool. A proxy about which a worker says nothing is closed there, if the worker has named all that
// are not; else it is not counted.
func (p *fleetPool) add(group []control.ProxiesResponse) {
	// A worker names the proxies with trouble first. It has named all of them if its page holds as many as it says
	// it has.
	naming, complete := map[string]int{}, 0 // by id, how many of the workers that are complete named it
	for _, w := range group {
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
			if p.take(row); isComplete {
				naming[row.ID]++
			} else {
				// The id is entered with zero, so that the loop below adds the workers that are complete.
				naming[row.ID] += 0
			}
		}
	}
	for id, n := range naming {
		if silent := complete - n; silent > 0 {
			p.proxies[id].Workers["closed"] += silent
		}
	}
}

// take takes over what one worker says of a proxy. The numbers of attempts are added up, as exits differ from
// worker to worker.
func (p *fleetPool) take(row *control.Proxy) {
	known := p.proxies[row.ID]
	if known == nil {
		// A copy, because the maps and counts below are of the fleet.
		known = &fleetProxy{Proxy: *row, Workers: map[string]int{}}
		p.proxies[row.ID] = known
	} else {
		// Attempts are of different workers and are added up. The same site may have banned the proxy in several
		// workers, so bans are not.
		bans, inFlight := max(known.Bans, row.Bans), known.InFlight+row.InFlight
		tried, failed := known.ExitsTried+row.ExitsTried, known.ExitsFailed+row.ExitsFailed
		unusual := cmp.Or(known.Unusual, row.Unusual)
		// The worst worker's facts are shown, and of equal ones those with more failures.
		if trouble(row) > trouble(&known.Proxy) || trouble(row) == trouble(&known.Proxy) && row.Failures > known.Failures {
			known.Proxy = *row
		}
		known.Bans, known.InFlight, known.ExitsTried, known.ExitsFailed, known.Unusual = bans, inFlight, tried, failed, unusual
	}
	known.Workers[row.State]++
}

// trouble orders proxies: the more of it, the less they can be used. An unknown state of a newer worker counts like
// avoided.
func trouble(p *control.Proxy) int {
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

// sorted returns the proxies with the most trouble first. Proxies with equal trouble are sorted by id.
func (p *fleetPool) sorted() []*fleetProxy {
	return slices.SortedFunc(maps.Values(p.proxies), func(a, b *fleetProxy) int {
		return cmp.Or(cmp.Compare(trouble(&b.Proxy), trouble(&a.Proxy)), cmp.Compare(a.ID, b.ID))
	})
}

// printPool prints the running pool, and on standard error its numbers.
func (a *app) printPool(pool *fleetPool, limit int) error {
	// Sorted before it is cut, so that a limit keeps the proxies with trouble.
	list := pool.sorted()
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

// notePool says how many proxies are in which state, which workers' proxies fail all at once, and whose states are
// not known. It goes to standard error, so that standard output is a table or JSON and nothing else.
func (a *app) notePool(pool *fleetPool, shown int) {
	// Total of a worker is the size of its pool; the list may be shorter than that.
	most, states := 0, map[string]int{}
	for _, w := range pool.workers {
		most = max(most, w.Total)
	}
	most = max(most, len(pool.proxies))
	for _, p := range pool.proxies {
		states[p.State]++
	}
	if missing := most - len(pool.proxies); missing > 0 {
		states["closed"] += missing // not listed, because they are not noted
	}
	var parts []string
	for _, state := range []string{"closed", "open", "half_open", "avoided"} {
		if n := states[state]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, strings.ReplaceAll(state, "_", " ")))
		}
	}
	if most > 0 {
		text := fmt.Sprintf("proxies: %d (%s), workers: %d", most, strings.Join(parts, ", "), len(pool.workers))
		if shown < most {
			text += fmt.Sprintf("; shown are %d, those that cannot be used first", shown)
		}
		a.note("%s", text)
	}
	for _, w := range pool.workers {
		if w.FailingSince != nil {
			a.note("worker %s: all its proxies fail at once, since %s: look at its network and at their provider", w.Worker, w.FailingSince.UTC().Format(time.RFC3339))
		}
		if w.Noted > len(w.Proxies) {
			a.note("worker %s: %d proxies are not closed or are banned; it tells %d of them", w.Worker, w.Noted, len(w.Proxies))
		}
	}
}

// stateText is the state, and in how many of the workers that tell of the proxy it is in that state if that is not
// all. A proxy with different states shows the worst one.
func (p *fleetProxy) stateText() string {
	all := 0
	for _, n := range p.Workers {
		all += n
	}
	text := strings.ReplaceAll(p.State, "_", " ")
	// All workers of one state are the usual case, and get no number.
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

// configuredLs lists what a worker would have that is started here. connectErr is why there is no session. Its
// columns differ from those of a running pool: nobody knows a state here.
func (a *app) configuredLs(ctx context.Context, c *config.Config, s *session, connectErr error, limit int) error {
	pool, err := a.configuredPool(ctx, c, s, connectErr)
	if err != nil {
		return err
	}
	list := []listedProxy{}
	for _, p := range pool {
		list = append(list, listed(p))
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
