package admin

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// ProxyRow is a proxy in a list: its state as this worker sees it, and its counts of the whole fleet in 24 hours. The scopes
// differ on purpose: each worker has its own breakers, but one worker makes too few attempts to compare proxies.
type ProxyRow struct {
	ProxyID string   `json:"proxy_id"`
	Region  string   `json:"region"`
	Tags    []string `json:"tags"`
	// State is the state of the breaker, or "avoided" while there is a finding of another worker.
	State string `json:"state"`
	// Reason is why the breaker opened, if it is known. AvoidedBy is the worker that found the proxy dead.
	Reason    string `json:"reason"`
	AvoidedBy string `json:"avoided_by"`
	Failures  int    `json:"failures"`
	// Since is when the state changed last; NextTest is when the proxy is tried again. Both may be null.
	Since    *time.Time `json:"since"`
	NextTest *time.Time `json:"next_test_time"`
	// Bans is the number of sites for which the proxy cools down now, after a ban or a Retry-After.
	Bans     int   `json:"bans"`
	InFlight int   `json:"in_flight"`
	Attempts int64 `json:"attempts"`
	// Failed counts the failed attempts, whatever the fault.
	Failed     int64          `json:"failed"`
	Classes    rollup.Classes `json:"classes"`
	AvgLatency float64        `json:"avg_latency"` // seconds
	// Unusual is the site at which the proxy's share of 4xx is unusual, as this worker sees it; null without such a site.
	Unusual *rollup.Unusual `json:"unusual_4xx"`
}

// proxyList is the order in which proxies are listed: those that cannot be used first, then those with bans, or an unusual share
// of 4xx, then the largest share of failures. It holds ids only, because there may be 100,000 of them. Rows are made for one
// page.
type proxyList struct {
	order   []string
	counts  map[string]int // by state of the breaker
	did     map[string]rollup.Proxy
	reasons map[string]string
	bans    map[string]int // of those that have any
	unusual map[string]rollup.Unusual
}

// listProxies makes the list.
func (a *admin) listProxies(ctx context.Context) (*proxyList, error) {
	book := a.bookNow(ctx)
	list := &proxyList{counts: map[string]int{}, did: map[string]rollup.Proxy{}, reasons: map[string]string{}, bans: map[string]int{}}
	if a.Unusual != nil {
		list.unusual = a.Unusual()
	}
	for _, p := range book.ByProxy(24) {
		list.did[p.ProxyID] = p
	}
	// The book of this worker comes last, because the rows show the breakers of this worker, and its book has their reasons.
	for _, from := range []*rollup.Book{book, a.Book} {
		for _, e := range from.BreakerEvents(time.Now().Add(-24 * time.Hour)) {
			if e.ToState == breaker.Open.String() {
				list.reasons[e.ProxyID] = e.Reason
			}
		}
	}
	var places []place
	// One pass over the pool. Conditions takes the pool's lock for a part at a time, so picks go on.
	for c := range a.Pool.Conditions() {
		list.counts[c.State.String()]++
		if c.Cooldowns > 0 {
			list.bans[c.ID] = c.Cooldowns
		}
		places = append(places, place{c.ID, list.troubleOf(c)})
	}
	// Equal proxies are ordered by id. Otherwise rows could move between two pages.
	slices.SortFunc(places, func(a, b place) int { return cmp.Or(cmp.Compare(b.trouble, a.trouble), cmp.Compare(a.id, b.id)) })
	list.order = make([]string, len(places))
	for i, p := range places {
		list.order[i] = p.id
	}
	return list, nil
}

// place has the values that order a proxy in the list.
type place struct {
	id      string
	trouble float64
}

// troubleOf ranks a proxy: a proxy with a higher rank comes earlier in the list.
func (l *proxyList) troubleOf(c rotation.Condition) (trouble float64) {
	switch _, unusual := l.unusual[c.ID]; {
	case c.State == breaker.Open:
		trouble = 30
	case c.State == breaker.HalfOpen:
		trouble = 20
	case c.IsAvoided:
		trouble = 10
	case c.Cooldowns > 0 || unusual:
		trouble = 5
	}
	// The share is at most 1, so it orders only proxies of the same rank.
	if did := l.did[c.ID]; did.TotalAttempts >= minAttempts {
		trouble += float64(did.FailureCount) / float64(did.TotalAttempts)
	}
	return trouble
}

// minAttempts is how many attempts a proxy must have before its share of failures counts in the order.
const minAttempts = 5

// proxyRows returns the rows of some proxies, without those that have left the pool. It reads the pool again, so the rows are
// current although their order is up to a period old.
func (a *admin) proxyRows(list *proxyList, ids []string) []ProxyRow {
	rows := make([]ProxyRow, 0, len(ids))
	for _, id := range ids {
		s, found := a.Pool.StatusOf(id)
		if !found {
			continue
		}
		did := list.did[id]
		row := ProxyRow{
			ProxyID: id, Region: s.Region, Tags: orEmpty(s.Tags), State: s.State.String(), Failures: s.Failures, Since: timeOrNull(s.LastChange),
			NextTest: timeOrNull(s.NextTest), Bans: list.bans[id], InFlight: s.Inflight, Attempts: did.TotalAttempts, Failed: did.FailureCount,
			Classes: did.Classes, AvgLatency: did.AvgLatency.Seconds(),
		}
		if u, found := list.unusual[id]; found {
			row.Unusual = &u
		}
		// A finding matters only while the breaker of this worker is closed, because an open breaker already excludes the proxy.
		if s.State != breaker.Closed {
			row.Reason = shorten(list.reasons[id])
		} else if !s.AvoidedUntil.IsZero() {
			row.State, row.AvoidedBy, row.NextTest = "avoided", s.AvoidedBy, timeOrNull(s.AvoidedUntil)
		}
		rows = append(rows, row)
	}
	return rows
}

// proxies lists the proxies whose id, region, state or tags contain a text, page by page. The list may be a
// period old. If it is made again between two pages, a proxy may be skipped or repeated.
func (a *admin) proxies(w http.ResponseWriter, r *http.Request) error {
	p, err := pageOf(r)
	if err != nil {
		return err
	}
	list, _, err := a.view.proxies.get(r.Context())
	switch {
	case err != nil:
		return err
	case list == nil:
		return failure{status: http.StatusServiceUnavailable, code: "unavailable", message: "the proxies are being counted; ask again"}
	}
	ids := list.order
	if p.search != "" {
		// All pages share the order, so the search works on a copy.
		ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !a.matches(id, p.search) })
	}
	return reply(w, map[string]any{"total": len(ids), "proxies": a.proxyRows(list, rowsOf(p, ids))})
}

// matches reports whether a proxy fits a search, which is in lower case. The id is compared first, because
// the other values need the lock of the pool.
func (a *admin) matches(id, search string) bool {
	if strings.Contains(strings.ToLower(id), search) {
		return true
	}
	s, found := a.Pool.StatusOf(id)
	return found && (strings.Contains(strings.ToLower(s.Region), search) || strings.Contains(s.State.String(), search) ||
		slices.ContainsFunc(s.Tags, func(tag string) bool { return strings.Contains(strings.ToLower(tag), search) }))
}
