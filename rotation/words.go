package rotation

import (
	"slices"
	"strings"

	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// words says which proxies of a list have a tag or are in a region. So what no proxy has is told at once, and a set is made from
// the few that may belong to it. Jobs add nothing to it but the filters that no proxy passes, up to a bound.
type words struct {
	all           []*entry
	tags, regions map[string][]*entry
	void          map[filter]struct{} // of words that all are there, but on no proxy together
}

// mostVoid bounds the filters that are known to match nothing; beyond it they are found out about anew.
const mostVoid = 1024

func newWords(list []*entry) *words {
	w := &words{all: list, tags: map[string][]*entry{}, regions: map[string][]*entry{}, void: map[filter]struct{}{}}
	for _, e := range list {
		for _, tag := range e.proxy.Tags {
			w.tags[tag] = append(w.tags[tag], e)
		}
		if region := e.proxy.Region; region != "" {
			w.regions[region] = append(w.regions[region], e)
		}
	}
	return w
}

// few is the proxies that have the rarest word of a filter.
func (w *words) few(f filter) []*entry {
	few := w.all
	if f.region != "" {
		few = w.regions[f.region]
	}
	if f.tags == "" {
		return few
	}
	for tag := range strings.SplitSeq(f.tags, ",") {
		if some := w.tags[tag]; len(some) < len(few) {
			few = some
		}
	}
	return few
}

// members is the proxies that pass a filter, whatever their state.
func (w *words) members(f filter) (list []*entry) {
	for _, e := range w.few(f) {
		if f.matches(e.proxy) {
			list = append(list, e)
		}
	}
	return list
}

// lacks reports whether it is known that no proxy passes a filter.
func (w *words) lacks(f filter) bool {
	f.host = ""
	if len(w.few(f)) == 0 {
		return true
	}
	_, void := w.void[f]
	return void
}

// isVoid notes that no proxy passes a filter.
func (w *words) isVoid(f filter) {
	if w.lacks(f) {
		return
	}
	if len(w.void) >= mostVoid {
		clear(w.void)
	}
	f.host = ""
	w.void[f] = struct{}{}
}

// matches reports whether a proxy passes the filter, whatever its state.
func (f filter) matches(p *proxylist.Proxy) bool {
	if f.region != "" && p.Region != f.region {
		return false
	}
	if f.tags == "" {
		return true
	}
	for tag := range strings.SplitSeq(f.tags, ",") {
		if !slices.Contains(p.Tags, tag) {
			return false
		}
	}
	return true
}

// candidates is those of the list that may fit a need, and perhaps others.
func (p *Pool) candidates(need Need) []*entry {
	if need.ID != "" {
		if e := p.byID[need.ID]; e != nil {
			return []*entry{e}
		}
		return nil
	}
	f := p.narrow(&need, nil, need.RegionStrict)
	switch {
	case p.words == nil:
		return p.list
	case p.words.lacks(f):
		return nil
	}
	return p.words.few(f)
}
