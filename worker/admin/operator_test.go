package admin_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/worker/admin"
)

// deed is what an Operator was asked to do.
type deeds []string

func (d *deeds) note(format string, args ...any) { *d = append(*d, fmt.Sprintf(format, args...)) }

// operated is a worker whose Operator knows queue default, job j1, the ended job j2, worker w1 and three dead letters.
func operated(t *testing.T) (*worker, *deeds) {
	t.Helper()
	done := &deeds{}
	known := func(what string, is bool) error {
		if !is {
			return fmt.Errorf("%s: %w", what, admin.ErrUnknown)
		}
		return nil
	}
	at := time.Date(2030, 1, 2, 15, 4, 5, 0, time.UTC)
	letters := []admin.Letter{
		{Seq: 1, Queue: "default", ID: "a", StoredAt: at, Error: "timed_out", Reason: "late", Attempts: 3, Site: "a.test"},
		{Seq: 2, Queue: "low", ID: "b", StoredAt: at.Add(time.Minute), Error: "no_proxy", Site: "a.test"},
		{Seq: 4, Queue: "low", ID: "c", StoredAt: at.Add(time.Hour), Error: "timed_out", Site: "b.test"},
	}
	o := admin.Operator{
		Queues: func(context.Context) (any, error) {
			return map[string]any{"queues": []any{}, "counted_at": "2030-01-02T15:04:05Z", "unread": 0}, nil
		},
		PauseQueue:  func(_ context.Context, q string) error { done.note("pause %s", q); return known(q, q == "default") },
		ResumeQueue: func(_ context.Context, q string) error { done.note("resume %s", q); return known(q, q == "default") },
		Workers: func(context.Context) (any, []string, error) {
			return []map[string]any{{"worker": "w1", "ready": true}}, []string{"w2"}, nil
		},
		DrainWorker: func(_ context.Context, name string) error {
			done.note("drain %s", name)
			return known(name, name == "w1")
		},
		Jobs: func(_ context.Context, f admin.JobFilter, limit int) (admin.JobsFound, error) {
			done.note("jobs %+v %d", f, limit)
			if f.State == "failed" {
				return admin.JobsFound{Jobs: []admin.Job{{Queue: "default", ID: "j2", State: f.State, Site: "a.test", Since: at}}, Partial: true, Looked: 5, Total: 9}, nil
			}
			return admin.JobsFound{Jobs: []admin.Job{{Queue: "default", ID: "j1", State: "no_proxy", Site: "a.test", Since: at, Until: at, Why: "no_proxy"}}, Looked: 3, Total: 3}, nil
		},
		Story: func(_ context.Context, q, id string) (any, error) {
			return map[string]any{"queue": q, "id": id, "state": "queued", "story": []any{}}, known(id, id == "j1")
		},
		CancelJob: func(_ context.Context, q, id string) error {
			if id == "j2" {
				return admin.ErrEnded
			}
			done.note("cancel %s/%s", q, id)
			return known(id, id == "j1")
		},
		Letters: func(_ context.Context, use func(admin.Letter) error) error {
			for _, l := range letters {
				if err := use(l); err != nil {
					return err
				}
			}
			return nil
		},
		ReplayLetter: func(_ context.Context, seq uint64) error {
			if seq == 4 {
				return admin.ErrUnknown // somebody was faster
			}
			done.note("replay %d", seq)
			return nil
		},
		PurgeLetter: func(_ context.Context, seq uint64) error { done.note("purge %d", seq); return nil },
	}
	return newWorker(t, func(c *admin.Config) { c.Operator = o }), done
}

