package admin

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/worker/rollup"
)

// WorkerSites is the answer of one worker to the verb sites of worker/control. The answer has resting sites first. Total also
// counts the sites for which it has no room.
type WorkerSites struct {
	Worker string `json:"worker"`
	Total  int    `json:"total"`
	Sites  []Site `json:"sites"`
}

// FleetSite has the reports of all workers about one site. Make it with NewFleetSite, or by MergeSites.
type FleetSite struct {
	Site string `json:"site"`
	// State is the worst that any worker sees. Workers is the number of workers by the state that the site has there; workers
	// that do not remember it are not counted. Reason, a code, and LastStateChange are those of the worker that has seen State
	// for longest.
	State           string         `json:"state"`
	Workers         map[string]int `json:"workers"`
	Reason          string         `json:"reason"`
	LastStateChange *time.Time     `json:"last_state_change"`
	// NextTestTime is nil if the site rests in no worker.
	NextTestTime *time.Time `json:"next_test_time"`
	// Attempts and the sums below are of the last 30 to 60 minutes, because each worker keeps the counts of two half hours.
	Attempts int64          `json:"attempts"`
	Classes  rollup.Classes `json:"classes"`
	Bans     int64          `json:"bans"`
	// Failures counts the failed attempts by fault.
	Failures map[string]int64 `json:"failures"`
	// LastError is empty, and LastErrorAt nil, if no worker remembers a failure.
	LastError   string     `json:"last_error"`
	LastErrorAt *time.Time `json:"last_error_at"`
}

// NewFleetSite makes a site without reports.
func NewFleetSite(name string) *FleetSite {
	return &FleetSite{Site: name, Failures: map[string]int64{}, Workers: map[string]int{}}
}

// siteRank orders the states of a site, the worst first. A state of a later version comes last.
func siteRank(state string) int {
	states := []string{"resting", "testing", "new", "up"}
	if i := slices.Index(states, state); i >= 0 {
		return i
	}
	return len(states)
}

// Add adds the report of one worker.
func (f *FleetSite) Add(s Site) {
	order := siteRank(s.State) - siteRank(f.State)
	if len(f.Workers) == 0 || order < 0 || order == 0 && isEarlier(s.LastStateChange, f.LastStateChange) {
		f.State, f.Reason, f.LastStateChange = s.State, s.Reason, s.LastStateChange
	}
	f.Workers[s.State]++
	// Each worker tests a site, and the first test that succeeds ends the rest, so the earliest time counts.
	if isEarlier(s.NextTestTime, f.NextTestTime) {
		f.NextTestTime = s.NextTestTime
	}
	f.Attempts += s.Attempts
	f.Bans += s.Bans
	f.Classes.Merge(s.Classes)
	for fault, n := range s.Failures {
		f.Failures[fault] += n
	}
	// Of the errors of several workers, the newest one is shown.
	if s.LastErrorAt != nil && (f.LastErrorAt == nil || s.LastErrorAt.After(*f.LastErrorAt)) {
		f.LastError, f.LastErrorAt = s.LastError, s.LastErrorAt
	}
}

// isEarlier reports whether a time is before another one. nil is never.
func isEarlier(a, b *time.Time) bool { return a != nil && (b == nil || a.Before(*b)) }

// Resting is the number of workers in which no attempt may begin at the site, tests excepted.
func (f *FleetSite) Resting() int { return f.Workers["resting"] + f.Workers["testing"] }

// MergeSites merges the answers of workers: each site has one entry. The sites that rest in the most workers come first, then the
// sites with the most attempts. known is the largest number of sites that one worker knows. merged is not nil.
func MergeSites(list []WorkerSites) (merged []*FleetSite, known int) {
	fleet := map[string]*FleetSite{}
	for _, w := range list {
		known = max(known, w.Total)
		for _, site := range w.Sites {
			if fleet[site.Site] == nil {
				fleet[site.Site] = NewFleetSite(site.Site)
			}
			fleet[site.Site].Add(site)
		}
	}
	merged = slices.SortedFunc(maps.Values(fleet), func(a, b *FleetSite) int {
		return cmp.Or(b.Resting()-a.Resting(), cmp.Compare(b.Attempts, a.Attempts), cmp.Compare(a.Site, b.Site))
	})
	return append([]*FleetSite{}, merged...), known // JSON has [] for none
}

// fleetSites has the sites of all workers that answered. Nobody changes it after it was made.
type fleetSites struct {
	merged  []*FleetSite
	known   int
	answers map[string][]WorkerSites // by worker; several workers may have the same name
	asked   time.Time
}

// allSites is how many sites the answers of all workers have together, at most: each page would make each worker send all that
// it knows. In a large fleet every worker still names leastSites.
const allSites, leastSites = 2000, 5

