package totals

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
)

// witnesses tell by a few counters whether what a reader has read is still there: of each family one of the hour before the newest,
// which no worker makes anew after a purge; until there is such an hour, the newest one.
type witnesses struct {
	mu       sync.Mutex
	families map[string]*witness
}

type witness struct {
	hour           string
	newest, before counter
}

type counter struct{ name, sum string }

func newWitnesses() *witnesses { return &witnesses{families: map[string]*witness{}} }

// saw takes a counter as it was read.
func (w *witnesses) saw(name, sum string) {
	family, rest, _ := strings.Cut(name, ".")
	hour, _, _ := strings.Cut(rest, ".")
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.families[family]
	if f == nil {
		f = &witness{}
		w.families[family] = f
	}
	if hour > f.hour {
		f.hour, f.before = hour, f.newest
	}
	if hour == f.hour {
		f.newest = counter{name, sum}
	}
}

// sums are the witnesses' own, by name.
func (w *witnesses) sums() map[string]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]string{}
	for _, f := range w.families {
		c := f.before
		if c == (counter{}) {
			c = f.newest
		}
		out[c.name] = c.sum
	}
	return out
}

// less compares two sums as the server writes them, of any length; one that there is not is the least.
func less(a, b string) bool { return len(a) < len(b) || len(a) == len(b) && a < b }

// verify has the fleet's book begun anew when what was read is no longer there: a purge may leave the marks, and whoever follows a
// stream that was made anew waits for a number that is far away. What the server does not say now it says the next time.
func (r *Rollups) verify(ctx context.Context, c Counters) {
	if read := r.eventsMade.Load(); read != nil {
		if made, err := c.EventsMade(ctx); err == nil && !made.Equal(*read) {
			r.begin("the stream of events was made anew")
		}
	}
	if w := r.witnesses.Load(); w != nil {
		if w == r.asked && r.missing(ctx, c) {
			r.begin("some were purged")
		}
		r.asked, r.known = w, w.sums()
	}
}

// missing asks for what was known the time before: a replica may be behind.
func (r *Rollups) missing(ctx context.Context, c Counters) bool {
	if len(r.known) == 0 {
		return false
	}
	sums, err := c.RollupSums(ctx, slices.Collect(maps.Keys(r.known)))
	if err != nil {
		return false
	}
	for name, sum := range r.known {
		if less(sums[name], sum) {
			return true
		}
	}
	return false
}

// begin has the reader begin anew, also to look for broken counters.
func (r *Rollups) begin(why string) {
	r.cfg.Log.Warn("the fleet's rollups are read anew", "why", why)
	r.forgetBroken(r.toMend())
	select {
	case r.anew <- struct{}{}:
	default:
	}
}