func TestTheAPIActsOnQueuesWorkersAndJobs(t *testing.T) {
	w, done := operated(t)
	for _, test := range []struct {
		method, path string
		code         int
		body         string
	}{
		{"GET", "/api/v1/queues", 200, `{"counted_at":"2030-01-02T15:04:05Z","queues":[],"unread":0}`},
		{"POST", "/api/v1/queues/default/pause", 200, `{"paused":true,"queue":"default"}`},
		{"POST", "/api/v1/queues/default/resume", 200, `{"paused":false,"queue":"default"}`},
		{"POST", "/api/v1/queues/nobody/pause", 404, ""},
		{"POST", "/api/v1/queues/a.b/pause", 404, ""},
		{"GET", "/api/v1/workers", 200, `{"missing":["w2"],"total":1,"workers":[{"ready":true,"worker":"w1"}]}`},
		{"POST", "/api/v1/workers/w1/drain", 200, `{"draining":true,"worker":"w1"}`},
		{"POST", "/api/v1/workers/w9/drain", 404, ""},
		{"GET", "/api/v1/jobs?state=no_proxy&queue=default&site=A.test.:80&limit=7", 200, `{"jobs":[{"queue":"default","id":"j1","state":"no_proxy","site":"a.test","since":"2030-01-02T15:04:05Z","until":"2030-01-02T15:04:05Z","why":"no_proxy"}],"partial":false,"looked":3,"total":3}`},
		{"GET", "/api/v1/jobs?state=failed", 200, `{"jobs":[{"queue":"default","id":"j2","state":"failed","site":"a.test","since":"2030-01-02T15:04:05Z","until":null,"why":""}],"partial":true,"looked":5,"total":9}`},
		{"GET", "/api/v1/jobs?url=HTTP://A.test:80", 200, ""},
		{"GET", "/api/v1/jobs?url=a.test", 400, ""},
		{"GET", "/api/v1/jobs?site=http://a.test/", 400, ""},
		{"GET", "/api/v1/jobs?site=a.test:0", 400, ""},
		{"GET", "/api/v1/jobs?state=lost", 400, ""},
		{"GET", "/api/v1/jobs?limit=0", 400, ""},
		{"GET", "/api/v1/jobs?limit=1001", 400, ""},
		{"GET", "/api/v1/jobs?queue=a.b", 400, ""},
		{"GET", "/api/v1/jobs/default/j1", 200, `{"id":"j1","queue":"default","state":"queued","story":[]}`},
		{"GET", "/api/v1/jobs/default/j9", 404, ""},
		{"GET", "/api/v1/jobs/default/a.b", 404, ""},
		{"DELETE", "/api/v1/jobs/default/j1", 200, `{"id":"j1","outcome":"cancelled","queue":"default"}`},
		{"DELETE", "/api/v1/jobs/default/j2", 409, ""},
		{"DELETE", "/api/v1/jobs/default/j9", 404, ""},
	} {
		rec := w.do(request(test.method, test.path, ""))
		if rec.Code != test.code || test.body != "" && strings.TrimSpace(rec.Body.String()) != test.body {
			t.Errorf("%s %s: got %d %s, want %d %s", test.method, test.path, rec.Code, rec.Body, test.code, test.body)
		}
	}
	want := "[pause default resume default pause nobody drain w1 drain w9 jobs {State:no_proxy Queue:default Site:a.test:80 URL:} 7 jobs {State:failed Queue: Site: URL:} 100 jobs {State: Queue: Site: URL:http://a.test/} 100 cancel default/j1 cancel default/j9]"
	if got := fmt.Sprint(*done); got != want {
		t.Errorf("done:\ngot  %s\nwant %s", got, want)
	}
}

