package experiments_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// breach kills proxies under load, one after the other. The time runs from the kill, so it holds the failures that have to
// come first as well.
func breach(t *testing.T, s size) row {
	t.Helper()
	f := startFleet(t, 20)
	opened := make(chan string, 100)
	fetcher := f.fetcher(t, fetch.Config{Observer: fetch.Observer{BreakersChanged: func(events []rotation.Event) {
		for _, e := range events {
			if e.To == breaker.Open {
				opened <- e.ProxyID
			}
		}
	}}})
	job := decode(t, "http://shop.test/ok")
	stop := repeat(16, func() { fetcher.Do(t.Context(), job, &jobs.Progress{}) })
	defer stop()
	var took []time.Duration
	for _, p := range f.proxies[:s.kills] {
		id, from := f.id(p), time.Now()
		p.Close()
		for got := range opened {
			if got == id {
				break
			}
		}
		took = append(took, time.Since(from))
	}
	worst := slices.Max(took)
	return row{
		name: "4 from a proxy's death under load to its breaker's opening, the longest of " + count(s.kills), where: "loopback", aim: "< 1 s",
		baseline: "never", gofer: milliseconds(worst), met: worst < time.Second,
	}
}

// repeat does something over and over, in so many goroutines, until it is stopped.
func repeat(width int, do func()) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range width {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					do()
				}
			}
		})
	}
	return func() {
		close(done)
		wg.Wait()
	}
}
