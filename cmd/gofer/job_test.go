package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
)

// fixed is a retry policy whose waits are all alike.
func fixed(delay float64, most int) map[string]any {
	return map[string]any{"retry": map[string]any{"backoff_strategy": "fixed", "base_delay": delay, "jitter": false, "max_attempts": most}}
}

// whats are the kinds of a story's moments.
func whats(t story) string {
	var out []string
	for _, m := range t.Moments {
		out = append(out, m.What)
	}
	return strings.Join(out, " ")
}

func TestStoryOfASuccessTellsEachAttemptAndWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.named("w1")
	w.publish("other", job("/flaky/1?other", fixed(0.1, 3)))
	id := "01ARZ3NDEKTSV4RRFFQ69G5FAV" // the specification's example of a ULID, made in 2016
	w.publish(id, job("/flaky/2", fixed(0.1, 3)))
	w.result(id)
	w.result("other")
	var got story
	testenv.Eventually(t, "the job to leave its stream, which tells when it came", func() bool {
		got = read[story](t, "job", id)
		return got.Moments[0].Source != ""
	})
	if whats(got) != "queued attempt wait attempt wait attempt ended" {
		t.Fatalf("story = %s, want three attempts with a wait between", whats(got))
	}
	queued, first, wait, last := got.Moments[0], got.Moments[1], got.Moments[2], got.Moments[5]
	if queued.Source != "id" || queued.At.Year() != 2016 {
		t.Errorf("queued = %+v, want the time in its id", queued)
	}
	if first.Attempt != 1 || first.MaxAttempts != 3 || first.Proxy != "good" || first.Status != 503 || first.Error == "" {
		t.Errorf("first attempt = %+v, want number 1 of 3 via good: 503 and why", first)
	}
	if wait.Kind != jobs.RetryInline || wait.Worker != "w1" || !wait.Until.After(wait.At) {
		t.Errorf("wait = %+v, want one in w1 with its end", wait)
	}
	if last.Attempt != 3 || last.Status != 200 || last.Error != "" {
		t.Errorf("last attempt = %+v, want number 3: 200", last)
	}
	if got.Result == nil || got.Result.Outcome != jobs.Succeeded || got.Result.Attempts != 3 {
		t.Errorf("result = %+v, want success after 3 attempts", got.Result)
	}
	_, text, _ := gofer(t, "", "job", "default/"+id)
	for _, want := range []string{"job default/" + id + " is finished", "queued, as the job's id tells", "attempt 1 of 3 via good: 503", "waits for 100ms", "in worker w1", "attempt 3 via good: 200", "succeeded 200", "url http://shop.test/flaky/2", "gofer results default/" + id + " prints the body"} {
		if !strings.Contains(text, want) {
			t.Errorf("the story lacks %q:\n%s", want, text)
		}
	}
}

// TestWhatCouldNotBeStoredIsSaidWhereverAResultIsShown bounds the bodies below the size of one.
func TestWhatCouldNotBeStoredIsSaidWhereverAResultIsShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{JobsMaxBytes: 4 << 20, ResultsMaxBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	r := jobs.Result{Queue: "default", ID: "big", Outcome: jobs.Succeeded, Status: 200, Body: make([]byte, 2<<20), FinishedAt: time.Now()}
	if _, err := w.client.StoreResult(t.Context(), &r); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"results", "big"}, {"results", "--since", "1h"}} {
		got := read[jobs.Summary](t, args...)
		if !slices.Equal(got.Omitted, []string{"body"}) || got.BodyBytes != nil {
			t.Errorf("gofer %v --json = %+v, want that the body is missing", args, got)
		}
	}
	if got := read[story](t, "job", "big"); got.Result == nil || !slices.Equal(got.Result.Omitted, []string{"body"}) {
		t.Errorf("gofer job --json = %+v, want that the body is missing", got.Result)
	}
	for _, args := range [][]string{{"results", "--since", "1h"}, {"job", "big"}} {
		_, out, _ := gofer(t, "", args...)
		if !strings.Contains(out, "not stored, for the limits of the streams: body") || strings.Contains(out, "prints the body") {
			t.Errorf("gofer %v says %q, want that the body is missing", args, out)
		}
	}
}

