package rollup_test

import (
	"fmt"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// Two workers count. The parts of their hours add up elsewhere, and a book that receives the sums answers for the fleet.
func ExampleBook() {
	fleet := rollup.NewBook()
	totals, proxies := rollup.NewSum(rollup.Totals), rollup.NewSum(rollup.Proxies)
	for range 2 {
		worker := rollup.NewBook()
		worker.AddAttempt(rollup.AttemptFact{Proxy: "p1", Status: 200, Duration: time.Second, Bytes: 512})
		worker.AddJob(rollup.JobFact{Outcome: jobs.Succeeded, Policy: "exponential/3", Attempts: 1, Duration: time.Second})
		for _, part := range worker.Changed() {
			sum := totals
			if part.Kind == rollup.Proxies {
				sum = proxies
			}
			if err := sum.Add(part.Data); err != nil {
				fmt.Println(err)
			}
			worker.Stored(part) // a real one first stores the part where all workers read it
		}
	}
	fleet.Put(time.Now(), totals)
	fleet.Put(time.Now(), proxies)
	p := fleet.ByProxy(24)[0]
	fmt.Println(p.ProxyID, p.TotalAttempts, "attempts,", p.Bytes, "bytes,", p.AvgLatency, "each")
	total := fleet.Total(24)
	fmt.Println(total.Succeeded(), "jobs succeeded")
	// Output:
	// p1 2 attempts, 1024 bytes, 1s each
	// 2 jobs succeeded
}
