package admin_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/admin"
	"github.com/gofer-mq/gofer/worker/metrics"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// proxies asks for a page of proxies.
func (w *worker) proxies(t *testing.T, query string) (ids []string, list []admin.ProxyRow, total int) {
	t.Helper()
	var page struct {
		Total   int
		Proxies []admin.ProxyRow
	}
	testenv.Eventually(t, "the proxies are listed", func() bool { // the first list may take longer than a request waits for it
		return w.do(request("GET", "/api/v1/proxies", "")).Code == http.StatusOK
	})
	w.get(t, "/api/v1/proxies"+query, &page)
	for _, p := range page.Proxies {
		ids = append(ids, p.ProxyID)
	}
	return ids, page.Proxies, page.Total
}

func TestProxiesThatTroubleComeFirst(t *testing.T) {
	w := newWorker(t, func(c *admin.Config) {
		c.Pool = newPool(t, "http://192.0.2.1:1 id=good\nhttp://192.0.2.1:2 id=never-works\nhttp://192.0.2.1:3 id=half\nhttp://192.0.2.1:4 id=open region=eu\nhttp://192.0.2.1:5 id=found-dead tags=fast,residential\n"+
			"http://192.0.2.1:6 id=hardly-tried\n")
		c.Pool.ForceOpen("open", time.Hour, "test")
		c.Pool.Avoid("found-dead", time.Now().Add(time.Hour), "w2")
	})
	// Attempts, failures.
	for id, n := range map[string][2]int{"never-works": {5, 5}, "half": {6, 3}, "hardly-tried": {4, 4}, "good": {100, 0}} {
		for i := range n[0] {
			f := rollup.AttemptFact{Proxy: id, Status: 200}
			if i < n[1] {
				f.Status, f.Fault = 0, jobs.FaultProxy
			}
			w.book.AddAttempt(f)
		}
	}
	w.book.AddBreakerEvent(jobs.BreakerEvent{ProxyID: "open", FromState: "closed", ToState: "open", Reason: "connect"})
	w.book.AddBreakerEvent(jobs.BreakerEvent{ProxyID: "open", FromState: "open", ToState: "half_open", Reason: "a test begins"})
	ids, list, total := w.proxies(t, "")
	if want := []string{"open", "found-dead", "never-works", "half", "good", "hardly-tried"}; !slices.Equal(ids, want) || total != 6 {
		t.Fatalf("proxies: got %v of %d, want %v", ids, total, want)
	}
	if p := list[0]; p.State != "open" || p.Reason != "connect" || p.NextTest == nil || p.Region != "eu" {
		t.Errorf("open proxy: got %+v, want its state, why it opened, and when it is tested", p)
	}
	if p := list[1]; p.State != "avoided" || p.AvoidedBy != "w2" || p.NextTest == nil {
		t.Errorf("proxy that another worker found dead: got %+v", p)
	}
	if p := list[3]; p.Attempts != 6 || p.Failed != 3 || p.Classes.Status2xx != 3 {
		t.Errorf("proxy that fails half of the time: got %+v, want 3 of 6", p)
	}
	for query, want := range map[string]string{
		"?search=RESIDENTIAL": "[found-dead] 1", "?search=open": "[open] 1", "?search=eu": "[open] 1", "?search=nobody": "[] 0",
		"?limit=2&offset=2": "[never-works half] 6", "?offset=100": "[] 6",
	} {
		if ids, _, total := w.proxies(t, query); fmt.Sprint(ids, " ", total) != want {
			t.Errorf("%s: got %v %d, want %s", query, ids, total, want)
		}
	}
	for _, query := range []string{"?limit=0", "?offset=-1", "?offset=x"} {
		refusal(t, w.do(request("GET", "/api/v1/proxies"+query, "")), http.StatusBadRequest)
	}
}

