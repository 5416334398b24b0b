package rotation_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/rotation"
)

func TestPicksLeaveTestsToOthersWhileAProxyIsReady(t *testing.T) {
	for _, s := range every() {
		synctest.Test(t, func(t *testing.T) {
			p := pool(t, s, 3, nil)
			p.ForceOpen("p0", time.Second, "test")
			time.Sleep(time.Second)
			p.LeaveProbes(true)
			for _, need := range []rotation.Need{{}, {Exclude: []string{"p1"}}} {
				if got := picks(t, p, 100, need); got["p0"] != 0 {
					t.Errorf("%s, %+v: picks = %v, want none of p0", s, need, got)
				}
			}
			for i := range 20 {
				if got := picks(t, p, 2, rotation.Need{Session: fmt.Sprint(i)}); got["p0"] != 0 {
					t.Errorf("%s: session %d went to p0, which is due for a test", s, i)
				}
			}
			named := take(t, p, rotation.Need{ID: "p0"})
			if !named.IsProbe() {
				t.Errorf("%s: the pick that names p0 is no test", s)
			}
			named.Release()
			p.LeaveProbes(false)
			if got := picks(t, p, 100, rotation.Need{}); got["p0"] == 0 {
				t.Errorf("%s: picks = %v, want p0 tested again", s, got)
			}
		})
	}
}

func TestProxyThatIsDueIsTakenWhenNoOtherIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, rotation.RoundRobin, 2, nil)
		p.LeaveProbes(true)
		p.ForceOpen("p0", time.Second, "test")
		p.ForceOpen("p1", time.Minute, "test")
		time.Sleep(time.Second)
		for _, need := range []rotation.Need{{}, {Session: "s"}, {Exclude: []string{"p0"}}} {
			l := take(t, p, need)
			if l.ID() != "p0" {
				t.Errorf("%+v: got %s, want p0, which is all there is", need, l.ID())
			}
			l.Release()
		}
	})
}

func TestDueAreThoseWhoseOpenTimeIsOverAndThatNobodyTests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, rotation.RoundRobin, 4, nil)
		due := func(want ...string) {
			t.Helper()
			got := p.Probeable()
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("due = %q, want %q", got, want)
			}
		}
		p.ForceOpen("p0", time.Second, "test")
		p.ForceOpen("p1", time.Second, "test")
		p.ForceOpen("p2", time.Minute, "test")
		due()
		time.Sleep(time.Second)
		due("p0", "p1")
		good, bad := take(t, p, rotation.Need{ID: "p0"}), take(t, p, rotation.Need{ID: "p1"})
		due()
		good.Report(rotation.Verdict{Kind: rotation.Relayed})
		bad.Release()
		due("p1")
		bad = take(t, p, rotation.Need{ID: "p1"})
		bad.Report(rotation.Verdict{Kind: rotation.ProxyFault})
		due()
	})
}
