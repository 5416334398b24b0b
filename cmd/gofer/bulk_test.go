package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	workerstream "github.com/gofer-mq/gofer/worker/stream"
)

// queued sets up a server without workers, with jobs a, b and c in queue later and job x in queue other.
func queued(t *testing.T) {
	t.Helper()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	c := client.New(w.client)
	for _, job := range []jobs.Job{
		{Queue: "later", ID: "a", URL: "http://shop.test/"}, {Queue: "later", ID: "b", URL: "http://books.test:8080/"},
		{Queue: "later", ID: "c", URL: "https://shop.test/"}, {Queue: "other", ID: "x", URL: "http://shop.test/"},
	} {
		if _, err := c.Submit(t.Context(), job); err != nil {
			t.Fatal(err)
		}
	}
}

// left is what jobs ls lists, as QUEUE/ID.
func left(t *testing.T, args ...string) string {
	t.Helper()
	var out []string
	for _, job := range read[[]client.Listed](t, append([]string{"jobs", "ls"}, args...)...) {
		out = append(out, job.String())
	}
	return strings.Join(out, " ")
}

func TestJobsAreListedByQueueStateAndSite(t *testing.T) {
	t.Parallel()
	queued(t)
	for args, want := range map[string]string{
		"": "later/a later/b later/c other/x", "--queue later": "later/a later/b later/c", "--site shop.test": "later/a later/c other/x", "--site Shop.TEST.": "later/a later/c other/x",
		"--site books.test:8080": "later/b", "--site shop.test:80": "later/a later/c other/x", "--site shop.test:443 --limit 1": "later/a", "--url HTTP://shop.test:80": "later/a other/x", "--url http://shop.test/none": "", "--state running": "", "--state queued --limit 2": "later/a later/b", "--since 1h": "later/a later/b later/c other/x",
	} {
		if got := left(t, strings.Fields(args)...); got != want {
			t.Errorf("jobs ls %s = %q, want %q", args, got, want)
		}
	}
	_, table, note := gofer(t, "", "jobs", "ls", "--limit", "1")
	if !strings.Contains(table, "later/a") || !strings.Contains(table, "queued") || !strings.Contains(note, "more jobs follow") {
		t.Errorf("jobs ls --limit 1 printed %q, %q", table, note)
	}
	for _, args := range [][]string{{"--state", "lost"}, {"--limit", "0"}, {"--since", "yesterday"}, {"--queue", "a.b"}, {"--url", "shop.test"}, {"--site", "http://shop.test/"}, {"--site", "shop.test:0"}, {"--site", "shop.test:http"}, {"--site", ""}} {
		if code, _, _ := gofer(t, "", append([]string{"jobs", "ls"}, args...)...); code != exitUsage {
			t.Errorf("jobs ls %v: exit %d, want %d", args, code, exitUsage)
		}
	}
}

// TestAJobOfANameWithAFinalDotIsFoundByItsSite, in any spelling of the site.
func TestAJobOfANameWithAFinalDotIsFoundByItsSite(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	const url = "http://Shop.test./a"
	if _, err := client.New(w.client).Submit(t.Context(), jobs.Job{Queue: "later", ID: "a", URL: url}); err != nil {
		t.Fatal(err)
	}
	r := jobs.Result{Queue: "later", ID: "b", Outcome: jobs.Failed, Error: jobs.ErrTimedOut, URL: "http://shop.test./a", FinishedAt: time.Now()}
	if err := workerstream.New(w.client).DeadLetter(t.Context(), "later", "b", []byte(url), &r); err != nil {
		t.Fatal(err)
	}
	for _, site := range []string{"shop.test", "shop.test.", "SHOP.test.:80", "shop.test:443"} {
		if list := read[[]client.Listed](t, "jobs", "ls", "--site", site); len(list) != 1 || list[0].Site != "shop.test" {
			t.Errorf("jobs ls --site %s: got %+v, want the job of shop.test", site, list)
		}
	}
	if code, out, errOut := gofer(t, "", "dead", "purge", "--site", "shop.test.:80", "--yes"); code != exitOK || !strings.Contains(out, "later/b is removed") {
		t.Errorf("dead purge by site: exit %d, %q, %q", code, out, errOut)
	}
}