// fleetOf has two workers, each with jobs in the last steps.
func fleetOf(workers ...admin.Worker) func(context.Context, int, int) ([]admin.Worker, error) {
	return func(context.Context, int, int) ([]admin.Worker, error) {
		at := time.Now().Add(-2*rollup.ShortStep).Unix() / 5 * 5
		out := slices.Clone(workers)
		for i := range out {
			var step rollup.Step
			step.At, step.Classes.Status2xx, step.Failed = at, int64(10*(i+1)), 1
			step.Latency.Observe(time.Second)
			out[i].Recent = []rollup.Step{step}
		}
		return out, nil
	}
}

// first is the first event of a stream that watches a worker, or all.
func (w *worker) first(t *testing.T, watched string) (s admin.Snapshot) {
	t.Helper()
	w.eventOf(t, "/api/v1/live?worker="+watched, &s)
	return s
}

// ended are the jobs of a series.
func ended(s admin.Series) (n int64) {
	for _, step := range s.Jobs {
		for _, count := range step {
			n += count
		}
	}
	return n
}

func TestThePageShowsTheWholeFleetOrOneWorker(t *testing.T) {
	w := newWorker(t, func(c *admin.Config) {
		c.Sites = nil
		c.Fleet = fleetOf(admin.Worker{Worker: "w1", Ready: true, Slots: 7, InFlight: 3}, admin.Worker{Worker: "w2", Slots: 5, InFlight: 1, Reasons: []string{"proxies: none"}})
	})
	all, one := w.first(t, ""), w.first(t, "w2")
	if ended(all.Recent) != 30 || all.Recent.Failed != 2 || all.Slots != 12 || all.InFlight != 4 || len(all.Recent.Jobs) != 24 || all.Recent.TotalP95 < 900 {
		t.Errorf("fleet: got %d jobs, %d failed, %d of %d slots; want 30, 2, 4 of 12", ended(all.Recent), all.Recent.Failed, all.InFlight, all.Slots)
	}
	if ended(one.Recent) != 20 || one.Slots != 5 || one.Watched != "w2" || len(one.Workers) != 2 {
		t.Errorf("one worker: got %d jobs, %d slots, %d workers listed; want 20, 5 and both", ended(one.Recent), one.Slots, len(one.Workers))
	}
	if all.Workers[0].Worker != "w2" || all.WorkerCount != 2 {
		t.Errorf("workers: got %+v, want the one that is not ready first", all.Workers)
	}
	if len(all.Problems) != 1 || all.Problems[0] != (admin.Problem{Level: "bad", Text: "worker w2 is not ready: proxies: none"}) {
		t.Errorf("problems: got %+v, want that w2 is not ready", all.Problems)
	}
}

func TestAWorkerThatNoLongerAnswersIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		both := fleetOf(admin.Worker{Worker: "w1", Ready: true}, admin.Worker{Worker: "w2", Ready: true, Slots: 5})
		gone := false
		w := newWorker(t, func(c *admin.Config) {
			c.Sites = nil
			c.Fleet = func(ctx context.Context, recent, minutes int) ([]admin.Worker, error) {
				list, err := both(ctx, recent, minutes)
				if gone {
					list = list[:1]
				}
				return list, err
			}
		})
		if s := w.firstNow(t); len(s.Problems) != 0 || s.Slots != 5 {
			t.Errorf("both answer: got problems %+v", s.Problems)
		}
		gone = true
		time.Sleep(6 * time.Second)
		w.firstNow(t) // asks the fleet again, and does not wait for it
		synctest.Wait()
		time.Sleep(time.Second)
		s := w.firstNow(t)
		if len(s.Problems) != 1 || s.Problems[0].Text != "worker w2 does not answer any more: look whether its process runs, and at its log" || !s.Workers[0].Silent || s.Slots != 0 || ended(s.Recent) == 0 {
			t.Errorf("w2 is silent: got problems %+v, workers %+v", s.Problems, s.Workers)
		}
		time.Sleep(3 * time.Minute)
		w.firstNow(t)
		synctest.Wait()
		time.Sleep(time.Second)
		if s := w.firstNow(t); len(s.Problems) != 0 || s.WorkerCount != 1 {
			t.Errorf("after three minutes: got problems %+v, %d workers; want it forgotten", s.Problems, s.WorkerCount)
		}
	})
}

