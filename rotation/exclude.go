package rotation

import "slices"

// excluded are the ids of proxies that a pick leaves out. The zero value leaves out none.
//
// An id lies in other memory than its entry, and a pick among many proxies waits for memory more than for anything else. So an
// entry holds a digit of its id. If no excluded id has that digit, the ids are not compared.
type excluded struct {
	ids    []string
	digits uint64 // of the ids, one bit each
}

func newExcluded(ids []string) excluded {
	x := excluded{ids: ids}
	for _, id := range ids {
		x.digits |= 1 << digitOf(id)
	}
	return x
}

// has reports whether a proxy is left out.
func (x *excluded) has(e *entry) bool {
	return x.digits>>e.digit&1 != 0 && slices.Contains(x.ids, e.proxy.ID)
}

// digitOf returns a number below 64, which is the same for equal ids.
func digitOf(id string) uint8 { return uint8(hash(id, "") % 64) }
