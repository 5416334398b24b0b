package admin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/worker/admin"
)

// TestManySitesAndWorkersComePageByPage has 10,000 sites and 1,000 workers, of which one is not ready.
func TestManySitesAndWorkersComePageByPage(t *testing.T) {
	const sites, workers = 10_000, 1_000
	w := newWorker(t, func(c *admin.Config) {
		c.Sites = func(limit int) (list []admin.Site, total int) {
			for i := range min(limit, sites) {
				list = append(list, admin.Site{Site: fmt.Sprintf("s%04d.test", i), State: "up", Failures: map[string]int64{}})
			}
			return list, sites
		}
		c.Operator.Workers = func(context.Context) (any, []string, error) {
			var list []map[string]any
			for i := range workers {
				list = append(list, map[string]any{"worker": fmt.Sprintf("w%03d", workers-1-i), "ready": i != 500})
			}
			return list, nil, nil
		}
	})
	for query, want := range map[string]string{
		"sites":                              "10000: 100 from s0000.test to s0099.test",
		"sites?limit=1000&offset=9990":       "10000: 10 from s9990.test to s9999.test",
		"sites?offset=9223372036854775807":   "10000: none",
		"sites?search=S123&limit=4&offset=1": "10: 4 from s1231.test to s1234.test",
		"workers":                            "1000: 100 from w499 to w098",
		"workers?limit=2&offset=500":         "1000: 2 from w500 to w501",
		"workers?search=99&limit=5":          "19: 5 from w499 to w399",
		"workers?offset=1000":                "1000: none",
		"sites?offset=-1":                    "400",
		"workers?limit=0":                    "400",
	} {
		if got := pageText(t, w, query); got != want {
			t.Errorf("%s: got %q, want %q", query, got, want)
		}
	}
	if s := w.first(t, ""); s.SiteCount != sites || len(s.Sites) > 100 {
		t.Errorf("the page: got %d of %d sites, want few of %d", len(s.Sites), s.SiteCount, sites)
	}
}

// TestPagesOfTheStreamSkipNoSilentWorker has 60 workers, of which the first three fall silent.
func TestPagesOfTheStreamSkipNoSilentWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var list []admin.Worker
		for i := range 60 {
			list = append(list, admin.Worker{Worker: fmt.Sprintf("w%02d", i), Ready: true, Reasons: []string{}, Queues: []string{}, Proxies: map[string]int{}})
		}
		silent := 0
		w := newWorker(t, func(c *admin.Config) {
			c.Fleet = func(context.Context, int, int) ([]admin.Worker, error) { return slices.Clone(list[silent:]), nil }
		})
		w.firstNow(t)
		silent = 3
		time.Sleep(6 * time.Second)
		w.firstNow(t) // asks the fleet again, and does not wait for it
		synctest.Wait()
		time.Sleep(time.Second)
		s := w.firstNow(t)
		var answer struct {
			Total   int
			Workers []admin.Worker
		}
		w.get(t, fmt.Sprintf("/api/v1/live/workers?limit=50&offset=%d", len(s.Workers)), &answer)
		names := map[string]bool{}
		for _, row := range slices.Concat(s.Workers, answer.Workers) {
			names[row.Worker] = true
		}
		if !s.Workers[2].Silent || len(names) != 60 || s.WorkerCount != 60 || answer.Total != 60 {
			t.Errorf("got %d workers on the pages, totals %d and %d; want 60", len(names), s.WorkerCount, answer.Total)
		}
		for query, want := range map[string]string{
			"live/workers?limit=4":    "60: 4 from w00 to w03",
			"live/workers?search=W1":  "10: 10 from w10 to w19",
			"live/workers?offset=60":  "60: none",
			"live/workers?offset=bad": "400",
		} {
			if got := pageText(t, w, query); got != want {
				t.Errorf("%s: got %q, want %q", query, got, want)
			}
		}
	})
}

// pageText says which rows an answer has.
func pageText(t *testing.T, w *worker, query string) string {
	t.Helper()
	rec := w.do(request("GET", "/api/v1/"+query, ""))
	if rec.Code != 200 {
		return fmt.Sprint(rec.Code)
	}
	var answer struct {
		Total   int
		Sites   []struct{ Site string }
		Workers []struct{ Worker string }
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range answer.Sites {
		names = append(names, s.Site)
	}
	for _, w := range answer.Workers {
		names = append(names, w.Worker)
	}
	if len(names) == 0 {
		return fmt.Sprintf("%d: none", answer.Total)
	}
	return strings.TrimSpace(fmt.Sprintf("%d: %d from %s to %s", answer.Total, len(names), names[0], names[len(names)-1]))
}