// TestALateAnswerOfTheFleetIsNoFallOfTheRate has a fleet of steady jobs that answers one question and then none in time.
func TestALateAnswerOfTheFleetIsNoFallOfTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		w := newWorker(t, func(c *admin.Config) {
			c.Fleet = func(ctx context.Context, recent, _ int) ([]admin.Worker, error) {
				if asked++; asked > 1 {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				steady := admin.Worker{Worker: "w1", Ready: true}
				for i := range recent {
					var step rollup.Step
					step.At, step.Classes.Status2xx = time.Now().Unix()/5*5-int64(5*(i+1)), 100
					steady.Recent = append(steady.Recent, step)
				}
				return []admin.Worker{steady}, nil
			}
		})
		rate := func() int64 { s := w.firstNow(t); return s.Recent.Jobs[len(s.Recent.Jobs)-1][0] }
		for began := time.Now(); time.Since(began) < 14*time.Second; time.Sleep(300 * time.Millisecond) {
			if got := rate(); got != 100 {
				t.Fatalf("%s after the answer: got %d jobs in the last step, want 100", time.Since(began), got)
			}
		}
		time.Sleep(10 * time.Second)
		if got := rate(); got != 0 || asked < 2 {
			t.Errorf("after 24 s without an answer: got %d jobs in the last step, %d questions; want none", got, asked)
		}
	})
}

// TestAWorkerWithoutNATSAccusesNoOther: none of them can answer it.
func TestAWorkerWithoutNATSAccusesNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lost error
		w := newWorker(t, func(c *admin.Config) {
			both := fleetOf(admin.Worker{Worker: "w1", Ready: true}, admin.Worker{Worker: "w2", Ready: true})
			c.Sites = nil
			c.Ready = func() []admin.Check { return []admin.Check{{Name: "nats", OK: lost == nil, Detail: "not connected"}} }
			c.Fleet = func(ctx context.Context, recent, minutes int) ([]admin.Worker, error) {
				list, _ := both(ctx, recent, minutes)
				if lost != nil {
					list = list[:1] // itself
				}
				return list, nil
			}
		})
		w.firstNow(t)
		lost = errors.New("lost")
		time.Sleep(6 * time.Second)
		w.firstNow(t)
		synctest.Wait()
		time.Sleep(time.Second)
		if s := w.firstNow(t); len(s.Problems) != 1 || s.Problems[0].Text != "nats: not connected" || !s.Workers[0].Silent {
			t.Errorf("without NATS: got problems %+v, workers %+v; want the connection alone", s.Problems, s.Workers)
		}
	})
}

func TestProblemsAreSentencesTheWorstFirst(t *testing.T) {
	gauges := someGauges()
	gauges.Backlog = func() map[string]metrics.Backlog { return map[string]metrics.Backlog{"low": {Paused: true}} }
	w := newWorker(t, func(c *admin.Config) {
		c.Metrics = metrics.New(gauges)
		c.Ready = func() []admin.Check { return []admin.Check{{Name: "results", Detail: "the stream is full"}} }
		c.Fleet = func(context.Context, int, int) ([]admin.Worker, error) { return nil, errors.New("no responders") }
	})
	s := w.first(t, "")
	var got []string
	for _, p := range s.Problems {
		got = append(got, p.Level+" "+p.Text)
	}
	want := []string{
		"bad results: the stream is full", "warn the other workers cannot be asked: no responders", "warn queue low is paused, and 0 jobs wait: gofer resume low",
		"warn 1 site does not answer: shop.test: gofer sites show shop.test says why; once it answers, gofer sites reset shop.test ends its rest",
	}
	if !slices.Equal(got, want) {
		t.Errorf("problems: got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if s.WorkerCount != 1 || s.Workers[0].Worker != "w1" {
		t.Errorf("workers: got %+v, want at least this one", s.Workers)
	}
}

func TestPagesThatDoNotTickTogetherGetOnlyWhatChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker(t, nil)
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		var pages []*httptest.ResponseRecorder
		for range 7 {
			page := httptest.NewRecorder()
			pages = append(pages, page)
			go w.ServeHTTP(page, request("GET", "/api/v1/live", "", func(r *http.Request) { *r = *r.WithContext(ctx) }))
			time.Sleep(170 * time.Millisecond)
		}
		time.Sleep(20 * time.Second)
		leave()
		synctest.Wait()
		for i, page := range pages {
			body := page.Body.String()
			if whole := strings.Count(body, `"token_needed"`); whole != 1 {
				t.Errorf("page %d: got %d whole snapshots in 20 s, want only the first one", i, whole)
			}
			if events := strings.Count(body, "data: {"); events < 15 {
				t.Errorf("page %d: got %d events in 20 s, want about one a second", i, events)
			}
		}
	})
}