func TestManyJobsAreCancelledOnlyIfTheUserAgrees(t *testing.T) {
	t.Parallel()
	queued(t)
	code, _, errOut := gofer(t, "", "cancel", "--queue", "later")
	if code != exitUsage || !strings.Contains(errOut, "Cancel 3 jobs?") || !strings.Contains(errOut, "--yes") {
		t.Errorf("cancel without --yes: exit %d, %q", code, errOut)
	}
	if got := left(t, "--queue", "later"); got != "later/a later/b later/c" {
		t.Fatalf("jobs after a cancel that was not agreed to: %q", got)
	}
	code, out, errOut := gofer(t, "", "cancel", "--site", "shop.test", "--queue", "later", "--yes")
	if code != exitOK || !strings.Contains(out, "2 jobs") || left(t) != "later/b other/x" {
		t.Errorf("cancel of a site: exit %d, %q, %q; left %q", code, out, errOut, left(t))
	}
	code, out, errOut = gofer(t, "b\n\nnobody\nother/x\n", "cancel", "-", "--yes")
	if code != exitFailed || !strings.Contains(out, "2 jobs") || !strings.Contains(errOut, "nobody") || left(t) != "" {
		t.Errorf("cancel of standard input: exit %d, %q, %q; left %q", code, out, errOut, left(t))
	}
	if code, out, _ := gofer(t, "", "cancel", "--state", "queued", "--yes"); code != exitOK || !strings.Contains(out, "0 jobs") {
		t.Errorf("cancel of nothing: exit %d, %q", code, out)
	}
	if code, _, errOut := gofer(t, "", "cancel", "--state", "queued"); code != exitUsage || !strings.Contains(errOut, "--yes") {
		t.Errorf("cancel of nothing without --yes: exit %d, %q; want what it is with jobs", code, errOut)
	}
	for _, args := range [][]string{{}, {"a", "--site", "shop.test"}, {"--state", "lost"}, {"--site", "http://shop.test/", "--yes"}} {
		if code, _, _ := gofer(t, "", append([]string{"cancel"}, args...)...); code != exitUsage {
			t.Errorf("cancel %v: exit %d, want %d", args, code, exitUsage)
		}
	}
}