func TestStoryOfAFailureHasEveryAttemptInFullAndItsLetter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	bad := w.startProxy(testenv.Refusing)
	setenv(t, "GOFER_PROXIES", bad.URL("http")+" id=bad")
	w.named("w1")
	w.publish("f", job("/ok", fixed(0.1, 2)))
	w.result("f")
	var got story
	testenv.Eventually(t, "the dead letter to be in the story", func() bool {
		got = read[story](t, "job", "f")
		return got.DeadLetter != 0 && !slices.Contains(got.Places, client.Queued) // the ack comes after the letter
	})
	if whats(got) != "attempt wait attempt ended" {
		t.Fatalf("story = %s, want two attempts with a wait between", whats(got))
	}
	for _, m := range []client.Moment{got.Moments[0], got.Moments[2]} {
		if m.Proxy != "bad" || m.Fault != refusal(m.Fault) || m.Error == "" || m.Duration <= 0 {
			t.Errorf("attempt = %+v, want it via bad, with fault, error and duration", m)
		}
	}
	if got.Result == nil || got.Result.Error != jobs.ErrAttemptsExhausted {
		t.Errorf("result = %+v, want %s", got.Result, jobs.ErrAttemptsExhausted)
	}
	_, text, _ := gofer(t, "", "job", "f")
	for _, want := range []string{"(fault: ", "failed, attempts_exhausted", "gofer dead show"} {
		if !strings.Contains(text, want) {
			t.Errorf("the story lacks %q:\n%s", want, text)
		}
	}
	for _, name := range []string{"GOFER_RESULTS", "GOFER_EVENTS"} {
		stream, err := w.client.JetStream().Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if code, text, errOut := gofer(t, "", "job", "f"); code != exitOK || !strings.Contains(text, "gofer dead show") {
		t.Errorf("a job of which the letter is left: exit %d, %q, %s; want its letter", code, text, errOut)
	}
}

func TestStoryOfAJobThatIsNotDoneYet(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	stopped, _ := w.named("w1")
	w.publish("waits", job("/flaky/9", fixed(60, 3)))
	testenv.Eventually(t, "the job to wait in the stream", func() bool {
		found, err := client.New(w.client).Find(t.Context(), client.Key{Queue: "default", ID: "waits"})
		return err == nil && len(found) == 1 && found[0].Place == client.Waiting
	})
	got := read[story](t, "job", "waits")
	if whats(got) != "attempt wait" || got.Moments[1].Kind != jobs.RetryScheduled || got.Moments[0].Duration <= 0 {
		t.Errorf("story = %s %+v, want the attempt in full and one wait in the stream", whats(got), got.Moments)
	}
	if got.State != jobs.StateRetrying {
		t.Errorf("state of a job that waits for its next attempt = %q, want %q", got.State, jobs.StateRetrying)
	}
	if stopped.wait(t) != exitOK {
		t.Errorf("the worker said:\n%s", stopped.log)
	}
	w.publish("queued", job("/ok", nil))
	if got := read[story](t, "job", "queued"); whats(got) != "queued" || got.Moments[0].Source != "" || got.Result != nil || got.State != jobs.StateQueued {
		t.Errorf("story = %+v, want the job queued", got)
	}
	if _, text, _ := gofer(t, "", "job", "waits"); !strings.Contains(text, "is retrying\n") || !strings.Contains(text, "in the stream") {
		t.Errorf("the story lacks where the job waits:\n%s", text)
	}
	if code, _, errOut := gofer(t, "", "cancel", "waits"); code != exitOK {
		t.Fatalf("gofer cancel: exit %d, %s", code, errOut)
	}
	if _, text, _ := gofer(t, "", "job", "waits"); !strings.Contains(text, "cancelled") || !strings.Contains(text, "gofer cancel") {
		t.Errorf("the story lacks its end:\n%s", text)
	}
}

func TestStoryOfAnUnknownJobFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.named("w1")
	for _, id := range []string{"nothing", "default/nothing"} {
		if code, out, errOut := gofer(t, "", "job", id); code != exitFailed || out != "" || !strings.Contains(errOut, "not found") && !strings.Contains(errOut, "no such job") {
			t.Errorf("gofer job %s: exit %d, %q, %q; want %d and that it is not there", id, code, out, errOut, exitFailed)
		}
	}
	for _, args := range [][]string{{"job"}, {"job", "a.b"}} {
		if code, _, _ := gofer(t, "", args...); code != exitUsage {
			t.Errorf("gofer %v: exit %d, want %d", args, code, exitUsage)
		}
	}
}

