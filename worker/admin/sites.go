package admin

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// sitesOf returns the names of the site that the parameter site means, in the spelling of the workers. Its error, 400, means that
// the value cannot name a site: a search with it would find nothing, which would look like an answer.
func sitesOf(written string) ([]string, error) {
	names, err := jobs.SiteNames(written)
	if err != nil {
		return nil, badRequest("site: " + strconv.Quote(clip(written)) + " is not HOST or HOST:PORT: " + err.Error())
	}
	return names, nil
}

// Site is a site as the API shows it.
type Site struct {
	// Site is host and port, the default port left out.
	Site string `json:"site"`
	// State is "new", "up", "resting" or "testing".
	State string `json:"state"`
	// Reason is why the site entered its state; empty if it is no longer known.
	Reason string `json:"reason"`
	// NextTestTime is null unless the site rests; LastStateChange until the first change.
	NextTestTime    *time.Time `json:"next_test_time"`
	LastStateChange *time.Time `json:"last_state_change"`
	// Attempts counts the attempts of this worker that ended at the site in the last 30 to 60 minutes; Classes counts them by the
	// class of the status, Bans counts bans, and Failures counts failures by fault: "proxy", "target", "pair", "unclear".
	Attempts int64            `json:"attempts"`
	Classes  rollup.Classes   `json:"classes"`
	Bans     int64            `json:"bans"`
	Failures map[string]int64 `json:"failures"`
	// LastError is the reason of the latest failed attempt, and LastErrorAt its time; empty and null if no failure is remembered.
	LastError   string     `json:"last_error"`
	LastErrorAt *time.Time `json:"last_error_at"`
}

// resetSite ends the rest of a site in every worker, and answers with this worker's view. A site that no worker remembers is
// answered with 404.
func (a *admin) resetSite(w http.ResponseWriter, r *http.Request) error {
	if a.Site == nil || a.ResetSite == nil {
		return notHere("sites cannot be reset here")
	}
	// A text that cannot name a site is unknown, too.
	names, _ := jobs.SiteNames(r.PathValue("site"))
	unknown := failure{status: http.StatusNotFound, code: "unknown_site", message: "no worker remembers a site of this name"}
	if len(names) == 0 {
		return unknown
	}
	// Another worker that remembers the site finds it by each of its names.
	name := names[max(0, slices.IndexFunc(names, func(name string) bool {
		_, found := a.Site(name)
		return found
	}))]
	known := false
	err := change(r, func(ctx context.Context) (err error) {
		known, err = a.ResetSite(ctx, name)
		return err
	})
	switch {
	case err != nil:
		return fmt.Errorf("reset site: %w", err)
	case !known:
		return unknown
	}
	a.view.fleetSites.expire()
	site, found := a.Site(name)
	if !found { // a site that a worker does not remember is new to it
		site = Site{Site: name, State: "new", Failures: map[string]int64{}}
	}
	a.Log.Info("site reset", "site", name, "peer", r.RemoteAddr)
	return reply(w, site)
}

// heldSites has the list of sites that pages show. Counts change with each attempt, so each event would repeat all sites.
// Therefore the list is renewed only when a state changes, or once a period.
type heldSites struct {
	mu   sync.Mutex // guards the fields below
	list []Site     // not changed any more
	at   time.Time
}

// hold returns the list, or the previous one if it has the same states and is not too old.
func (h *heldSites) hold(list []Site) []Site {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.at) >= fleetPeriod || !sameStates(h.list, list) {
		h.list, h.at = list, time.Now()
	}
	return h.list
}

// sameStates reports whether both lists have the same resting sites, and all other sites that are in both lists are in
// the same state. Other sites may be missing from a full list, which has only those with the most attempts.
func sameStates(before, now []Site) bool {
	type state struct {
		state, reason string
		next          time.Time
	}
	stateOf := func(s Site) state {
		out := state{s.State, s.Reason, time.Time{}}
		if s.NextTestTime != nil {
			out.next = *s.NextTestTime
		}
		return out
	}
	known := make(map[string]state, len(before))
	for _, s := range before {
		known[s.Site] = stateOf(s)
	}
	for _, s := range now {
		was, found := known[s.Site]
		switch {
		case found && was != stateOf(s), !found && (s.rests() || len(before) < maxSites):
			return false
		}
		delete(known, s.Site)
	}
	for _, was := range known {
		if (&Site{State: was.state}).rests() {
			return false
		}
	}
	return true
}

// rests reports whether the site rests: no attempt may begin, except for a test.
func (s *Site) rests() bool { return s.State == "resting" || s.State == "testing" }
