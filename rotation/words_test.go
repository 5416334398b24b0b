package rotation_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/rotation"
)

// worded are a list's proxies of which every other one has the tag odd, the others even, each a country, and each a tag of its
// own.
func worded(i int) string {
	return fmt.Sprintf("tags=%s,own%d region=c%d", []string{"even", "odd"}[i%2], i, i%400)
}

// foreign are needs of ever new words that no proxy has, or none together with the others.
func foreign() map[string]func(i int) rotation.Need {
	return map[string]func(i int) rotation.Need{
		"a region":          func(i int) rotation.Need { return rotation.Need{Region: fmt.Sprint("x", i), RegionStrict: true} },
		"a tag":             func(i int) rotation.Need { return rotation.Need{Tags: []string{fmt.Sprint("x", i)}} },
		"one tag of two":    func(i int) rotation.Need { return rotation.Need{Tags: []string{"odd", fmt.Sprint("x", i)}} },
		"two tags together": func(int) rotation.Need { return rotation.Need{Tags: []string{"even", "odd"}} },
		"a tag in a region": func(int) rotation.Need { return rotation.Need{Tags: []string{"odd"}, Region: "c0", RegionStrict: true} },
	}
}

func TestWhatNoProxyHasIsToldAtOnce(t *testing.T) {
	p := pool(t, rotation.RoundRobin, many, worded)
	for name, need := range foreign() {
		atOnce(t, name, func(i int) {
			_, _, err := p.Pick(need(i))
			if none, ok := errors.AsType[*rotation.NoProxyError](err); !ok || none.Reason != rotation.Unmatched {
				t.Fatalf("%s: got %v, want unmatched", name, err)
			}
		})
	}
	atOnce(t, "a region that is only preferred", func(i int) {
		take(t, p, rotation.Need{Region: fmt.Sprint("x", i)}).Release()
	})
}

// atOnce sees that of many picks, after a first one, some take no time: a look at every proxy takes milliseconds, and a machine
// that is busy may take as long for any of them.
func atOnce(t *testing.T, name string, pick func(i int)) {
	t.Helper()
	pick(0)
	fastest := time.Hour
	for i := range 200 {
		begin := time.Now()
		pick(i + 1)
		fastest = min(fastest, time.Since(begin))
	}
	if fastest > 500*time.Microsecond {
		t.Errorf("%s: the fastest of 200 picks took %v, want about a microsecond", name, fastest)
	}
}

func TestWhatNoProxyHadIsFoundInTheNextList(t *testing.T) {
	p := pool(t, rotation.RoundRobin, 10, worded)
	for _, need := range foreign() {
		if _, _, err := p.Pick(need(0)); err == nil {
			t.Errorf("%+v is met", need(0))
		}
	}
	p.Replace(proxies(t, 1, func(int) string { return "tags=even,odd,x0 region=c0" }))
	for _, need := range foreign() {
		n := need(0)
		if n.Region == "x0" {
			n.Region = "c0"
		}
		if _, _, err := p.Pick(n); err != nil {
			t.Errorf("%+v after a list that has it: %v", n, err)
		}
	}
	p.Replace(proxies(t, 1, nil))
	for _, need := range foreign() {
		if _, _, err := p.Pick(need(0)); err == nil {
			t.Errorf("%+v is met by a list that has it no longer", need(0))
		}
	}
}

// BenchmarkWords is a pick among 100,000 proxies by words that no proxy has, or none together, by each of 200 regions, and by
// each of 400, which are more than there are sets for.
func BenchmarkWords(b *testing.B) {
	p := pool(b, rotation.RoundRobin, many, worded)
	needs := foreign()
	for _, n := range []int{200, 400} {
		needs[fmt.Sprintf("any of %d regions", n)] = func(i int) rotation.Need { return rotation.Need{Region: fmt.Sprint("c", i%n)} }
	}
	needs["one region"] = func(int) rotation.Need { return rotation.Need{Region: "c7"} }
	for name, need := range needs {
		b.Run(name, func(b *testing.B) {
			list := make([]rotation.Need, 1<<12)
			for i := range list {
				list[i] = need(i)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				l, _, _ := p.Pick(list[i%len(list)])
				l.Release()
				i++
			}
		})
	}
}
