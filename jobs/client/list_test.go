package client_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/stream"
)

// listed returns the ids that a filter lists, with their states, in the order of the list.
func listed(t *testing.T, in *installation, f client.ListFilter) string {
	t.Helper()
	out := ""
	if err := in.List(soon(t), f, func(job client.Listed) error {
		out += fmt.Sprintf("%s/%s:%s ", job.Queue, job.ID, job.State)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// oneOfEach fills an installation with a job in each state. The consumer of queue default has given out the first job.
func oneOfEach(t *testing.T) *installation {
	t.Helper()
	in := install(t, bus.Settings{Queues: []string{"default", "low"}})
	submit := func(queue, id, url string) {
		t.Helper()
		if _, err := in.Submit(soon(t), jobs.Job{Queue: queue, ID: id, URL: url}); err != nil {
			t.Fatal(err)
		}
	}
	schedule := func(id string, p jobs.Progress, wait time.Duration) {
		t.Helper()
		if _, err := stream.New(in.bus).Schedule(soon(t), "default", id, []byte("http://b.test:8080/x"), &p, time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
	}
	submit("default", "runs", "http://a.test/")
	consumer, err := in.js.Consumer(soon(t), in.names.Stream("JOBS"), in.names.WorkerConsumer("default"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := consumer.Next(jetstream.FetchMaxWait(testenv.Patience)); err != nil {
		t.Fatal(err)
	}
	schedule("delayed", jobs.Progress{JobSeq: 90}, time.Hour)
	submit("default", "queued", "https://a.test/y")
	schedule("retrying", jobs.Progress{JobSeq: 91, Attempts: []jobs.Attempt{{Attempt: 1}}}, time.Hour)
	schedule("proxyless", jobs.Progress{JobSeq: 92, WaitingSince: time.Now().Add(-5 * time.Hour)}, time.Hour)
	if _, err := stream.New(in.bus).WaitForSite(soon(t), "b.test:8080", "default", "sited", 0, []byte("http://b.test:8080/x"), &jobs.Progress{JobSeq: 94, SiteSince: time.Now()}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	submit("low", "other", "http://b.test:8080/z")
	schedule("due", jobs.Progress{JobSeq: 93}, -time.Second)
	testenv.Eventually(t, "the server to release the due job", func() bool {
		found, err := in.Find(soon(t), client.Key{Queue: "default", ID: "due"})
		return err == nil && len(found) == 1 && found[0].Place == client.Due
	})
	return in
}

func TestAListNamesTheStateOfEachJobTheOldestFirst(t *testing.T) {
	in := oneOfEach(t)
	for _, test := range []struct {
		filter client.ListFilter
		want   string
	}{
		{client.ListFilter{}, "default/runs:running default/delayed:delayed default/queued:queued default/retrying:retrying " +
			"default/proxyless:no_proxy default/sited:site_down low/other:queued default/due:queued "},
		{client.ListFilter{Queue: "low"}, "low/other:queued "},
		{client.ListFilter{Queue: "nobody"}, ""},
		{client.ListFilter{State: jobs.StateQueued, Queue: "default"}, "default/queued:queued default/due:queued "},
		{client.ListFilter{State: jobs.StateSiteDown}, "default/sited:site_down "},
		{client.ListFilter{State: jobs.StateRetrying}, "default/retrying:retrying "},
		{client.ListFilter{Site: "a.test"}, "default/runs:running default/queued:queued "},
		{client.ListFilter{Site: "A.test.:80"}, "default/runs:running default/queued:queued "},
		{client.ListFilter{Site: "b.test:8080", State: jobs.StateQueued}, "low/other:queued default/due:queued "},
		{client.ListFilter{Since: time.Now().Add(time.Hour)}, ""},
	} {
		if got := listed(t, in, test.filter); got != test.want {
			t.Errorf("List(%+v) = %q, want %q", test.filter, got, test.want)
		}
	}
}

// TestAJobWaitsSinceItsFirstTry: each vain try stores the job again.
func TestAJobWaitsSinceItsFirstTry(t *testing.T) {
	in := oneOfEach(t)
	for age, want := range map[time.Duration]int{6 * time.Hour: 1, time.Hour: 0} {
		list, _, err := in.ListFirst(soon(t), client.ListFilter{State: jobs.StateNoProxy, Since: time.Now().Add(-age)}, 10)
		if err != nil || len(list) != want {
			t.Fatalf("since %s: %v, %v; want %d", age, list, err, want)
		}
		if want == 1 && time.Since(list[0].Since) < 4*time.Hour {
			t.Errorf("it waits since %s, want 5 h", list[0].Since)
		}
	}
}

func TestAListIsReadPageByPage(t *testing.T) {
	in := install(t, bus.Settings{})
	const n = 2345 // more than two pages
	for i := range n {
		if _, err := in.js.PublishAsync(in.names.Job("default", fmt.Sprint("j", i)), []byte("http://a.test/")); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-in.js.PublishAsyncComplete():
	case <-soon(t).Done():
		t.Fatal("the jobs are not stored")
	}
	next := 0
	if err := in.List(soon(t), client.ListFilter{}, func(job client.Listed) error {
		if want := fmt.Sprint("j", next); job.ID != want {
			t.Errorf("job %d of the list = %s, want %s", next, job.ID, want)
		}
		next++
		return nil
	}); err != nil || next != n {
		t.Errorf("List used %d jobs, %v; want %d", next, err, n)
	}
	first, more, err := in.ListFirst(soon(t), client.ListFilter{}, 1500)
	if err != nil || len(first) != 1500 || !more {
		t.Errorf("ListFirst(1500) = %d jobs, more %t, %v", len(first), more, err)
	}
	if all, more, err := in.ListFirst(soon(t), client.ListFilter{}, n); err != nil || len(all) != n || more {
		t.Errorf("ListFirst(%d) = %d jobs, more %t, %v", n, len(all), more, err)
	}
}

// TestASearchTellsHowFarItHasCome, also if it is stopped.
func TestASearchTellsHowFarItHasCome(t *testing.T) {
	in := oneOfEach(t)
	all, err := in.Search(soon(t), client.ListFilter{URL: "http://nobody.test/"}, 10)
	if err != nil || len(all.List) > 0 || all.More || all.Looked != all.Jobs || all.Jobs < 7 {
		t.Errorf("got %+v, %v; want no job, and that it looked at all", all, err)
	}
	waiting, err := in.Search(soon(t), client.ListFilter{State: jobs.StateDelayed}, 10)
	if err != nil || len(waiting.List) == 0 || waiting.Looked >= all.Looked || waiting.Looked != waiting.Jobs {
		t.Errorf("jobs that are delayed: got %+v, %v; want some, and that it looked only at those that wait", waiting, err)
	}
	for filter, want := range map[client.ListFilter]uint64{
		{Queue: "low"}:                             all.Jobs - 2, // the server leaves out the new jobs of other queues, but not those that wait
		{Queue: "low", State: jobs.StateDelayed}:   waiting.Jobs,
		{Since: time.Now().Add(time.Hour)}:         0,
		{Queue: "low", Since: time.Unix(1_000, 0)}: all.Jobs - 2,
	} {
		if got, err := in.Search(soon(t), filter, 10); err != nil || got.Jobs != want || got.Looked != want {
			t.Errorf("%+v: it looked at %d of %d, %v; want %d", filter, got.Looked, got.Jobs, err, want)
		}
	}
	stopped, stop := context.WithCancelCause(soon(t))
	stop(errors.New("enough time"))
	if got, err := in.Search(stopped, client.ListFilter{}, 10); err == nil || got.Looked > 0 {
		t.Errorf("without time: got %+v, %v; want an error, and that it looked at none", got, err)
	}
}

// TestAJobThatBeginsToWaitIsListedOnce has the moment after a worker has stored the job that waits, and before it acks the one
// that runs.
func TestAJobThatBeginsToWaitIsListedOnce(t *testing.T) {
	in := oneOfEach(t)
	p := jobs.Progress{JobSeq: 95, Attempts: []jobs.Attempt{{Attempt: 1}}}
	if _, err := stream.New(in.bus).Schedule(soon(t), "default", "runs", []byte("http://a.test/"), &p, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	list, _, err := in.ListFirst(soon(t), client.ListFilter{}, 100)
	if err != nil {
		t.Fatal(err)
	}
	var states []string
	for _, job := range list {
		if job.ID == "runs" {
			states = append(states, job.State)
		}
	}
	if fmt.Sprint(states) != "[retrying]" || len(list) != 8 {
		t.Errorf("got %d jobs, this one as %v; want 8, and it as retrying", len(list), states)
	}
}

func TestAListThatCannotBeReadSaysWhy(t *testing.T) {
	in := bare(t)
	none := func(client.Listed) error { return nil }
	if err := in.List(soon(t), client.ListFilter{}, none); !errors.Is(err, client.ErrNotSetUp) {
		t.Errorf("List without streams: %v, want %v", err, client.ErrNotSetUp)
	}
	if err := in.List(soon(t), client.ListFilter{Queue: "a.b"}, none); err == nil {
		t.Error("List of a queue that is none: no error")
	}
	if err := in.List(soon(t), client.ListFilter{Site: "http://a.test/"}, none); err == nil {
		t.Error("List of a site that is none: no error")
	}
	if err := in.List(soon(t), client.ListFilter{}, nil); err == nil {
		t.Error("List without a function: no error")
	}
}

// TestForgedHeadersHideNoJobAndRemoveNone has a publisher that writes into its messages what the server writes when it reads one.
func TestForgedHeadersHideNoJobAndRemoveNone(t *testing.T) {
	in := install(t, bus.Settings{Queues: []string{"default", "low"}})
	victim, err := in.Submit(soon(t), jobs.Job{Queue: "low", ID: "victim", URL: "http://a.test/"})
	must(t, err)
	readable, unreadable := testenv.ForgedHeaders(fmt.Sprint(victim.Seq), in.names.Job("low", "victim"))
	for kind, header := range readable {
		in.server.StoreRaw(t, in.names.Job("default", kind), header, "http://evil.test/")
	}
	for kind, header := range unreadable {
		in.server.StoreRaw(t, in.names.Job("default", kind), header, "http://evil.test/")
	}
	_, err = in.Submit(soon(t), job("last"))
	must(t, err)
	seen := map[string]int{}
	must(t, in.List(soon(t), client.ListFilter{}, func(job client.Listed) error {
		if seen[job.String()]++; seen[job.String()] > 1 {
			return fmt.Errorf("%s is listed again", job.Key)
		}
		return nil
	}))
	if len(seen) != len(readable)+2 || seen["low/victim"] != 1 || seen["default/last"] != 1 {
		t.Errorf("listed: %v; want the victim, the last one and %d others", seen, len(readable))
	}
	for kind := range readable {
		must(t, in.Cancel(soon(t), key(kind)))
	}
	for kind := range unreadable {
		if err := in.Cancel(soon(t), key(kind)); err == nil || errors.Is(err, client.ErrNotFound) {
			t.Errorf("cancel of %s: %v, want an error that says that its headers cannot be read", kind, err)
		}
	}
	left, err := in.bus.CountBySubject(soon(t), "GOFER_JOBS", ">")
	must(t, err)
	if left[in.names.Job("low", "victim")] != 1 || len(left) != len(unreadable)+2 {
		t.Errorf("left: %v; want the victim, the last one and the %d that cannot be read", left, len(unreadable))
	}
}
