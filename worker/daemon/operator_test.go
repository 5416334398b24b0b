package daemon_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker"
	"github.com/gofer-mq/gofer/worker/daemon"
)

// call sends a request to the API and decodes the answer.
func (r *running) call(method, path, body string) (status int, answer map[string]any) {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), method, r.url+"/api/v1"+path, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, _ := io.ReadAll(resp.Body)
	if err := json.Unmarshal(data, &answer); err != nil {
		r.Fatalf("%s %s: %v in %s", method, path, err, data)
	}
	return resp.StatusCode, answer
}

// first waits until the first member of a list is as wanted, and returns it. A busy worker may not answer a question in time.
func (r *running) first(path, name string, isWanted func(map[string]any) bool) (member map[string]any) {
	r.Helper()
	testenv.Eventually(r, "the first of "+path, func() bool {
		_, answer := r.call("GET", path, "")
		members, _ := answer[name].([]any)
		if len(members) == 0 {
			return false
		}
		member, _ = members[0].(map[string]any)
		return isWanted(member)
	})
	return member
}

// list is the length of a list in an answer.
func list(answer map[string]any, name string) int {
	items, _ := answer[name].([]any)
	return len(items)
}

// TestAStorySaysThatTheSiteIsNew has a proxy that never answers: of the jobs for a new site two run, and the others wait.
func TestAStorySaysThatTheSiteIsNew(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	server := testenv.StartNATS(t, nil)
	r := run(t, daemon.Config{
		NATS: bus.Dial{URL: server.URL()}, Queues: []worker.Queue{{Name: "default"}}, Concurrency: 4, Proxies: parse(t, "http://"+silent.Addr().String()),
	})
	r.until("nats: connected")
	c, err := client.Open(t.Context(), client.Config{URL: server.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, id := range []string{"a", "b", "c"} {
		if _, err := c.Submit(t.Context(), jobs.Job{ID: id, URL: "http://new.test/"}); err != nil {
			t.Fatal(err)
		}
	}
	// A waiting job is given out again and again, and then its story has no wait for a moment.
	var wait map[string]any
	testenv.Eventually(t, "a job to wait for its site", func() bool {
		_, answer := r.call("GET", "/jobs?state=site_down", "")
		if list(answer, "jobs") != 1 {
			return false
		}
		waits, _ := answer["jobs"].([]any)[0].(map[string]any)
		_, story := r.call("GET", fmt.Sprint("/jobs/default/", waits["id"]), "")
		wait, _ = story["waiting"].(map[string]any)
		return wait != nil
	})
	if want := "the site new.test is new: until it answers, few of its jobs run at once"; wait["why"] != "site_down" || wait["detail"] != want {
		t.Errorf("the job waits: %v, want the detail %q", wait, want)
	}
}

func TestTheAPISteersTheFleet(t *testing.T) {
	server := testenv.StartNATS(t, nil)
	r := run(t, daemon.Config{NATS: bus.Dial{URL: server.URL()}, Name: "w1", Queues: []worker.Queue{{Name: "default"}}})
	r.until("nats: connected")
	testenv.Eventually(t, "the worker to be listed", func() bool {
		_, answer := r.call("GET", "/workers", "")
		return list(answer, "workers") == 1
	})
	c, err := client.Open(t.Context(), client.Config{URL: server.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	submit := func(job jobs.Job) {
		t.Helper()
		if _, err := c.Submit(t.Context(), job); err != nil {
			t.Fatal(err)
		}
	}
	// The worker has no proxy: one job waits for one, another one does not wait and fails.
	submit(jobs.Job{ID: "waits", URL: "http://a.test/"})
	submit(jobs.Job{ID: "fails", URL: "http://b.test:8080/", WhenNoProxy: jobs.NoProxyFail})
	testenv.Eventually(t, "the job to wait for a proxy", func() bool {
		_, answer := r.call("GET", "/jobs?state=no_proxy&site=a.test", "")
		return list(answer, "jobs") == 1
	})
	testenv.Eventually(t, "the fleet to have counted the job that waits for a proxy", func() bool {
		_, answer := r.call("GET", "/queues", "")
		queues, _ := answer["queues"].([]any)
		if len(queues) != 1 {
			return false
		}
		q, _ := queues[0].(map[string]any)
		oldest, _ := q["oldest_seconds"].(map[string]any)
		return q["queue"] == "default" && q["no_proxy"] == 1.0 && oldest["no_proxy"] != 0.0 && list(q, "reasons") == 1
	})
	var wait map[string]any
	testenv.Eventually(t, "the story of the job that waits", func() bool { // which is given out again now and then
		status, story := r.call("GET", "/jobs/default/waits", "")
		wait, _ = story["waiting"].(map[string]any)
		return status == 200 && story["state"] == "no_proxy" && wait != nil
	})
	if wait["detail"] != "no proxy can be used for a.test: the pool has no proxies" || wait["site"] != "a.test" || wait["until"] == nil {
		t.Errorf("why the job waits: %v", wait)
	}
	testenv.Eventually(t, "the dead letter", func() bool {
		_, answer := r.call("GET", "/dead?group=site", "")
		return list(answer, "groups") == 1
	})
	if status, story := r.call("GET", "/jobs/default/fails", ""); status != 200 || story["state"] != "failed" || story["result"] == nil {
		t.Errorf("story of the job that failed: %d %v", status, story)
	}
	if _, answer := r.call("GET", "/jobs?state=failed", ""); list(answer, "jobs") != 1 {
		t.Errorf("failed jobs: %v, want one", answer)
	}
	first := r.first("/workers", "workers", func(map[string]any) bool { return true })
	if _, listed := first["reasons"].([]any); !listed {
		t.Errorf("worker: %v, want a list of reasons", first)
	}
	for _, act := range []string{"pause", "resume"} {
		if status, answer := r.call("POST", "/queues/default/"+act, ""); status != 200 {
			t.Errorf("%s: got %d %v", act, status, answer)
		}
		q := r.first("/queues", "queues", func(q map[string]any) bool { return (q["paused_until"] != nil) == (act == "pause") })
		_, found := q["paused_until"]
		if _, listed := q["reasons"].([]any); !found || !listed {
			t.Errorf("after %s: got %v, want every member", act, q)
		}
	}
	for _, step := range []struct {
		method, path, body string
		status             int
	}{
		{"DELETE", "/jobs/default/fails", "", 409}, {"DELETE", "/jobs/default/waits", "", 200}, {"DELETE", "/jobs/default/nobody", "", 404},
		{"POST", "/queues/unserved/pause", "", 404},
		{"POST", "/dead/replay", `{"site":"b.test:8080"}`, 200}, {"POST", "/dead/purge", `{"all":true}`, 200},
		{"POST", "/workers/w1/drain", "", 200},
	} {
		if status, answer := r.call(step.method, step.path, step.body); status != step.status {
			t.Errorf("%s %s: got %d %v, want %d", step.method, step.path, status, answer, step.status)
		}
	}
	if err := <-r.ended; err != nil {
		t.Errorf("the drained worker ended with %v", err)
	}
	r.ended <- nil
}
