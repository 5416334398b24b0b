package exits

import "slices"

const (
	// MaxRegions bounds the regions that are remembered of a gateway. Publishers choose them.
	MaxRegions = 64
	// refusedRegions is how many regions a gateway has to refuse until its credentials count as wrong.
	refusedRegions = 3
	// failedWords is how many words in a row have to fail until the gateway counts as failed, and failedSites is at how many
	// sites that answered before.
	failedWords, failedSites = 10, 3
)

// Regions is what is known of a gateway, by the regions that jobs ask for. The empty region is that of jobs without one. The zero
// value knows nothing.
type Regions struct {
	list    []region // in the order of their latest use, at most MaxRegions
	refused []string // regions that were refused since the gateway worked last, at most refusedRegions
}

// region is what is known of a gateway in one region.
type region struct {
	name   string
	worked bool
	words  []string // the words that failed since the gateway worked last, at most failedWords
	failed int      // failures since then, several of one word counted once; at most failedWords
	sites  []uint64 // the sites of these failures that answered before, at most failedSites
}

// Worked notes that the gateway worked in a region.
func (r *Regions) Worked(name string) {
	x := r.get(name)
	x.worked, x.words, x.failed, x.sites = true, nil, 0, nil
	r.refused = nil
}

// LastWorked returns the region in which the gateway worked last; "" if there is none.
func (r *Regions) LastWorked() string {
	for _, x := range slices.Backward(r.list) {
		if x.worked && x.name != "" {
			return x.name
		}
	}
	return ""
}

// Refused notes that the gateway refused the credentials in a region, and reports whether the credentials are wrong. They are
// wrong if the region is the owner's own (""), if it worked before, or if three regions were refused and the gateway is not
// healthy. Otherwise the gateway may only lack the region.
func (r *Regions) Refused(name string, healthy bool) bool {
	if name == "" || r.get(name).worked {
		return true
	}
	if len(r.refused) < refusedRegions && !slices.Contains(r.refused, name) {
		r.refused = append(r.refused, name)
	}
	return len(r.refused) == refusedRegions && !healthy
}

// Failed notes that the gateway opened no tunnel for a word, and reports whether the gateway itself fails in the region. It
// does if ten different words failed in a row, at three or more sites that answered before. A gateway without words uses
// another exit each time, so each failure counts. site is a hash; zero means that the site never answered.
func (r *Regions) Failed(name, word string, site uint64) bool {
	x := r.get(name)
	if word == "" || !slices.Contains(x.words, word) {
		x.failed = min(x.failed+1, failedWords)
		if word != "" && len(x.words) < failedWords {
			x.words = append(x.words, word)
		}
	}
	if site != 0 && len(x.sites) < failedSites && !slices.Contains(x.sites, site) {
		x.sites = append(x.sites, site)
	}
	return x.failed == failedWords && len(x.sites) == failedSites
}

// get finds or adds a region, and moves it to the end of the list. A full list drops the oldest region that never worked, or
// else the oldest one.
func (r *Regions) get(name string) *region {
	last := len(r.list) - 1
	if last >= 0 && r.list[last].name == name {
		return &r.list[last]
	}
	x := region{name: name}
	i := slices.IndexFunc(r.list, func(x region) bool { return x.name == name })
	switch {
	case i >= 0:
		x = r.list[i]
	case len(r.list) == MaxRegions:
		i = max(0, slices.IndexFunc(r.list, func(x region) bool { return !x.worked }))
	}
	if i >= 0 {
		r.list = slices.Delete(r.list, i, i+1)
	}
	r.list = append(r.list, x)
	return &r.list[len(r.list)-1]
}