func TestDeadLettersAreListedGroupedReplayedAndPurged(t *testing.T) {
	w, done := operated(t)
	for _, test := range []struct {
		method, path, body string
		code               int
		answer             string
	}{
		{"GET", "/api/v1/dead?limit=1", "", 200, `{"letters":[{"seq":1,"queue":"default","id":"a","stored_at":"2030-01-02T15:04:05Z","error":"timed_out","reason":"late","attempts":3}]}`},
		{"GET", "/api/v1/dead?group=reason", "", 200, `{"groups":[{"key":"timed_out","count":2,"oldest":"2030-01-02T15:04:05Z","newest":"2030-01-02T16:04:05Z"},{"key":"no_proxy","count":1,"oldest":"2030-01-02T15:05:05Z","newest":"2030-01-02T15:05:05Z"}]}`},
		{"GET", "/api/v1/dead?group=site&limit=1", "", 200, `{"groups":[{"key":"a.test","count":2,"oldest":"2030-01-02T15:04:05Z","newest":"2030-01-02T15:05:05Z"}]}`},
		{"GET", "/api/v1/dead?group=colour", "", 400, ""},
		{"POST", "/api/v1/dead/replay", `{"queue":"low"}`, 200, `{"count":1}`}, // of two: the other one is gone
		{"POST", "/api/v1/dead/replay", `{"seqs":[1,9],"reason":"timed_out"}`, 200, `{"count":1}`},
		{"POST", "/api/v1/dead/purge", `{"all":true}`, 200, `{"count":3}`},
		{"POST", "/api/v1/dead/purge", `{"site":"B.test.:443"}`, 200, `{"count":1}`},
		{"POST", "/api/v1/dead/purge", `{"seqs":[]}`, 200, `{"count":0}`},
		{"POST", "/api/v1/dead/purge", "", 400, `{"error":"invalid_request","message":"name the letters by queue, site, reason or seqs, or write {\"all\": true}","details":["name the letters by queue, site, reason or seqs, or write {\"all\": true}"]}`},
		{"POST", "/api/v1/dead/purge", "{}", 400, ""},
		{"POST", "/api/v1/dead/purge", `{"site":"http://b.test/"}`, 400, ""},
		{"POST", "/api/v1/dead/purge", `{"all":true,"queue":"low"}`, 400, ""},
		{"POST", "/api/v1/dead/purge", `{"quue":"low"}`, 400, ""},
	} {
		rec := w.do(request(test.method, test.path, test.body))
		if rec.Code != test.code || test.answer != "" && strings.TrimSpace(rec.Body.String()) != test.answer {
			t.Errorf("%s %s %s: got %d %s, want %d %s", test.method, test.path, test.body, rec.Code, rec.Body, test.code, test.answer)
		}
	}
	if got, want := fmt.Sprint(*done), "[replay 2 replay 1 purge 1 purge 2 purge 4 purge 4]"; got != want {
		t.Errorf("done: got %s, want %s", got, want)
	}
}

// TestAListOfQueuesIsAsLongAsItsLimit: without the parameter no queue is left out.
func TestAListOfQueuesIsAsLongAsItsLimit(t *testing.T) {
	w := newWorker(t, func(c *admin.Config) {
		c.Operator.Queues = func(context.Context) (any, error) {
			queues := []map[string]string{{"queue": "default"}, {"queue": "low"}, {"queue": "misspelt"}}
			return map[string]any{"queues": queues, "unread": 7}, nil
		}
	})
	for query, want := range map[string]string{
		"":            `{"queues":[{"queue":"default"},{"queue":"low"},{"queue":"misspelt"}],"unread":7}`,
		"?limit=2":    `{"queues":[{"queue":"default"},{"queue":"low"}],"unread":7}`,
		"?limit=1000": `{"queues":[{"queue":"default"},{"queue":"low"},{"queue":"misspelt"}],"unread":7}`,
	} {
		if answer := w.do(request("GET", "/api/v1/queues"+query, "")); answer.Code != http.StatusOK || strings.TrimSpace(answer.Body.String()) != want {
			t.Errorf("%q: got %d, %s; want 200, %s", query, answer.Code, answer.Body, want)
		}
	}
	for _, query := range []string{"?limit=0", "?limit=1001", "?limit=", "?limit=x"} {
		if answer := w.do(request("GET", "/api/v1/queues"+query, "")); answer.Code != http.StatusBadRequest {
			t.Errorf("%q: got %d, want 400", query, answer.Code)
		}
	}
}