func TestManyDeadLettersAreFoundByTheirFlags(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	deadLetter := func(queue, id, code, url string) {
		t.Helper()
		r := jobs.Result{Queue: queue, ID: id, Outcome: jobs.Failed, Error: code, URL: url, FinishedAt: time.Now()}
		if err := workerstream.New(w.client).DeadLetter(t.Context(), queue, id, []byte(url), &r); err != nil {
			t.Fatal(err)
		}
	}
	deadLetter("default", "a", jobs.ErrTimedOut, "http://shop.test/")
	deadLetter("default", "b", jobs.ErrAttemptsExhausted, "http://shop.test/")
	deadLetter("low", "c", jobs.ErrTimedOut, "http://books.test/")
	deadLetter("low", "d", jobs.ErrTimedOut, "http://books.test/")
	letters := func() (out string) {
		for _, l := range read[[]letterFacts](t, "dead", "ls") {
			out += l.String() + " "
		}
		return out
	}
	if list := read[[]letterFacts](t, "dead", "ls", "--reason", jobs.ErrTimedOut, "--queue", "low", "--site", "books.test", "--since", "1h"); len(list) != 2 || list[0].ID != "c" {
		t.Errorf("dead ls with the flags of purge: got %+v, want the two letters that purge would remove", list)
	}
	if code, out, errOut := gofer(t, "", "dead", "ls", "--reason", "timedout"); code != exitFailed || out != "" || !strings.Contains(errOut, "did you mean timed_out?") {
		t.Errorf("dead ls with a misspelt reason: exit %d, %q, %q", code, out, errOut)
	}
	if code, _, errOut := gofer(t, "", "dead", "purge", "--all"); code != exitUsage || !strings.Contains(errOut, "Remove 4 dead letters?") {
		t.Errorf("purge without --yes: exit %d, %q", code, errOut)
	}
	if code, _, errOut := gofer(t, "", "dead", "purge", "--reason", jobs.ErrTimedOut, "--queue", "default", "--yes"); code != exitOK || letters() != "default/b low/c low/d " {
		t.Errorf("purge by reason and queue: exit %d, %q; left %q", code, errOut, letters())
	}
	for _, args := range []string{"--reason no_proxy --yes", "--queue none --yes --json", "- --yes"} {
		if code, out, errOut := gofer(t, "", append([]string{"dead", "replay"}, strings.Fields(args)...)...); code != exitOK || out != "" || errOut != "No dead letters fit.\n" {
			t.Errorf("replay %s, which fits nothing: exit %d, %q, %q", args, code, out, errOut)
		}
	}
	for reason, want := range map[string]string{
		"timedout": `no dead letter has the reason "timedout", did you mean timed_out?`, "banned": `no dead letter has the reason "banned": those that are kept have attempts_exhausted, timed_out`,
	} {
		for _, verb := range []string{"purge", "replay"} {
			if code, out, errOut := gofer(t, "", "dead", verb, "--reason", reason, "--yes"); code != exitFailed || out != "" || !strings.Contains(errOut, want) {
				t.Errorf("%s --reason %s: exit %d, %q, %q; want %s", verb, reason, code, out, errOut, want)
			}
		}
	}
	if code, out, errOut := gofer(t, "", "dead", "replay", "--site", "books.test", "--since", "1h", "--yes"); code != exitOK || strings.Count(out, "low/replay-") != 2 {
		t.Errorf("replay by site: exit %d, %q, %q", code, out, errOut)
	}
	if code, _, errOut := gofer(t, "", "dead", "purge", "b", "nobody", "--yes"); code != exitFailed || !strings.Contains(errOut, "nobody") || letters() != "" {
		t.Errorf("purge of two ids: exit %d, %q; left %q", code, errOut, letters())
	}
	for _, args := range [][]string{{"purge"}, {"purge", "a", "--all"}, {"replay", "a", "--reason", "x"}, {"replay"}} {
		if code, _, _ := gofer(t, "", append([]string{"dead"}, args...)...); code != exitUsage {
			t.Errorf("dead %v: exit %d, want %d", args, code, exitUsage)
		}
	}
}

func TestKeptResultsAreListedByOutcomeAndStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	for _, r := range []jobs.Result{
		{Queue: "default", ID: "a", Outcome: jobs.Succeeded, Status: 200}, {Queue: "default", ID: "b", Outcome: jobs.Succeeded, Status: 404},
		{Queue: "low", ID: "c", Outcome: jobs.Failed, Error: jobs.ErrTimedOut}, {Queue: "low", ID: "d", Outcome: jobs.Failed, Error: jobs.ErrAttemptsExhausted, Status: 429},
	} {
		r.FinishedAt = time.Now()
		if _, err := w.client.StoreResult(t.Context(), &r); err != nil {
			t.Fatal(err)
		}
	}
	for args, want := range map[string]string{
		"--failed": "c d", "--status 4xx": "b d", "--status 404": "b", "--status none": "c", "--failed --queue default": "", "--limit 3": "b c d",
		"--limit 1 --status 2xx": "a", "--since 1h": "a b c d",
	} {
		code, out, errOut := gofer(t, "", append([]string{"results", "--json"}, strings.Fields(args)...)...)
		var ids []string
		for line := range strings.Lines(out) {
			var r jobs.Summary
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatal(err)
			}
			ids = append(ids, r.ID)
		}
		if got := strings.Join(ids, " "); code != exitOK || got != want {
			t.Errorf("results %s: exit %d, %q, %q; want %q", args, code, got, errOut, want)
		}
		if got, said := strings.Contains(errOut, "No results."), want == ""; got != said {
			t.Errorf("results %s: says that there are none: %v, want %v", args, got, said)
		}
	}
	for _, args := range []string{"a --failed", "--failed --all", "--status 4", "--status 44x", "--limit -1", "--limit 0", "--since never", "--since 2999-01-01T00:00:00Z", "--limit 1 --durable reader"} {
		if code, _, _ := gofer(t, "", append([]string{"results"}, strings.Fields(args)...)...); code != exitUsage {
			t.Errorf("results %s: exit %d, want %d", args, code, exitUsage)
		}
	}
}