func TestQueuesSayWhatTheirJobsWaitFor(t *testing.T) {
	w := newWorker(t, func(c *admin.Config) {
		c.Sites = nil
		c.Operator.Queues = func(context.Context) (any, error) {
			return map[string]any{"queues": []map[string]any{
				{
					"queue": "low", "served": true, "pulls": 1, "queued": 3, "no_proxy": 150, "oldest_seconds": map[string]float64{"queued": 2, "no_proxy": 63.4},
					"reasons": []map[string]any{{"state": "no_proxy", "jobs": 150, "detail": "captcha.test has banned 31 of 37"}},
				},
				{"queue": "misspelt", "queued": 1},
			}}, nil
		}
	})
	s := w.first(t, "")
	if len(s.Queues) != 2 || s.Queues[0].Waiting["no_proxy"] != 150 || s.Queues[0].OldestSeconds != 60 || s.Queues[0].Queued != 3 {
		t.Errorf("queues: got %+v, want the counts of the fleet", s.Queues)
	}
	var got []string
	for _, p := range s.Problems {
		got = append(got, p.Level+" "+p.Text)
	}
	want := []string{
		"bad queue misspelt: no worker serves it, and 1 job waits: add it to GOFER_QUEUES of a worker; if it is misspelt, gofer cancel --queue misspelt ends its jobs",
		"warn queue low: 150 jobs wait for a proxy: captcha.test has banned 31 of 37: " + jobs.NoProxyRemedy,
	}
	if !slices.Equal(got, want) {
		t.Errorf("problems: got %q, want %q", got, want)
	}
}

// TestAQueueIsServedWhileAWorkerAsksForJobsOrNamesIt: what a killed worker held is no evidence, nor are its last words.
func TestAQueueIsServedWhileAWorkerAsksForJobsOrNamesIt(t *testing.T) {
	w := newWorker(t, func(c *admin.Config) {
		c.Sites = nil
		c.Fleet = func(context.Context, int, int) ([]admin.Worker, error) {
			return []admin.Worker{{Worker: "w1", Ready: true, Queues: []string{"named"}}, {Worker: "w2", Draining: true, Queues: []string{"drained"}}}, nil
		}
		c.Operator.Queues = func(context.Context) (any, error) {
			return map[string]any{"queues": []map[string]any{
				{"queue": "pulled", "served": true, "pulls": 1}, {"queue": "named"}, {"queue": "drained", "served": true, "delayed": 2}, {"queue": "killed", "served": true, "running": 3},
			}}, nil
		}
	})
	s := w.first(t, "")
	served := map[string]bool{}
	for _, q := range s.Queues {
		served[q.Queue] = q.Served
	}
	if want := map[string]bool{"pulled": true, "named": true, "drained": false, "killed": false}; !maps.Equal(served, want) {
		t.Errorf("served: got %v, want %v", served, want)
	}
	if len(s.Problems) != 1 || !strings.HasPrefix(s.Problems[0].Text, "queue drained: no worker serves it, and 2 jobs wait") {
		t.Errorf("problems: got %+v, want the jobs that nobody will take at their time", s.Problems)
	}
}

