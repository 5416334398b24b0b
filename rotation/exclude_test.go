package rotation_test

import (
	"fmt"
	"testing"

	"github.com/gofer-mq/gofer/rotation"
)

// More proxies than digits: some have the digit of an excluded id.
func TestAnExcludedIDLeavesOutNoOtherProxy(t *testing.T) {
	const n = 200
	p := pool(t, rotation.RoundRobin, n, nil)
	picks(t, p, n, rotation.Need{}) // all have relayed a response
	excluded := map[string]bool{"p3": true, "p77": true, "p150": true}
	got := picks(t, p, n-len(excluded), rotation.Need{Exclude: []string{"p3", "p77", "p150"}})
	for i := range n {
		id, want := fmt.Sprint("p", i), 1
		if excluded[id] {
			want = 0
		}
		if got[id] != want {
			t.Errorf("%s was picked %d times, want %d", id, got[id], want)
		}
	}
}

// Random draws alone would hardly find it.
func TestTheOnlyProxyThatIsLeftAmongManyIsFound(t *testing.T) {
	const n, left = 500, "p1"
	var failed []string
	for i := range n {
		if id := fmt.Sprint("p", i); id != left {
			failed = append(failed, id)
		}
	}
	for _, s := range strategies() {
		p := pool(t, s, n, nil)
		if got := picks(t, p, 20, rotation.Need{Exclude: failed}); got[left] != 20 {
			t.Errorf("%s: picks = %v, want only %s", s, got, left)
		}
	}
}
