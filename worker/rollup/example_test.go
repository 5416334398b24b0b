package rollup_test

import (
	"fmt"
	"math/big"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// Two workers count; their flushes add up elsewhere, and a book that is fed with the sums speaks for the fleet.
func ExampleBook() {
	sums := map[string]*big.Int{}
	for range 2 {
		worker := rollup.NewBook()
		worker.Attempt(rollup.AttemptFact{Proxy: "p1", Status: 200, Duration: time.Second, Bytes: 512})
		worker.Job(rollup.JobFact{Outcome: jobs.Succeeded, Policy: "exponential/3", Attempts: 1, Duration: time.Second})
		delta := worker.Take()
		for name, text := range delta.Counts { // a real one stores delta.ID() along with them, so that a repetition is recognised
			n, _ := new(big.Int).SetString(text, 10)
			if sum := sums[name]; sum != nil {
				n.Add(n, sum)
			}
			sums[name] = n
		}
		worker.Done(delta.Seq)
	}
	fleet := rollup.NewBook()
	for name, sum := range sums {
		if err := fleet.Set(name, sum.String()); err != nil {
			fmt.Println(err)
		}
	}
	p := fleet.ByProxy(24)[0]
	fmt.Println(p.ProxyID, p.TotalAttempts, "attempts,", p.Bytes, "bytes,", p.AvgLatency, "each")
	total := fleet.Total(24)
	fmt.Println(total.Succeeded(), "jobs succeeded")
	// Output:
	// p1 2 attempts, 1024 bytes, 1s each
	// 2 jobs succeeded
}
