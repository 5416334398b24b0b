package admin_test

import (
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/worker/admin"
	"github.com/gofer-mq/gofer/worker/metrics"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// BenchmarkScrape is a scrape of a worker with 10,000 proxies over HTTP, plain and compressed.
func BenchmarkScrape(b *testing.B) {
	const proxies = 10_000
	var lines strings.Builder
	for i := range proxies {
		fmt.Fprintf(&lines, "http://192.0.2.1:%d id=p%05d\n", i+1, i)
	}
	pool, gauges := newPool(b, lines.String()), someGauges()
	gauges.EachProxy = func() iter.Seq2[string, string] {
		return func(yield func(string, string) bool) {
			for id, state := range pool.States() {
				if !yield(id, state.String()) {
					return
				}
			}
		}
	}
	registry := metrics.New(gauges)
	for i := range proxies {
		registry.CountAttempt(rollup.AttemptFact{Proxy: fmt.Sprintf("p%05d", i), Status: 200, Bytes: int64(i * i)})
	}
	w := newWorker(b, func(c *admin.Config) { c.Metrics = registry })
	server := httptest.NewServer(w)
	defer server.Close()
	for _, query := range []string{"", "?proxies=top", "?proxies=all"} {
		for _, encoding := range []string{"identity", "gzip"} {
			b.Run("metrics"+query+"/"+encoding, func(b *testing.B) {
				var size int64
				for b.Loop() {
					size = read(b, server.URL+"/metrics"+query, encoding)
				}
				b.ReportMetric(float64(size)/1e3, "kB/scrape")
			})
		}
	}
}

// read asks for a page, takes it as it comes and returns its size.
func read(b *testing.B, url, encoding string) int64 {
	b.Helper()
	r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, url, nil)
	if err != nil {
		b.Fatal(err)
	}
	r.Header.Set("Accept-Encoding", encoding) // which keeps the client from unpacking
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	size, err := io.Copy(io.Discard, response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		b.Fatalf("GET %s: %s, %v", url, response.Status, err)
	}
	return size
}
