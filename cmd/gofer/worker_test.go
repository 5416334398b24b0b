package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/jobs/text"
	"github.com/gofer-mq/gofer/testenv"
	workstream "github.com/gofer-mq/gofer/worker/stream"
)

func TestPublishedURLComesBackAsItsBody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.worker(freeAddr(t))
	w.publish("j1", "http://shop.test/ok\n")
	r := w.result("j1")
	if r.Outcome != jobs.Succeeded || r.Status != http.StatusOK || string(r.Body) != "hello from shop.test/ok\n" {
		t.Errorf("result = %s %d %q, want the body of the page", r.Outcome, r.Status, r.Body)
	}
	if r.Proxy != "good" || r.AttemptCount != 1 || r.URL != "http://shop.test/ok" || r.Header.Get("Content-Type") == "" {
		t.Errorf("facts = proxy %q, attempts %d, url %q, header %v", r.Proxy, r.AttemptCount, r.URL, r.Header)
	}
}

func TestPlainSubscriberSeesEachResultOnceAndWorkersShareTheJobs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.worker(freeAddr(t))
	w.worker(freeAddr(t))
	seen := map[string]int{}
	workers := map[string]bool{}
	got := make(chan *nats.Msg, 1000)
	if _, err := w.nc.ChanSubscribe("gofer.results.>", got); err != nil {
		t.Fatal(err)
	}
	const n = 300
	for i := range n {
		w.publish(fmt.Sprint("j", i), job("/slow/20", nil))
	}
	for range n {
		select {
		case m := <-got:
			seen[m.Subject]++
			workers[m.Header.Get("Gofer-Worker")] = true
		case <-time.After(patience):
			t.Fatalf("%d of %d results came", len(seen), n)
		}
	}
	if len(seen) != n || len(workers) != 2 {
		t.Errorf("results of %d jobs by %d workers, want %d by 2", len(seen), len(workers), n)
	}
}

func TestRetryGoesToAnotherProxyAndIsAnnounced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	bad := w.startProxy(testenv.Refusing)
	setenv(t, "GOFER_PROXIES", bad.URL("http")+" id=bad, "+w.proxy.URL("http")+" id=good")
	w.worker(freeAddr(t))
	var retried int
	for i := range 4 {
		id := fmt.Sprint("r", i)
		w.publish(id, job("/ok", nil))
		r := w.result(id)
		if r.Outcome != jobs.Succeeded || r.Proxy != "good" {
			t.Errorf("job %s = %s via %s, want success via good", id, r.Outcome, r.Proxy)
		}
		retried += r.AttemptCount - 1
	}
	var events int
	err := client.New(w.client).Events(t.Context(), bus.Filter{All: true, UntilNow: true}, func(e client.Event) error {
		// A proxy that hangs up may say so that the site is down, until it is known that the site answers.
		blamed := strings.Contains(string(e.Payload), `"fault":"proxy"`) || strings.Contains(string(e.Payload), `"fault":"unclear"`)
		if e.Kind == "retry" && strings.Contains(string(e.Payload), `"proxy":"bad"`) && blamed {
			events++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if retried == 0 || events != retried {
		t.Errorf("retries = %d, announced = %d; want as many, and some", retried, events)
	}
}

func TestLongRetryWaitsInTheStreamAndCarriesItsAttempts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.worker(freeAddr(t))
	w.publish("late", job("/flaky/1", map[string]any{"retry": map[string]any{"backoff_strategy": "fixed", "base_delay": 2.5, "jitter": false}}))
	testenv.Eventually(t, "the job to wait in the stream", func() bool {
		found, err := client.New(w.client).Find(t.Context(), client.Key{Queue: "default", ID: "late"})
		return err == nil && len(found) == 1 && w.origin.Count("/flaky/1") == 1
	})
	started := time.Now()
	r := w.result("late")
	if r.Outcome != jobs.Succeeded || r.AttemptCount != 2 || r.JobSeq == 0 {
		t.Errorf("result = %s after %d attempts, job sequence %d; want success after 2", r.Outcome, r.AttemptCount, r.JobSeq)
	}
	if waited := time.Since(started); waited > bus.AckWait {
		t.Errorf("the retry came %v after it began to wait, want about 2.5 s", waited)
	}
	if r.Duration < 2500*time.Millisecond {
		t.Errorf("duration = %v, want it counted from the first attempt", r.Duration)
	}
}

func TestLargeBodyGoesToTheObjectStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.worker(freeAddr(t))
	w.publish("big", job("/bytes/700000", nil))
	r := w.result("big")
	if r.Object == "" || r.ObjectDigest == "" || len(r.Body) != 0 {
		t.Fatalf("object %q, digest %q, %d bytes inline; want the body outside", r.Object, r.ObjectDigest, len(r.Body))
	}
	code, out, errOut := gofer(t, "", "results", "big")
	if code != exitOK || len(out) != 700000 {
		t.Errorf("gofer results: exit %d, %d bytes, want all 700000; %s", code, len(out), errOut)
	}
}