func TestOnlyYesAgrees(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]int{"y\n": exitOK, "YES\n": exitOK, "n\n": exitFailed, "\n": exitFailed, "": exitFailed, "yesterday\n": exitFailed} {
		var asked bytes.Buffer
		a := newApp(io.Discard, &asked, nil)
		a.in, a.interactive = strings.NewReader(answer), true
		code := exitOK
		if err := a.confirm(false, 2, true, "Cancel 2 jobs?"); err != nil {
			code = exitCode(err)
		}
		if code != want || !strings.Contains(asked.String(), "Cancel 2 jobs? [y/N]") {
			t.Errorf("answer %q: exit %d, asked %q; want exit %d", answer, code, asked.String(), want)
		}
	}
}

func TestTheFirstTenFailuresAreNamedAndTheOthersCounted(t *testing.T) {
	t.Parallel()
	things := make([]int, 30)
	for i := range things {
		things[i] = i
	}
	done, err := forEach(t.Context(), things, func(_ context.Context, i int) error {
		if i%2 == 0 {
			return fmt.Errorf("thing %d", i)
		}
		return nil
	})
	if done != 15 || err == nil || strings.Count(err.Error(), "thing ") != maxNamed || !strings.Contains(err.Error(), "and 5 more") {
		t.Errorf("forEach = %d, %v", done, err)
	}
	if _, err := forEach(t.Context(), things, func(context.Context, int) error { return nil }); err != nil {
		t.Errorf("forEach without a failure: %v", err)
	}
	if !errors.Is(joinFirst([]error{nil, io.EOF}), io.EOF) || joinFirst(nil) != nil {
		t.Error("joinFirst lost an error, or made one")
	}
}

// TestADurableThatIsMissingIsNamedWithTheCommandThatCreatesIt: after that command the same call follows it.
func TestADurableThatIsMissingIsNamedWithTheCommandThatCreatesIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"results --durable mine":              "the stream GOFER_RESULTS has no consumer mine: nats consumer add GOFER_RESULTS mine ",
		"events --until-now --durable mine":   "the stream GOFER_EVENTS has no consumer mine: nats consumer add GOFER_EVENTS mine ",
		"events --until-now --durable a.b":    "invalid consumer name",
		"events --until-now --durable reader": "",
	} {
		code, _, errOut := gofer(t, "", strings.Fields(args)...)
		if !strings.Contains(errOut, want) || strings.Contains(errOut, "err_code") || (code == exitOK) != (want == "") {
			t.Errorf("%s: exit %d, %q, want %q", args, code, errOut, want)
		}
	}
	if err := w.client.JetStream().DeleteConsumer(t.Context(), "GOFER_EVENTS", client.Reader); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := gofer(t, "", "events", "--durable", client.Reader); code != exitFailed || !strings.HasSuffix(errOut, "has no consumer reader: gofer setup creates it\n") {
		t.Errorf("the reader is missing: exit %d, %q", code, errOut)
	}
}
