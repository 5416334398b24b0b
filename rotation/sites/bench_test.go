package sites_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/rotation/sites"
)

// BenchmarkVisit is what an attempt at a known site costs: Enter and Report.
func BenchmarkVisit(b *testing.B) {
	for _, n := range []int{1, 20_000} {
		b.Run(fmt.Sprint(n, " sites"), func(b *testing.B) {
			t := sites.New(sites.Config{})
			names := make([]string, n)
			for i := range names {
				names[i] = fmt.Sprintf("shop%d.example.com", i)
				v, _, _ := t.Enter(names[i], sites.Ask{})
				v.Report(sites.Outcome{Kind: sites.Answered, Via: "p", Took: time.Second})
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				v, _, _ := t.Enter(names[i], sites.Ask{})
				v.Report(sites.Outcome{Kind: sites.Answered, Via: "p", Took: time.Second, Count: sites.Count{Class: sites.Class2xx}})
				if i++; i == n {
					i = 0
				}
			}
		})
	}
}