// askSites asks all workers for their first sites.
func (a *admin) askSites(ctx context.Context) (fleetSites, error) {
	workers, _, _ := a.view.workers.get(ctx)
	out := fleetSites{answers: map[string][]WorkerSites{}, asked: time.Now()}
	list, err := a.FleetSites(ctx, min(max(allSites/max(len(workers), 1), leastSites), maxLimit))
	if err != nil {
		return out, err
	}
	for _, w := range list {
		out.answers[w.Worker] = append(out.answers[w.Worker], w)
	}
	out.merged, out.known = MergeSites(list)
	return out, nil
}

// siteList has the first sites of the fleet, or of one worker.
type siteList struct {
	sites []*FleetSite // not nil
	total int          // of sites that are listed; more than sites if a limit cut them
	// of is the only worker whose sites are listed; empty for all that answer. known is how many sites one worker remembers at
	// most: answers have only the first ones.
	of    string
	known int
	// missing are the workers that run and have not answered; not nil.
	missing []string
	isOpen  bool // the fleet is being asked for the first time
}

// sitesNow lists the sites of the watched worker, or of the fleet if watched is empty. Those of this worker stand for the fleet
// while it is alone or the fleet does not answer.
func (a *admin) sitesNow(ctx context.Context, watched string, own func() ([]Site, int)) siteList {
	workers, _, _ := a.view.workers.get(ctx)
	if watched == a.Worker || watched == "" && len(workers) < 2 {
		return a.ownSites(own)
	}
	fleet, known, err := a.view.fleetSites.get(ctx)
	switch {
	case watched == "" && (!known || err != nil):
		out := a.ownSites(own)
		out.isOpen = !known
		return out
	case watched != "":
		out := siteList{of: watched, isOpen: !known, missing: []string{}}
		out.sites, out.known = MergeSites(fleet.answers[watched])
		if fleet.answers[watched] == nil && known {
			out.missing = []string{watched}
		}
		out.total = len(out.sites)
		return out
	}
	out := siteList{sites: fleet.merged, total: len(fleet.merged), known: fleet.known, missing: []string{}}
	for _, name := range slices.Sorted(maps.Keys(workers)) {
		w := workers[name]
		// A worker that drains may end before it answers, and one that has just started was not asked.
		if fleet.answers[name] == nil && !w.Draining && w.StartedAt.Before(fleet.asked) {
			out.missing = append(out.missing, name)
		}
	}
	return out
}

// ownSites lists the sites of this worker.
func (a *admin) ownSites(own func() ([]Site, int)) siteList {
	list, total := own()
	out := siteList{sites: make([]*FleetSite, len(list)), total: total, of: a.Worker, known: total, missing: []string{}}
	for i, s := range list {
		out.sites[i] = NewFleetSite(s.Site)
		out.sites[i].Add(s)
	}
	return out
}

// maxMissing is how many workers without an answer a snapshot names.
const maxMissing = 10

// addSites adds the first sites of the watched worker or of the fleet, and which sites rest anywhere.
func (a *admin) addSites(ctx context.Context, s *Snapshot) {
	if a.Sites == nil {
		return
	}
	own := func() ([]Site, int) {
		sites, total := a.Sites(maxSites)
		return a.view.sites.hold(sites), total
	}
	list := a.sitesNow(ctx, "", own)
	for _, site := range list.sites[:min(len(list.sites), maxSites)] {
		if site.Resting() > 0 {
			s.resting = append(s.resting, site.Site)
		}
	}
	if s.Watched != "" {
		list = a.sitesNow(ctx, s.Watched, own)
	}
	s.Sites, s.SiteCount, s.SitesOf, s.SitesKnown = list.sites[:min(len(list.sites), maxSites)], list.total, list.of, list.known
	s.SitesMissing, s.SitesMissingCount = list.missing[:min(len(list.missing), maxMissing)], len(list.missing)
	s.isPartial = s.isPartial || list.isOpen
}

// awaitFleet waits for the first answers of the fleet. A stream gets them with a later event, but a single request needs them
// now.
func (a *admin) awaitFleet(ctx context.Context) {
	if workers, _, _ := a.view.workers.getWithin(ctx, fleetPeriod); len(workers) > 1 {
		_, _, _ = a.view.fleetSites.getWithin(ctx, fleetPeriod)
	}
}

// liveSites answers with a page of the sites of which the stream has the first ones, in its form and order.
func (a *admin) liveSites(w http.ResponseWriter, r *http.Request) error {
	p, err := pageOf(r)
	if err != nil {
		return err
	}
	watched, err := watchedOf(r)
	if err != nil {
		return err
	}
	if a.Sites == nil {
		return notHere("sites are not known here")
	}
	a.awaitFleet(r.Context())
	list := a.sitesNow(r.Context(), watched, func() ([]Site, int) {
		own, total := a.Sites(p.offset + p.limit)
		if p.search != "" {
			own, total = a.Sites(total)
		}
		return own, total
	})
	if p.search != "" {
		list.sites = slices.DeleteFunc(slices.Clone(list.sites), func(s *FleetSite) bool { return !strings.Contains(s.Site, p.search) })
		list.total = len(list.sites)
	}
	return reply(w, map[string]any{
		"total": list.total, "sites": rowsOf(p, list.sites), "of": list.of, "known": list.known, "missing": list.missing,
	})
}
