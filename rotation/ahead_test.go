package rotation_test

import (
	"testing"

	"github.com/gofer-mq/gofer/rotation"
)

// TestChoicesDrawnAheadFollowTheList lets the list change after each pick: random numbers that were drawn for a list must choose
// from any other list, and leave out no proxy of it.
func TestChoicesDrawnAheadFollowTheList(t *testing.T) {
	for _, s := range []rotation.Strategy{rotation.Random, rotation.Performance} {
		p := drawPool(s, 1, nil)
		times := map[int]int{}
		for round := range 400 {
			size := []int{1, 100, 3}[round%3]
			p.Replace(drawList(size, nil))
			l := take(t, p, rotation.Need{})
			n := number(t, l)
			l.Release()
			if n >= size {
				t.Fatalf("%s: picked p%d of a list of %d proxies", s, n, size)
			}
			if size == 3 {
				times[n]++
			}
		}
		for i := range 3 {
			if times[i] < 15 { // 44 are expected
				t.Errorf("%s: p%d of three was picked %d times of 133, want a third", s, i, times[i])
			}
		}
		p.Replace(drawList(100, nil))
		different := map[int]bool{}
		for range 24 {
			l := take(t, p, rotation.Need{})
			l.Release()
			different[number(t, l)] = true
		}
		if len(different) < 12 { // 21 are expected
			t.Errorf("%s: 24 picks of a hundred proxies chose %d different ones, want 12 or more", s, len(different))
		}
	}
}

// TestAPickAllocatesNothing holds for a pool without gateways: a worker with many slots picks thousands of times a second.
func TestAPickAllocatesNothing(t *testing.T) {
	if raced {
		t.Skip("the race detector allocates")
	}
	for _, s := range rotation.Strategies() {
		p := drawPool(s, 100, nil)
		need := rotation.Need{Host: "a.test", Exclude: []string{"p1"}}
		got := testing.AllocsPerRun(1000, func() {
			l, _, _ := p.Pick(need)
			l.Release()
		})
		if got != 0 {
			t.Errorf("%s: a pick allocates %v times, want 0", s, got)
		}
	}
}
