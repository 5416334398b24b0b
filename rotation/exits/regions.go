package exits

import "slices"

const (
	// MaxRegions bounds the regions that are remembered of a gateway. Publishers choose them.
	MaxRegions = 64
	// refusedRegions is how many regions have to be refused by a gateway that has worked in none of them.
	refusedRegions = 3
	// failedWords is how many words in a row have to fail, and failedSites at how many sites that answered before.
	failedWords, failedSites = 10, 3
)

// Regions is what is known of a gateway, by the regions that jobs ask for. The empty region is that of jobs without one. The zero
// value knows nothing.
type Regions struct {
	list    []region // the latest used last
	refused []string // regions that were refused since anything worked, at most refusedRegions
}

// region is what is known of a gateway in one region.
type region struct {
	name   string
	worked bool
	words  []string // that failed since anything worked, at most failedWords
	failed int
	sites  []uint64 // that answered before and then failed, at most failedSites
}

// Worked notes that the gateway did its work in a region.
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

// Refused notes that the gateway refused the credentials in a region, and reports whether the credentials are wrong, and not only
// the region: the region is the owner's choice ("") or worked before, or three regions were refused and none works. Healthy says
// that the gateway worked lately.
func (r *Regions) Refused(name string, healthy bool) bool {
	if name == "" || r.get(name).worked {
		return true
	}
	if len(r.refused) < refusedRegions && !slices.Contains(r.refused, name) {
		r.refused = append(r.refused, name)
	}
	return len(r.refused) == refusedRegions && !healthy
}

// Failed notes that the gateway opened no tunnel for a word. It reports whether the gateway itself fails in the region: ten
// different words did in a row, at three sites or more that answered before. A gateway without words has another exit each time.
// The site is a hash, zero if it never answered.
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

// get finds or adds a region. A region in which nothing ever worked makes room first.
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
