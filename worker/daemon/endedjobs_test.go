package daemon_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/admin"
	"github.com/gofer-mq/gofer/worker/daemon"
)

// ended is an installation with results and dead letters.
type ended struct {
	*testing.T
	bus *bus.Client
	n   int
}

func newEnded(t *testing.T) *ended {
	t.Helper()
	names, err := jobs.NewNames("")
	if err != nil {
		t.Fatal(err)
	}
	b, err := bus.New(testenv.StartNATS(t, nil).Connect(), names)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	return &ended{T: t, bus: b}
}

// store publishes results, and a dead letter for each failed job if letter is true. The ids are outcome and number.
func (e *ended) store(outcome, queue, site string, n int, letter bool) {
	e.Helper()
	for range n {
		e.n++
		r := jobs.Result{Queue: queue, ID: fmt.Sprint(outcome, e.n), Outcome: outcome, URL: "http://" + site + "/", FinishedAt: time.Unix(int64(e.n), 0)}
		subject := e.bus.Names().ResultIngress(r.Queue, r.ID)
		if letter {
			subject = e.bus.Names().Dead(r.Queue, r.ID)
		}
		if _, err := e.bus.JetStream().PublishMsgAsync(&nats.Msg{Subject: subject, Header: r.Facts(), Data: []byte("body")}); err != nil {
			e.Fatal(err)
		}
	}
	select {
	case <-e.bus.JetStream().PublishAsyncComplete():
	case <-time.After(testenv.Patience):
		e.Fatal("the results are not stored")
	}
}

func (e *ended) list(ctx context.Context, f admin.JobFilter, limit int) (ids string, partial bool) {
	e.Helper()
	list, partial, err := daemon.ListEnded(ctx, e.bus, f, limit)
	if err != nil {
		e.Fatal(err)
	}
	for _, job := range list {
		ids += " " + job.Queue + "/" + job.ID
	}
	return strings.TrimSpace(ids), partial
}

// TestTheNewestEndedJobsAreListed: they are read from the newest back, in parts, and failed ones by their dead letters and
// results.
func TestTheNewestEndedJobsAreListed(t *testing.T) {
	t.Parallel()
	e := newEnded(t)
	e.store(jobs.Cancelled, "default", "a.test", 1, false)
	e.store(jobs.Succeeded, "low", "b.test", 1, false)
	e.store(jobs.Succeeded, "default", "a.test", 2500, false)
	e.store(jobs.Cancelled, "default", "a.test", 1, false)
	e.store(jobs.Failed, "default", "a.test", 1, false) // its letter is gone
	e.store(jobs.Failed, "default", "a.test", 1, true)
	e.store(jobs.Failed, "low", "b.test", 1100, true)
	e.store(jobs.Failed, "default", "b.test", 1, true)
	e.n--
	e.store(jobs.Failed, "default", "b.test", 1, false) // the same job
	for _, test := range []struct {
		filter admin.JobFilter
		limit  int
		want   string
	}{
		{admin.JobFilter{State: jobs.Cancelled}, 100, "default/cancelled1 default/cancelled2503"},
		{admin.JobFilter{State: jobs.Cancelled}, 1, "default/cancelled2503"},
		{admin.JobFilter{State: jobs.Succeeded}, 2, "default/succeeded2501 default/succeeded2502"},
		{admin.JobFilter{State: jobs.Succeeded, Queue: "low"}, 2, "low/succeeded2"},
		{admin.JobFilter{State: jobs.Succeeded, Site: "b.test"}, 2, "low/succeeded2"},
		{admin.JobFilter{State: jobs.Failed, Queue: "default"}, 5, "default/failed2504 default/failed2505 default/failed3606"},
		{admin.JobFilter{State: jobs.Failed, Queue: "default"}, 2, "default/failed2505 default/failed3606"},
		{admin.JobFilter{State: jobs.Failed}, 2, "low/failed3605 default/failed3606"},
		{admin.JobFilter{State: jobs.Failed, Site: "c.test"}, 2, ""},
		{admin.JobFilter{State: jobs.Succeeded, Site: "B.test.:80"}, 2, "low/succeeded2"},
	} {
		got, partial := e.list(t.Context(), test.filter, test.limit)
		// Others fit wherever the list is as long as it may be.
		if full := len(strings.Fields(got)) == test.limit; got != test.want || partial != full {
			t.Errorf("%+v: got %q, partial %t; want %q, %t", test.filter, got, partial, test.want, full)
		}
	}
}

