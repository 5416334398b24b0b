package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/admin"
)

// pair is two workers with the proxies bad and good, each with a queue of its own, so that a job's queue says who runs it.
type pair struct {
	*world
	bad  *testenv.Proxy
	addr map[string]string // of the HTTP side, by queue
	n    int
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{world: newWorld(t, nil), addr: map[string]string{}}
	p.bad = p.startProxy(testenv.Refusing)
	setenv(t, "GOFER_PROXIES", p.bad.URL("http")+" id=bad, "+p.proxy.URL("http")+" id=good")
	setenv(t, "GOFER_BREAKER_FAILURE_THRESHOLD", "1")
	setenv(t, "GOFER_RETRY_BASE_DELAY", "100ms")
	for _, name := range []string{"w1", "w2"} {
		setenv(t, "GOFER_QUEUES", name)
		_, p.addr[name] = p.named(name)
	}
	return p
}

// fetch lets a worker run a job.
func (p *pair) fetch(worker string) jobs.Result {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), patience)
	defer cancel()
	id := fmt.Sprint("j", p.n)
	p.n++
	if _, err := p.client.JetStream().Publish(ctx, "gofer.jobs."+worker+"."+id, []byte(job("/ok", nil))); err != nil {
		p.Fatal(err)
	}
	r, err := client.New(p.client).Wait(ctx, client.Key{Queue: worker, ID: id})
	if err != nil {
		p.Fatalf("result of job %s: %v", id, err)
	}
	return r
}

// breaker is what a worker says of the proxy bad.
func (p *pair) breaker(worker string) (b admin.Breaker) {
	p.Helper()
	status, body := p.get("http://" + p.addr[worker] + "/api/v1/circuit-breakers/bad")
	if err := json.Unmarshal([]byte(body), &b); err != nil || status != http.StatusOK {
		p.Fatalf("breaker in %s: %d, %s", worker, status, body)
	}
	return b
}

// trip lets a worker find the proxy bad dead.
func (p *pair) trip(worker string) {
	p.Helper()
	testenv.Eventually(p.T, "the breaker to open", func() bool { p.fetch(worker); return p.breaker(worker).State == "open" })
}

func TestDeadProxyIsPaidForByOneWorkerOfTheFleet(t *testing.T) {
	t.Parallel()
	setenv(t, "GOFER_BREAKER_TIMEOUT", "1s")
	setenv(t, "GOFER_ATTEMPT_TIMEOUT", "30s")
	p := newPair(t)
	began := time.Now()
	p.trip("w1")
	testenv.Eventually(t, "the other worker to hear of it", func() bool { return p.breaker("w2").AvoidedBy == "w1" })
	if b := p.breaker("w2"); b.State != "closed" || b.AvoidedUntil == nil {
		t.Errorf("breaker in w2 = %+v, want it closed, and the proxy avoided until a time", b)
	} else if avoided := b.AvoidedUntil.Sub(began); avoided < 90*time.Second {
		t.Errorf("w2 avoids the proxy for %v, want until w1 may have tested it three times, each in 30 s and 5 s more", avoided)
	}
	for range 10 {
		if r := p.fetch("w2"); r.Outcome != jobs.Succeeded || r.AttemptCount != 1 {
			t.Errorf("job of w2 = %s after %d attempts, want none through the dead proxy", r.Outcome, r.AttemptCount)
		}
	}
	if _, page := p.get("http://" + p.addr["w2"] + "/metrics"); !strings.Contains(page, "\ngofer_proxies_avoided 1\n") {
		t.Errorf("the metrics of w2 do not count the avoided proxy:\n%s", page)
	}
	if code, table, errOut := gofer(t, "", "breakers", "ls"); code != exitOK || !strings.Contains(table, "(found dead by w1)") {
		t.Errorf("breakers ls: exit %d, %s%s; want who found the proxy dead", code, table, errOut)
	}
	p.bad.Set(testenv.Good)
	testenv.Eventually(t, "a test of w1 to succeed", func() bool { p.fetch("w1"); return p.breaker("w1").State == "closed" })
	testenv.Eventually(t, "the other worker to use the proxy again", func() bool { return p.breaker("w2").AvoidedUntil == nil })
}

func TestResetMakesTheWholeFleetForget(t *testing.T) {
	t.Parallel()
	setenv(t, "GOFER_BREAKER_TIMEOUT", "10m")
	p := newPair(t)
	p.trip("w1")
	testenv.Eventually(t, "the other worker to hear of it", func() bool { return p.breaker("w2").AvoidedUntil != nil })
	if code, out, errOut := gofer(t, "", "breakers", "reset", "--all"); code != exitOK {
		t.Errorf("breakers reset: exit %d, %s%s", code, out, errOut)
	}
	// A worker may answer later than the verb waits for the second answer.
	testenv.Eventually(t, "the proxy to be usable in both workers", func() bool {
		return p.breaker("w1").State == "closed" && p.breaker("w2").AvoidedUntil == nil
	})
	kv, err := p.client.JetStream().KeyValue(t.Context(), "gofer-breakers")
	if err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the entry to go", func() bool { _, err := kv.Get(t.Context(), "bad"); return err != nil })
}

func TestBreakersAreNotSharedWhenTheOwnerDoesNotWantIt(t *testing.T) {
	t.Parallel()
	setenv(t, "GOFER_BREAKER_TIMEOUT", "10m")
	setenv(t, "GOFER_BREAKER_SHARE", "false")
	p := newPair(t)
	p.trip("w1")
	p.trip("w2") // so it did not keep away from the proxy
	if code, _, errOut := gofer(t, "", "breakers", "reset", "--all"); code != exitOK {
		t.Errorf("breakers reset: exit %d, %s", code, errOut)
	}
	testenv.Eventually(t, "the breaker of w2 to be closed", func() bool { return p.breaker("w2").State == "closed" })
	kv, err := p.client.JetStream().KeyValue(t.Context(), "gofer-breakers")
	if err != nil {
		t.Fatal(err)
	}
	if status, err := kv.Status(t.Context()); err != nil || status.Values() != 0 {
		t.Errorf("%d entries in the bucket, %v; want none", status.Values(), err)
	}
}
