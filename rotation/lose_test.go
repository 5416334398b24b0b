package rotation_test

import (
	"testing"

	"github.com/gofer-mq/gofer/rotation"
)

// A proxy without any response may be dead, though every attempt through it is cancelled before that shows.
func TestAfterFiveLossesInARowAnAttemptMustEnd(t *testing.T) {
	p := pool(t, rotation.RoundRobin, 1, nil)
	lose := func(n int) {
		for range n {
			take(t, p, rotation.Need{}).Lose(false)
		}
	}
	wantMustEnd := func(after string, want bool) {
		t.Helper()
		l := take(t, p, rotation.Need{})
		if got := l.MustEnd(); got != want {
			t.Errorf("after %s an attempt must end: %v, want %v", after, got, want)
		}
		if l.Release(); l.MustEnd() {
			t.Error("an attempt that has ended must end")
		}
	}
	lose(4)
	wantMustEnd("four losses", false)
	lose(1)
	wantMustEnd("five losses", true)
	take(t, p, rotation.Need{}).Report(rotation.Verdict{Kind: rotation.Unclear})
	wantMustEnd("a failure without a response", true)
	take(t, p, rotation.Need{}).Lose(true)
	wantMustEnd("a loss when a response had begun", false)
	lose(5)
	take(t, p, rotation.Need{}).Report(rotation.Verdict{Kind: rotation.Relayed, Answered: true})
	wantMustEnd("a response", false)
}
