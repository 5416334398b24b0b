package rotation

// hash is FNV-1a over a and b, with the bits spread afterwards: the same on every worker.
func hash(a, b string) uint64 {
	h := uint64(14695981039346656037)
	for _, s := range [2]string{a, b} {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
		h = (h ^ 0xff) * 1099511628211
	}
	return spread(h)
}

// spread is a step of MurmurHash3: FNV leaves the high bits of short texts alike.
func spread(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	return h ^ h>>33
}

// aged is a map that forgets by age: when its young half is full, the old half goes. A key that is asked for is young again.
type aged[V any] struct{ young, old map[uint64]V }

// most bounds what is remembered of targets, sessions, and pairs of proxy and host.
const most = 1 << 16

func (a *aged[V]) get(key uint64) (v V, ok bool) {
	if v, ok = a.young[key]; ok {
		return v, true
	}
	if v, ok = a.old[key]; ok {
		delete(a.old, key)
		a.put(key, v)
	}
	return v, ok
}

func (a *aged[V]) put(key uint64, v V) {
	if a.young == nil || len(a.young) >= most/2 {
		a.young, a.old = map[uint64]V{}, a.young
	}
	a.young[key] = v
}

func (a *aged[V]) drop(key uint64) {
	delete(a.young, key)
	delete(a.old, key)
}

func (a *aged[V]) len() int { return len(a.young) + len(a.old) }
