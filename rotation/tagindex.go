package rotation

import (
	"slices"
	"strings"
)

// tagIndex is an inverted index: which proxies of a list have a tag or are in a region. So a filter that no proxy matches is
// found at once, and a set is made from few candidates. Jobs add nothing to it but unmatched filters, up to
// maxUnmatched. Nothing but unmatched changes, so a set is made from it without the lock.
type tagIndex struct {
	all           []*entry
	tags, regions map[string][]*entry
	anyRegion     []*entry            // gateways in which a word chooses the region
	unmatched     map[filter]struct{} // filters whose tags and region exist, but on no proxy together
}

// maxUnmatched bounds the unmatched filters that are remembered. Beyond it, all are forgotten.
const maxUnmatched = 1024

// newTagIndex indexes a list. Gateways that serve any region are in every region's list.
func newTagIndex(list []*entry) *tagIndex {
	w := &tagIndex{all: list, tags: map[string][]*entry{}, regions: map[string][]*entry{}, unmatched: map[filter]struct{}{}}
	for _, e := range list {
		for _, tag := range e.proxy.Tags {
			w.tags[tag] = append(w.tags[tag], e)
		}
		if e.hasAnyRegion() {
			w.anyRegion = append(w.anyRegion, e)
			continue
		}
		if region := e.proxy.Region; region != "" {
			w.regions[region] = append(w.regions[region], e)
		}
	}
	// A gateway with any region counts in each region that some proxy has.
	for region := range w.regions {
		w.regions[region] = append(w.regions[region], w.anyRegion...)
	}
	return w
}

// otherRegion stands in a filter for every region that only gateways can serve, because a word chooses their region.
// Publishers choose these regions, so each does not get a set of its own. No name of a region holds a zero byte.
const otherRegion = "\x00"

// regionOf returns what stands for a region in a filter. A nil index, while the list changes, knows no regions.
func (w *tagIndex) regionOf(region string) string {
	if region == "" || w == nil || len(w.anyRegion) == 0 || w.regions[region] != nil {
		return region
	}
	return otherRegion
}

// rarest returns the proxies that have the rarest tag or region of a filter.
func (w *tagIndex) rarest(f filter) []*entry {
	candidates := w.all
	if f.region != "" {
		if candidates = w.regions[f.region]; candidates == nil {
			candidates = w.anyRegion
		}
	}
	if f.tags == "" {
		return candidates
	}
	for tag := range strings.SplitSeq(f.tags, ",") {
		if some := w.tags[tag]; len(some) < len(candidates) {
			// The shortest list is enough: matches checks all parts of the filter.
			candidates = some
		}
	}
	return candidates
}

// members returns the proxies that match a filter, whatever their state.
func (w *tagIndex) members(f filter) (list []*entry) {
	for _, e := range w.rarest(f) {
		if f.matches(e) {
			list = append(list, e)
		}
	}
	return list
}

// matchesNone reports whether it is known that no proxy matches a filter.
func (w *tagIndex) matchesNone(f filter) bool {
	// Cooldowns do not change which proxies match.
	f.cooldowns = cooldownKey{}
	if len(w.rarest(f)) == 0 {
		return true
	}
	_, void := w.unmatched[f]
	return void
}

// noteUnmatched remembers that no proxy matches a filter.
func (w *tagIndex) noteUnmatched(f filter) {
	if w.matchesNone(f) {
		return
	}
	// Forgetting all is cheap, and the filters that are still asked for come back at once.
	if len(w.unmatched) >= maxUnmatched {
		clear(w.unmatched)
	}
	f.cooldowns = cooldownKey{}
	w.unmatched[f] = struct{}{}
}

// matches reports whether a proxy matches the filter, whatever its state.
func (f filter) matches(e *entry) bool {
	if f.region != "" && e.proxy.Region != f.region && !e.hasAnyRegion() {
		return false
	}
	if f.tags == "" {
		return true
	}
	for tag := range strings.SplitSeq(f.tags, ",") {
		if !slices.Contains(e.proxy.Tags, tag) {
			return false
		}
	}
	return true
}

// candidates returns all proxies that can meet a need, and perhaps others.
func (p *Pool) candidates(need Need) []*entry {
	if need.ID != "" {
		if e := p.byID[need.ID]; e != nil {
			return []*entry{e}
		}
		return nil
	}
	f := p.filterFor(&need, &skips{}, need.RegionStrict)
	// An index that is being rebuilt cannot be asked, so every proxy is a candidate.
	switch {
	case p.index == nil:
		return p.list
	case p.index.matchesNone(f):
		return nil
	}
	return p.index.rarest(f)
}