// TestManyDeadLettersAreChangedAsTheyAreRead: an error in the middle leaves done what was done, and says how much. Whole queues
// are purged in one request, and letters that are named by numbers are not looked for.
func TestManyDeadLettersAreChangedAsTheyAreRead(t *testing.T) {
	var done []string
	w := newWorker(t, func(c *admin.Config) {
		c.Operator = admin.Operator{
			Letters: func(_ context.Context, use func(admin.Letter) error) error {
				for seq := range uint64(2) {
					if err := use(admin.Letter{Seq: seq + 1, Queue: "low", Site: "a.test"}); err != nil {
						return err
					}
				}
				done = append(done, "lost")
				return errors.New("no answer")
			},
			ReplayLetter: func(_ context.Context, seq uint64) error { done = append(done, fmt.Sprint("replay ", seq)); return nil },
			PurgeLetter:  func(_ context.Context, seq uint64) error { done = append(done, fmt.Sprint("purge ", seq)); return nil },
			PurgeLetters: func(_ context.Context, queue string) (uint64, error) {
				done = append(done, "purge all of "+queue)
				return 400_000, nil
			},
		}
	})
	for _, test := range []struct {
		path, body string
		code       int
		answer     string
		done       string
	}{
		{"replay", `{"all":true}`, 503, "2 dead letters are replayed, and others may be left: send the request again: no answer", "[replay 1 replay 2 lost]"},
		{"replay", `{"queue":"low"}`, 503, "2 dead letters are replayed", "[replay 1 replay 2 lost]"},
		{"purge", `{"site":"a.test"}`, 503, "2 dead letters are purged", "[purge 1 purge 2 lost]"},
		{"purge", `{"queue":"low","site":"a.test"}`, 503, "2 dead letters are purged", "[purge 1 purge 2 lost]"},
		{"purge", `{"all":true}`, 200, `{"count":400000}`, "[purge all of ]"},
		{"purge", `{"queue":"low"}`, 200, `{"count":400000}`, "[purge all of low]"},
		{"purge", `{"queue":"*"}`, 503, "0 dead letters are purged", "[lost]"},
		{"purge", `{"seqs":[7,9]}`, 200, `{"count":2}`, "[purge 7 purge 9]"},
	} {
		done = nil
		rec := w.do(request("POST", "/api/v1/dead/"+test.path, test.body))
		if rec.Code != test.code || !strings.Contains(rec.Body.String(), test.answer) || fmt.Sprint(done) != test.done {
			t.Errorf("%s %s: got %d %s, done %v; want %d %s, %s", test.path, test.body, rec.Code, rec.Body, done, test.code, test.answer, test.done)
		}
	}
}

func TestAnOperatorThatFailsIsAnswered503(t *testing.T) {
	w := newWorker(t, func(c *admin.Config) {
		c.Operator.CancelJob = func(context.Context, string, string) error { return errors.New("no server") }
	})
	if rec := w.do(request("DELETE", "/api/v1/jobs/default/j1", "")); rec.Code != http.StatusServiceUnavailable {
		t.Errorf("cancel without a server: got %d %s, want 503", rec.Code, rec.Body)
	}
	if rec := w.do(request("GET", "/api/v1/dead", "")); rec.Code != http.StatusNotImplemented {
		t.Errorf("dead letters of a worker without an Operator: got %d, want 501", rec.Code)
	}
}

func TestTheDocumentDescribesTheOperator(t *testing.T) {
	w, _ := operated(t)
	doc := readDocument(t, w)
	for _, call := range []struct{ method, path, body string }{
		{"GET", "/api/v1/queues", ""}, {"POST", "/api/v1/queues/{queue}/pause", ""}, {"GET", "/api/v1/workers", ""}, {"POST", "/api/v1/workers/{name}/drain", ""}, {"GET", "/api/v1/jobs", ""},
		{"GET", "/api/v1/jobs/{queue}/{id}", ""}, {"DELETE", "/api/v1/jobs/{queue}/{id}", ""}, {"GET", "/api/v1/dead", ""}, {"POST", "/api/v1/dead/replay", `{"all":true}`},
		{"POST", "/api/v1/dead/purge", `{"all":true}`},
	} {
		doc.fits(t, call.method, call.path, w.do(request(call.method, example(call.path), call.body)))
	}
	doc.fits(t, "GET", "/api/v1/dead", w.do(request("GET", "/api/v1/dead?group=site", "")))
	doc.fits(t, "DELETE", "/api/v1/jobs/{queue}/{id}", w.do(request("DELETE", "/api/v1/jobs/default/j2", "")))
}