func TestBadJobsEndInOneResultAndALetter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.worker(freeAddr(t))
	for id, c := range map[string]struct{ payload, code string }{
		"text":    {"not json", jobs.ErrInvalidJob},
		"unknown": {`{"url":"http://shop.test/","colour":"red"}`, jobs.ErrInvalidJob},
		"file":    {"file:///etc/passwd", jobs.ErrInvalidJob},
		"private": {"http://0x7f.1/", jobs.ErrTargetDenied},
		"direct":  {job("/ok", map[string]any{"proxy": map[string]any{"direct": true}}), jobs.ErrInvalidJob},
		"tagged":  {job("/ok", map[string]any{"proxy": map[string]any{"tags": []string{"none-has-this"}}}), jobs.ErrNoProxy},
		"late":    {job("/ok", map[string]any{"deadline": "2001-01-01T00:00:00Z"}), jobs.ErrExpired},
		"large":   {`{"url":"http://shop.test/","body":"` + strings.Repeat("x", 800<<10) + `"}`, jobs.ErrInvalidJob},
	} {
		w.publish(id, c.payload)
		r := w.result(id)
		if r.Outcome != jobs.Failed || r.Error != c.code {
			t.Errorf("job %s = %s %s, want failed %s", id, r.Outcome, r.Error, c.code)
		}
		testenv.Eventually(t, "the dead letter of "+id, func() bool {
			letter, err := client.New(w.client).DeadLetter(t.Context(), bus.Key{Queue: "default", ID: id})
			return err == nil && string(letter.Payload) == c.payload
		})
	}
}

func TestJobWithABadIDStillEndsInAResult(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.worker(freeAddr(t))
	for _, id := range []string{"a.b", "ünïcode", strings.Repeat("x", 200)} {
		got, err := w.nc.SubscribeSync("gofer.results.default." + id)
		if err != nil {
			t.Fatal(err)
		}
		w.publish(id, "http://shop.test/ok")
		msg, err := got.NextMsg(patience)
		if err != nil {
			t.Fatalf("result of the job with the id %q: %v", id, err)
		}
		if r := jobs.ParseResult(msg.Header, msg.Data); r.Error != jobs.ErrInvalidJob || len(r.Reasons) == 0 {
			t.Errorf("job with the id %q = %s %s, want invalid_job with a reason", id, r.Outcome, r.Error)
		}
	}
}