// TestJobsOfAURLAreFoundEndedOrNot: by their results, dead letters and messages.
func TestJobsOfAURLAreFoundEndedOrNot(t *testing.T) {
	t.Parallel()
	e := newEnded(t)
	e.store(jobs.Succeeded, "default", "a.test", 1, false)
	e.store(jobs.Failed, "low", "a.test", 1, true)
	e.store(jobs.Succeeded, "low", "b.test", 1, false)
	for i, url := range []string{"http://A.test:80", "http://a.test/other", "http://b.test/"} {
		if _, err := e.bus.JetStream().Publish(t.Context(), fmt.Sprintf("gofer.jobs.default.j%d", i), []byte(url)); err != nil {
			t.Fatal(err)
		}
	}
	for filter, want := range map[admin.JobFilter]string{
		{URL: "http://a.test/"}:                        "default/succeeded1 low/failed2 default/j0; 6 of 6",
		{URL: "http://a.test/", Queue: "low"}:          "low/failed2; 2 of 2", // the server leaves out what is of other queues
		{URL: "http://a.test/", State: jobs.Failed}:    "low/failed2; 3 of 3",
		{URL: "http://b.test/", State: "queued"}:       "default/j2; 3 of 3",
		{URL: "http://b.test/", State: "no_proxy"}:     "; 0 of 0",
		{URL: "http://c.test/", State: jobs.Cancelled}: "; 2 of 2",
	} {
		found, err := daemon.FindJobs(t.Context(), e.bus, filter, 5)
		var ids []string
		for _, job := range found.Jobs {
			ids = append(ids, job.Queue+"/"+job.ID)
		}
		if got := fmt.Sprintf("%s; %d of %d", strings.Join(ids, " "), found.Looked, found.Total); got != want || err != nil || found.Partial {
			t.Errorf("%+v: got %q, partial %t, %v; want %q", filter, got, found.Partial, err, want)
		}
	}
}

// TestTheNewestOfAllJobsOfAURLAreListedTheOldestFirst has jobs that began to wait before others ended.
func TestTheNewestOfAllJobsOfAURLAreListedTheOldestFirst(t *testing.T) {
	t.Parallel()
	e := newEnded(t)
	e.store(jobs.Succeeded, "default", "a.test", 1, false) // long ago
	for _, id := range []string{"j1", "j2"} {
		if _, err := e.bus.JetStream().Publish(t.Context(), "gofer.jobs.default."+id, []byte("http://a.test/")); err != nil {
			t.Fatal(err)
		}
	}
	e.n = int(time.Now().Add(time.Hour).Unix())
	e.store(jobs.Cancelled, "low", "a.test", 1, false)
	last := fmt.Sprint("low/cancelled", e.n)
	for limit, want := range map[int]string{
		5: "[default/succeeded1 default/j1 default/j2 " + last + "] false",
		4: "[default/succeeded1 default/j1 default/j2 " + last + "] false",
		3: "[default/j1 default/j2 " + last + "] true",
		1: "[" + last + "] true",
	} {
		found, err := daemon.FindJobs(t.Context(), e.bus, admin.JobFilter{URL: "http://a.test/"}, limit)
		var ids []string
		for _, job := range found.Jobs {
			ids = append(ids, job.Queue+"/"+job.ID)
		}
		if got := fmt.Sprint(ids, " ", found.Partial); got != want || err != nil {
			t.Errorf("limit %d: got %s, %v; want %s", limit, got, err, want)
		}
	}
	if found, err := daemon.FindJobs(t.Context(), e.bus, admin.JobFilter{State: jobs.StateQueued}, 1); len(found.Jobs) != 1 || !found.Partial || err != nil {
		t.Errorf("one of two queued jobs: got %+v, %v; want that others may fit", found, err)
	}
}

// TestARedirectedJobIsFoundByWhereItEnded, and by its own URL as long as its dead letter is kept: a result does not hold it.
func TestARedirectedJobIsFoundByWhereItEnded(t *testing.T) {
	t.Parallel()
	e := newEnded(t)
	for _, outcome := range []string{jobs.Succeeded, jobs.Failed} {
		r := jobs.Result{Queue: "default", ID: outcome, Outcome: outcome, URL: "https://www.a.test/home", FinishedAt: time.Now()}
		subjects := []string{e.bus.Names().ResultIngress(r.Queue, r.ID)}
		if outcome == jobs.Failed {
			subjects = append(subjects, e.bus.Names().Dead(r.Queue, r.ID))
		}
		for _, subject := range subjects {
			msg := &nats.Msg{Subject: subject, Header: r.Facts(), Data: []byte(`{"url":"HTTP://A.test:80"}`)}
			if _, err := e.bus.JetStream().PublishMsg(t.Context(), msg); err != nil {
				t.Fatal(err)
			}
		}
	}
	for url, want := range map[string]string{"https://www.a.test/home": "default/succeeded default/failed", "http://a.test/": "default/failed"} {
		found, err := daemon.FindJobs(t.Context(), e.bus, admin.JobFilter{URL: url}, 5)
		var ids []string
		for _, job := range found.Jobs {
			ids = append(ids, job.Queue+"/"+job.ID)
		}
		if got := strings.Join(ids, " "); got != want || err != nil {
			t.Errorf("%s: got %q, %v; want %q", url, got, err, want)
		}
	}
}

// TestAListWithoutTimeIsPartial: it is no error.
func TestAListWithoutTimeIsPartial(t *testing.T) {
	t.Parallel()
	e := newEnded(t)
	e.store(jobs.Cancelled, "default", "a.test", 1, false)
	for _, state := range jobs.Outcomes() {
		request, cancel := context.WithTimeout(t.Context(), time.Second) // all of it is needed for the answer
		search, end := daemon.SearchTime(request)
		if got, partial := e.list(search, admin.JobFilter{State: state}, 5); got != "" || !partial {
			t.Errorf("%s: got %q, partial %t; want nothing, and that it is partial", state, got, partial)
		}
		end()
		cancel()
	}
}
