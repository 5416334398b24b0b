package rotation

// hash is FNV-1a over a and b, with the bits spread afterwards. It is the same on every worker.
func hash(a, b string) uint64 {
	h := uint64(14695981039346656037)
	for _, s := range [2]string{a, b} {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
		// The separator keeps ("a", "bc") and ("ab", "c") apart. No UTF-8 text holds this byte.
		h = (h ^ 0xff) * 1099511628211
	}
	return mixBits(h)
}

// mixBits is a step of MurmurHash3: with FNV alone, short strings have similar high bits.
func mixBits(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	// Without it, two similar names would get the same slot of a table by their low bits.
	return h ^ h>>33
}

// generations is a bounded map with two halves: when the young half is full, the old half is dropped. A key that is read becomes
// young.
type generations[V any] struct{ young, old map[uint64]V }

// maxRemembered bounds the moved sessions and the pairs of proxy and host that are remembered. Both are bounded
// by count, because publishers choose sessions and hosts.
const maxRemembered = 1 << 16

// get returns the value of a key and makes the key young.
func (a *generations[V]) get(key uint64) (v V, ok bool) {
	if v, ok = a.young[key]; ok {
		return v, true
	}
	if v, ok = a.old[key]; ok {
		delete(a.old, key)
		a.put(key, v)
	}
	return v, ok
}

// put sets the value of a key. If the young half is full, the old half is forgotten.
func (a *generations[V]) put(key uint64, v V) {
	// The half that was young stays readable as the old one, so about half of the keys survive.
	if a.young == nil || len(a.young) >= maxRemembered/2 {
		a.young, a.old = map[uint64]V{}, a.young
	}
	a.young[key] = v
}

// drop forgets a key.
func (a *generations[V]) drop(key uint64) {
	delete(a.young, key)
	delete(a.old, key)
}

// len counts the keys. One that is in both halves counts twice.
func (a *generations[V]) len() int { return len(a.young) + len(a.old) }