func TestIDThatATerminalObeysIsReplacedInEveryMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	p := w.worker(freeAddr(t))
	for _, id := range []string{"id\x1b]0;pwned\a\x1b[31m", "id\u009b31m", "id\u202efoo", "id\xff"} {
		got, err := w.nc.SubscribeSync("gofer.results.default.>")
		if err != nil {
			t.Fatal(err)
		}
		w.publish(id, "http://shop.test/ok")
		msg, err := got.NextMsg(patience)
		if err != nil {
			t.Fatalf("result of the job with the id %q: %v %s", id, err, p.log)
		}
		_ = got.Unsubscribe()
		r := jobs.ParseResult(msg.Header, msg.Data)
		if !jobs.ValidID(r.ID) || !strings.HasPrefix(r.ID, "invalid-") || msg.Subject != "gofer.results.default."+r.ID || r.Error != jobs.ErrInvalidJob {
			t.Errorf("job with the id %q ended as %s of job %q on %q, want invalid_job of invalid-…", id, r.Error, r.ID, msg.Subject)
		}
		if whole := fmt.Sprint(msg.Header, string(msg.Data)); whole != text.Block(whole) {
			t.Errorf("the result of job %q holds what a terminal obeys: %q", id, whole)
		}
		testenv.Eventually(t, "the dead letter of "+r.ID, func() bool {
			_, err := client.New(w.client).DeadLetter(t.Context(), bus.Key{Queue: "default", ID: r.ID})
			return err == nil
		})
	}
}

func TestSecondJobOfAFinishedNameStoresNothingAndSaysSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.worker(freeAddr(t))
	w.publish("once", job("/ok", nil))
	first := w.result("once")
	testenv.Eventually(t, "the first job to be acked", func() bool {
		found, err := client.New(w.client).Find(t.Context(), client.Key{Queue: "default", ID: "once"})
		return err == nil && len(found) == 1
	})
	w.publish("once", job("/bytes/3", nil))
	testenv.Eventually(t, "the duplicate event", func() bool {
		n := 0
		err := client.New(w.client).Events(t.Context(), bus.Filter{All: true, UntilNow: true}, func(e client.Event) error {
			if e.Kind == "duplicate" {
				n++
			}
			return nil
		})
		return err == nil && n == 1
	})
	if again := w.result("once"); string(again.Body) != string(first.Body) || again.JobSeq != first.JobSeq {
		t.Errorf("the kept result changed to %q", again.Body)
	}
	if code, _, errOut := gofer(t, "", "submit", "--id", "once", "http://shop.test/ok"); code == exitOK || !strings.Contains(errOut, "finished") {
		t.Errorf("gofer submit of a finished id: exit %d, %q; want a refusal", code, errOut)
	}
}

func TestDrainHandsBackWhatItCannotFinish(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{AckWait: time.Hour}); err != nil {
		t.Fatal(err)
	}
	setenv(t, "GOFER_DRAIN_TIMEOUT", "1s")
	first := w.worker(freeAddr(t))
	w.publish("long", job("/slow/10000", nil))
	testenv.Eventually(t, "the fetch to begin", func() bool { return w.origin.Count("/slow/10000") == 1 })
	if code := first.wait(t); code != exitOK {
		t.Errorf("exit code of a drained worker = %d, want 0; it said:\n%s", code, first.log)
	}
	w.worker(freeAddr(t))
	// Were it not handed back, it would come in an hour.
	if r := w.result("long"); r.Outcome != jobs.Succeeded {
		t.Errorf("job handed back by a drained worker = %s %s, want success", r.Outcome, r.Error)
	}
	if n := w.origin.Count("/slow/10000"); n != 2 {
		t.Errorf("the job was fetched %d times, want 2: the drain does not wait for what takes longer than its timeout", n)
	}
}

func TestRunningJobCanBeCancelled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.worker(freeAddr(t))
	w.publish("stop-me", job("/slow/20000", nil))
	testenv.Eventually(t, "the fetch to begin", func() bool { return w.origin.Count("/slow/20000") == 1 })
	if code, out, errOut := gofer(t, "", "cancel", "stop-me"); code != exitOK {
		t.Fatalf("gofer cancel: exit %d, %s%s", code, out, errOut)
	}
	if r := w.result("stop-me"); r.Outcome != jobs.Cancelled {
		t.Errorf("outcome = %s, want cancelled", r.Outcome)
	}
	s := &session{client: client.New(w.client)}
	if err := s.cancel(t.Context(), client.Key{Queue: "default", ID: "stop-me"}); !errors.Is(err, client.ErrFinished) {
		t.Errorf("cancelling a finished job: %v, want %v", err, client.ErrFinished)
	}
	for _, ids := range [][]string{{"stop-me"}, {"stop-me", "nosuch"}} {
		code, _, errOut := gofer(t, "", append([]string{"cancel", "--yes"}, ids...)...)
		if code != exitFailed || !strings.Contains(errOut, "job default/stop-me was cancelled at 20") || !strings.Contains(errOut, "so there is nothing to cancel") {
			t.Errorf("cancelling a finished job: exit %d, %q; want %d, and how it ended", code, errOut, exitFailed)
		}
	}
}

func TestWorkerOutlivesItsServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	p := w.worker(freeAddr(t))
	w.nats.Stop()
	w.nats.Start()
	testenv.Eventually(t, "the job to be accepted", func() bool {
		js, err := jetstream.New(w.nc)
		if err != nil {
			return false
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = js.Publish(ctx, "gofer.jobs.default.after", []byte("http://shop.test/ok"))
		return err == nil
	})
	if r := w.result("after"); r.Outcome != jobs.Succeeded {
		t.Errorf("job after a restart of the server = %s %s, want success; the worker said:\n%s", r.Outcome, r.Error, p.log)
	}
}

func TestDeletedConsumerIsMadeAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.worker(freeAddr(t))
	js, err := jetstream.New(w.nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteConsumer(t.Context(), "GOFER_JOBS", "worker-default"); err != nil {
		t.Fatal(err)
	}
	w.publish("after", job("/ok", nil))
	if r := w.result("after"); r.Outcome != jobs.Succeeded {
		t.Errorf("job after its consumer was deleted = %s %s, want success", r.Outcome, r.Error)
	}
}

func TestWorkerWaitsForAServerThatIsNotUpYet(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.nats.Stop()
	addr := freeAddr(t)
	setenv(t, "GOFER_HTTP_ADDR", addr)
	w.start("worker")
	testenv.Eventually(t, "the worker to say that it is not ready", func() bool {
		status, body := w.get("http://" + addr + "/readyz?verbose")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "nats")
	})
	if status, _ := w.get("http://" + addr + "/livez"); status != http.StatusOK {
		t.Errorf("/livez without NATS = %d, want 200", status)
	}
	w.nats.Start()
	testenv.Eventually(t, "the worker to be ready", func() bool {
		status, _ := w.get("http://" + addr + "/readyz")
		return status == http.StatusOK
	})
}

func TestJetStreamSwitchedOffIsSaidAndEndsTheWorker(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *server.Options) { o.JetStream = false })
	p := w.start("worker")
	select {
	case code := <-p.code:
		p.code <- code
		if code != exitConfig || !strings.Contains(p.log.String(), "JetStream is switched off") {
			t.Errorf("exit %d, it said %q; want 78 and what to do", code, p.log)
		}
	case <-time.After(patience):
		t.Fatalf("the worker goes on; it said:\n%s", p.log)
	}
}

func TestAttemptsOfADeadWorkerCountAsFarAsTheyWereAnnounced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{AckWait: 2 * time.Second}); err != nil {
		t.Fatal(err)
	}
	w.publish("killed", job("/status/503", map[string]any{"retry": map[string]any{"max_attempts": 3, "base_delay": 0.1, "jitter": false}}))
	// A worker takes the job, announces a retry after its second attempt, and dies.
	consumer, err := w.client.EnsureJobConsumer(t.Context(), "default", false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := consumer.Next(jetstream.FetchMaxWait(patience)); err != nil {
		t.Fatal(err)
	}
	if err := workstream.New(w.client).PublishRetry(t.Context(), jobs.RetryEvent{JobID: "killed", Queue: "default", Attempt: 2, At: time.Now().UTC()}); err != nil {
		t.Fatal(err)
	}
	w.worker(freeAddr(t))
	r := w.result("killed")
	if r.Error != jobs.ErrAttemptsExhausted || r.AttemptCount != 3 || w.origin.Count("/status/503") != 1 {
		t.Errorf("result = %s after %d attempts, %d of them here; want the third one to be the last", r.Error, r.AttemptCount, w.origin.Count("/status/503"))
	}
}