// TestWhatHindersAJobIsSaidWithItsRemedy: nobody takes it, for its queue is paused, misspelt, or without a worker.
func TestWhatHindersAJobIsSaidWithItsRemedy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	gofer(t, "", "setup")
	w.publish("j", job("/ok", nil))
	if _, err := w.nc.Request("gofer.jobs.misspelt.k", []byte("http://shop.test/"), patience); err != nil {
		t.Fatal(err)
	}
	said := func(sentences ...string) {
		t.Helper()
		_, queues, _ := gofer(t, "", "queues")
		_, first, _ := gofer(t, "", "job", "default/j")
		_, second, _ := gofer(t, "", "job", "misspelt/k")
		for _, want := range sentences {
			if !strings.Contains(queues, want) || !strings.Contains(first+second, want) {
				t.Errorf("%q is missing in\n%s\n%s\n%s", want, queues, first, second)
			}
		}
	}
	testenv.Eventually(t, "the consumers of both queues to count the jobs", func() bool {
		_, queues, _ := gofer(t, "", "queues")
		return strings.Count(queues, "jobs wait (1)") == 2
	})
	said("queue default: jobs wait (1) and no worker serves it now: gofer workers", "queue misspelt: jobs wait (1) and no worker has ever served it: add it to GOFER_QUEUES of a worker; if it is misspelt, gofer cancel --queue misspelt ends its jobs")
	gofer(t, "", "pause", "default")
	said("queue default: paused, jobs wait (1): gofer resume default")
}

// TestTheLetterOfAnInvalidJobIsNotSaidToRunAgain: a replay publishes the same bytes.
func TestTheLetterOfAnInvalidJobIsNotSaidToRunAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.named("w1")
	w.publish("bad", `{"ulr":"http://shop.test/"}`)
	var text string
	// A look between the storing of the result and of the letter sees one of them.
	testenv.Eventually(t, "the result and the dead letter to be in the story", func() bool {
		_, text, _ = gofer(t, "", "job", "bad")
		return strings.Contains(text, "is finished") && strings.Contains(text, "gofer dead show")
	})
	if !strings.Contains(text, "correct what publishes it; gofer dead purge ") || strings.Contains(text, "dead replay") {
		t.Errorf("the story names no remedy that helps:\n%s", text)
	}
}

// TestAWaitThatEndsOnAnotherDayNamesTheDay: a not_before may be weeks away.
func TestAWaitThatEndsOnAnotherDayNamesTheDay(t *testing.T) {
	t.Parallel()
	at := time.Date(2030, 1, 2, 15, 4, 5, 0, time.UTC)
	for until, want := range map[time.Time]string{
		at.Add(time.Hour):      "until 16:04:05.000Z,",
		at.Add(24 * time.Hour): "until 2030-01-03T15:04:05.000Z,",
	} {
		if got := waitSentence(client.Moment{At: at, Until: until, Kind: jobs.RetryScheduled}); !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
	waits := story{Story: client.Story{Waiting: &client.Wait{Why: jobs.StateDelayed, Detail: "it waits", Until: at.AddDate(100, 0, 0)}}}
	if got, want := waits.waitLine(), "it waits, the next try is at 2130-01-02T15:04:05.000Z"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAJobWithoutAProxyNamesTheRemediesOfEveryPlace(t *testing.T) {
	t.Parallel()
	waits := story{Story: client.Story{Waiting: &client.Wait{Why: jobs.StateNoProxy, Detail: "the pool has no proxies"}}}
	if got, want := waits.waitLine(), "the pool has no proxies; "+jobs.NoProxyRemedy; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !strings.Contains(jobs.NoProxyRemedy, "cooldowns at a site end by themselves") {
		t.Errorf("the remedy promises that a reset ends a cooldown: %q", jobs.NoProxyRemedy)
	}
	for _, verb := range []string{"proxies ls", "breakers reset --all", "proxies add"} {
		if code, _, _ := gofer(t, "", append(strings.Fields(verb), "--help")...); code != exitOK || !strings.Contains(jobs.NoProxyRemedy, "gofer "+verb) {
			t.Errorf("gofer %s: exit %d, and the remedy is %q", verb, code, jobs.NoProxyRemedy)
		}
	}
}