func TestTheJobsThatWaitForASiteAreThoseCounted(t *testing.T) {
	for count, want := range map[int]string{0: "1 site does not answer: shop.test", 1: "1 site does not answer, and 1 job waits for its site: shop.test", 5: "1 site does not answer, and 5 jobs wait for their site: shop.test"} {
		w := newWorker(t, func(c *admin.Config) {
			c.Operator.Queues = func(context.Context) (any, error) {
				return map[string]any{"queues": []map[string]any{{"queue": "low", "served": true, "pulls": 1, "delayed": 9, "site_down": count}}}, nil
			}
		})
		if s := w.first(t, ""); len(s.Problems) != 1 || !strings.HasPrefix(s.Problems[0].Text, want) {
			t.Errorf("%d jobs wait: got %+v, want %q", count, s.Problems, want)
		}
	}
}

func TestPagesShareOneQuestionToTheFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		w := newWorker(t, func(c *admin.Config) {
			c.Operator.DeadGroups = func(context.Context) ([]admin.DeadGroup, uint64, error) { asked++; return nil, 7, nil }
		})
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		for range 50 {
			go w.do(request("GET", "/api/v1/live", "", func(r *http.Request) { *r = *r.WithContext(ctx) }))
		}
		time.Sleep(12 * time.Second)
		leave()
		synctest.Wait()
		if asked != 3 {
			t.Errorf("questions of 50 pages in 12 s: got %d, want 3", asked)
		}
		if s := w.firstNow(t); s.DeadCount == nil || *s.DeadCount != 7 || s.Dead == nil {
			t.Errorf("dead letters: got %v, want 7", s.DeadCount)
		}
	})
}

func TestThePageRenewsTheCountsOfSitesOnlyNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := []admin.Site{{Site: "a.test", State: "up"}, {Site: "b.test", State: "up"}}
		w := newWorker(t, func(c *admin.Config) {
			c.Sites = func(int) ([]admin.Site, int) { return slices.Clone(list), len(list) }
		})
		attempts := func() int64 {
			time.Sleep(time.Second)
			list[0].Attempts++
			return w.firstNow(t).Sites[0].Attempts
		}
		if got := attempts(); got != 1 {
			t.Fatalf("first: got %d attempts, want 1", got)
		}
		if got := attempts(); got != 1 {
			t.Errorf("a second later: got %d attempts, want the earlier count", got)
		}
		list[1].State = "resting"
		if got := attempts(); got != 3 {
			t.Errorf("after a site began to rest: got %d attempts, want 3", got)
		}
		list = list[:1]
		if got := attempts(); got != 4 {
			t.Errorf("after the site that rested was forgotten: got %d attempts, want 4", got)
		}
		for range 5 {
			attempts()
		}
		if got := attempts(); got < 9 {
			t.Errorf("after five seconds: got %d attempts, want the newer count", got)
		}
	})
}

// TestJobsThatFailByNowAreAProblem: letters of a cause that is gone are none, though they are kept for two weeks.
func TestJobsThatFailByNowAreAProblem(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		groups []admin.DeadGroup
		want   string
	}{
		"few": {[]admin.DeadGroup{{Reason: "no_proxy", Queue: "low", Count: 19, Newest: now}}, ""},
		"old": {[]admin.DeadGroup{{Reason: "no_proxy", Queue: "low", Count: 500, Newest: now.Add(-2 * time.Hour)}}, ""},
		"many": {[]admin.DeadGroup{{Reason: "no_proxy", Queue: "low", Count: 5, Newest: now}, {Reason: "site_down", Queue: "default", Site: "shop.test", Count: 15, Newest: now}},
			"20 jobs have failed for good within two weeks, the latest within the hour, the most as site_down in queue default for shop.test: gofer dead ls says why; when the cause is gone, gofer dead replay --reason site_down runs those again"},
		"broken": {[]admin.DeadGroup{{Reason: "invalid_job", Queue: "low", Count: 20, Newest: now}},
			"20 jobs have failed for good within two weeks, the latest within the hour, the most as invalid_job in queue low: gofer dead ls says why; correct what publishes them; gofer dead purge --reason invalid_job removes them"},
	} {
		w := newWorker(t, func(config *admin.Config) {
			config.Sites = nil
			config.Operator.DeadGroups = func(context.Context) ([]admin.DeadGroup, uint64, error) { return c.groups, 500, nil }
		})
		got := ""
		for _, p := range w.first(t, "").Problems {
			got += p.Text
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}
