package experiments_test

import (
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// overhead is how much longer a job takes than the same request through a bare http.Transport and the same proxies, both many
// at once, in turns. The site answers after a second.
func overhead(t *testing.T, s size) row {
	t.Helper()
	f := startFleet(t, 20)
	fetcher := f.fetcher(t, fetch.Config{})
	job := decode(t, "http://shop.test/slow/1000")
	client := bare(t, f.urls(t))
	with := func() bool { return fetcher.Do(t.Context(), job, &jobs.Progress{}).Result.Status == http.StatusOK }
	without := func() bool { return get(t, client, job.URL) }
	mean(t, s, 1, with) // opens the connections
	mean(t, s, 1, without)
	var a, b time.Duration
	for range s.turns {
		a += mean(t, s, 2, without)
		b += mean(t, s, 2, with)
	}
	a, b = a/time.Duration(s.turns), b/time.Duration(s.turns)
	return row{
		name: "6 mean time of " + count(s.atOnce) + " requests at once, beside a bare http.Transport", where: "loopback", aim: "< +5 %",
		baseline: milliseconds(a), gofer: milliseconds(b), gain: change(a.Seconds(), b.Seconds()), met: float64(b) < 1.05*float64(a),
	}
}

// mean is the mean time of many requests at once, some in a row each.
func mean(t *testing.T, s size, each int, do func() bool) time.Duration {
	t.Helper()
	var sum, failed atomic.Int64
	var wg sync.WaitGroup
	for i := range s.atOnce {
		wg.Go(func() {
			time.Sleep(time.Duration(i) * time.Second / time.Duration(s.atOnce)) // a steady stream, no burst
			for range each {
				from := time.Now()
				if !do() {
					failed.Add(1)
				}
				sum.Add(int64(time.Since(from)))
			}
		})
	}
	wg.Wait()
	if n := failed.Load(); n > 0 {
		t.Errorf("requests at once: got %d without an answer, want none", n)
	}
	return time.Duration(sum.Load() / int64(s.atOnce*each))
}

// bare takes the proxies in turn, as gofer does.
func bare(t *testing.T, proxies []*url.URL) *http.Client {
	t.Helper()
	var turn atomic.Uint64
	tr := &http.Transport{
		Proxy:        func(*http.Request) (*url.URL, error) { return proxies[turn.Add(1)%uint64(len(proxies))], nil },
		MaxIdleConns: 4096, MaxIdleConnsPerHost: 512, DisableCompression: true,
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func get(t *testing.T, client *http.Client, target string) bool {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, http.NoBody)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK
}
