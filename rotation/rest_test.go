package rotation_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/rotation"
)

func TestManyRestsThatEndAtOnceAreAllOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 200
		p := pool(t, rotation.RoundRobin, n, nil)
		for range n {
			l, _, err := p.Pick(rotation.Need{Host: "a.test:80"})
			if err != nil {
				t.Fatal(err)
			}
			l.Report(rotation.Verdict{Kind: rotation.PairFault, CoolDown: time.Minute})
		}
		time.Sleep(time.Minute)
		// The one whose rest began last stands at the end of the line.
		if _, _, err := p.Pick(rotation.Need{Host: "a.test:80", ID: fmt.Sprint("p", n-1)}); err != nil {
			t.Errorf("pick after every rest: %v, want the proxy", err)
		}
	})
}

func TestLateTripOfARestedProxyIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, rotation.RoundRobin, 1, nil)
		early, _, _ := p.Pick(rotation.Need{})
		late, _, _ := p.Pick(rotation.Need{})
		early.Report(rotation.Verdict{Kind: rotation.ProxyFault, Trip: time.Minute})
		time.Sleep(time.Minute)
		if !p.Usable() {
			t.Fatal("after its rest the proxy cannot be used")
		}
		late.Report(rotation.Verdict{Kind: rotation.ProxyFault, Trip: time.Minute})
		if p.Usable() {
			t.Error("the late trip is not seen: the proxy is called usable")
		}
		none, ok := errors.AsType[*rotation.NoProxyError](refusal(p, rotation.Need{}))
		if !ok || time.Until(none.RetryAt) != time.Minute {
			t.Errorf("pick: %+v, want a refusal for a minute", none)
		}
	})
}

func TestStrictRegionWithoutARegionDemandsNothing(t *testing.T) {
	p := pool(t, rotation.RoundRobin, 1, func(int) string { return "region=eu max_inflight=1" })
	if _, _, err := p.Pick(rotation.Need{RegionStrict: true}); err != nil {
		t.Fatalf("pick: %v, want a proxy", err)
	}
	none, ok := errors.AsType[*rotation.NoProxyError](refusal(p, rotation.Need{RegionStrict: true}))
	if !ok || none.Reason != rotation.Resting {
		t.Errorf("pick while it is busy: %+v, want resting", none)
	}
}

func refusal(p *rotation.Pool, need rotation.Need) error {
	_, _, err := p.Pick(need)
	return err
}
