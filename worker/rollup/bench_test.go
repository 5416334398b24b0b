package rollup_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/rollup"
)

func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6
}

func TestBookOfADayIsSmall(t *testing.T) {
	before := heap()
	b := rollup.NewBook()
	fill(b)
	day := heap() - before
	if day > 10 {
		t.Errorf("a day of 10,000 requests an hour: got %.1f MB, want under 10", day)
	}
	for i := range 300_000 { // five minutes of 1,000 a second
		b.AddAttempt(rollup.AttemptFact{Proxy: "p1", Status: 200})
		if i%5000 == 0 {
			fleet{}.storeAll(b)
		}
	}
	if flood := heap() - before; flood > day*1.2 {
		t.Errorf("after a flood: got %.1f MB, want no more than the day's %.1f", flood, day)
	}
	t.Logf("a day: %.1f MB", day)
	runtime.KeepAlive(b)
}

func BenchmarkFacts(b *testing.B) {
	book := rollup.NewBook()
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		book.AddAttempt(rollup.AttemptFact{Proxy: "p1", Status: 200, Duration: time.Second, Bytes: 9000, At: now})
		book.AddJob(rollup.JobFact{Queue: "default", Outcome: jobs.Succeeded, Policy: "exponential/3", Attempts: 1, Duration: time.Second, At: now})
	}
}

func BenchmarkDay(b *testing.B) {
	before := heap()
	book := rollup.NewBook()
	fill(book)
	megabytes := heap() - before
	for name, query := range map[string]func(){
		"Series":   func() { book.Series(24) },
		"ByProxy":  func() { book.ByProxy(24) },
		"ByPolicy": func() { book.ByPolicy(24) },
		"Retries":  func() { book.Retries() },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				query()
			}
			b.ReportMetric(megabytes, "MB")
		})
	}
}

// BenchmarkByProxy asks a fleet of that many proxies, each of them used in each hour: equally, at random, or the more the later
// its id. It turns between two numbers of hours, so that no answer is given twice.
func BenchmarkByProxy(b *testing.B) {
	for _, proxies := range []int{1000, 9000} {
		for _, loads := range []string{"equal", "random", "rising"} {
			book := loaded(b, proxies, map[string]func(int) int{
				"equal": func(int) int { return 1 }, "random": func(int) int { return rand.IntN(1e6) }, "rising": func(i int) int { return i },
			}[loads])
			for _, hours := range []int{1, 12, 24} {
				b.Run(fmt.Sprintf("proxies=%d/loads=%s/hours=%d", proxies, loads, hours), func(b *testing.B) {
					for turn := 0; b.Loop(); turn = 1 - turn {
						book.ByProxy(hours + turn)
					}
				})
			}
		}
	}
}

// loaded is a fleet's book of a day.
func loaded(b *testing.B, proxies int, attempts func(i int) int) *rollup.Book {
	b.Helper()
	book := rollup.NewBook()
	for hour := range 24 {
		sum, rows := rollup.NewSum(rollup.Proxies), []byte(nil)
		for i := range proxies {
			rows = record(rows, fmt.Sprintf("p%04d", i), int64(attempts(i)), 1, 0, 0, 9000, 700)
		}
		if err := sum.Add(rows); err != nil {
			b.Fatal(err)
		}
		book.Put(time.Now().Add(-time.Duration(hour)*time.Hour), sum)
	}
	return book
}

// BenchmarkSum adds up an hour of 100 workers with 1,000 proxies each, and puts it into a book.
func BenchmarkSum(b *testing.B) {
	worker := rollup.NewBook()
	for i := range 40_000 {
		worker.AddAttempt(rollup.AttemptFact{Proxy: fmt.Sprintf("p%012x", i%1000), Status: 200, Bytes: 9000, Duration: time.Second})
	}
	book := rollup.NewBook()
	for _, p := range worker.Changed() {
		b.Run(string(p.Kind), func(b *testing.B) {
			for b.Loop() {
				sum := rollup.NewSum(p.Kind)
				for range 100 {
					if err := sum.Add(p.Data); err != nil {
						b.Fatal(err)
					}
				}
				book.Put(p.Hour, sum)
			}
		})
	}
}
