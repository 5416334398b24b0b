package daemon_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/daemon"
)

// journal runs a journal until stop is called, whose log has no times.
func journal(t *testing.T, proxies func() (usable, known bool, detail string)) (j daemon.Journal, log *testenv.Log, stop func()) {
	t.Helper()
	log = new(testenv.Log)
	j = daemon.NewJournal(slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { j.Run(ctx, proxies) })
	return j, log, func() {
		cancel()
		running.Wait()
	}
}

func usable() (bool, bool, string) { return true, true, "" }

// TestRetriesAreSumsAndFailedJobsAreLines: a minute in which nothing happens has no line, and the end has the sums of the rest.
func TestRetriesAreSumsAndFailedJobsAreLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, log, stop := journal(t, usable)
		for i := range 100 {
			j.AddRetry(jobs.RetryEvent{Queue: "default", JobID: fmt.Sprint("j", i), Fault: []jobs.Fault{jobs.FaultProxy, jobs.FaultTarget}[i%2]})
		}
		j.AddJob(jobs.Result{Queue: "default", ID: "good", Outcome: jobs.Succeeded})
		j.AddJob(jobs.Result{Queue: "default", ID: "bad", Outcome: jobs.Failed, Error: jobs.ErrNoProxy, Detail: "the pool has no\nproxies", AttemptCount: 2, Proxy: "p1"})
		time.Sleep(3*time.Minute + time.Second)
		j.AddJob(jobs.Result{Queue: "default", ID: "gone", Outcome: jobs.Cancelled})
		stop()
		want := `level=INFO msg="job failed" queue=default job=bad reason=no_proxy detail="the pool has no\nproxies" attempts=2 proxy=p1
level=INFO msg="jobs of the last minute" succeeded=1 failed=1 cancelled=0 retries=100 retries_proxy=50 retries_target=50
level=INFO msg="jobs of the last minute" succeeded=0 failed=0 cancelled=1 retries=0
`
		if log.String() != want {
			t.Errorf("got\n%s\nwant\n%s", log, want)
		}
	})
}

// TestManyFailedJobsDoNotFillTheLog: the sums count those that have no line, and the next minute has lines again.
func TestManyFailedJobsDoNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, log, stop := journal(t, usable)
		fail := func(n int) {
			for i := range n {
				j.AddJob(jobs.Result{Queue: "default", ID: fmt.Sprint("j", i), Outcome: jobs.Failed, Error: jobs.ErrInvalidJob})
			}
		}
		fail(1000)
		time.Sleep(time.Minute + time.Second)
		fail(5)
		stop()
		if n := strings.Count(log.String(), `msg="job failed"`); n != 65 {
			t.Errorf("got %d lines of failed jobs, want 65", n)
		}
		if !strings.Contains(log.String(), "failed=1000 cancelled=0 retries=0 failed_without_line=940\n") {
			t.Errorf("the sums are not those of 1,000 failed jobs in:\n%s", log)
		}
	})
}

func TestAWorkerWithoutProxiesWarnsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		ok := false
		set := func(v bool) {
			mu.Lock()
			defer mu.Unlock()
			ok = v
		}
		_, log, stop := journal(t, func() (bool, bool, string) {
			mu.Lock()
			defer mu.Unlock()
			return ok, true, "no proxy is configured"
		})
		time.Sleep(time.Minute)
		set(true)
		time.Sleep(time.Minute)
		set(false)
		time.Sleep(time.Minute)
		stop()
		warning := `level=WARN msg="no proxy can be used, jobs wait" detail="no proxy is configured"` + "\n"
		want := warning + `level=INFO msg="proxies can be used again" detail="no proxy is configured"` + "\n" + warning
		if log.String() != want {
			t.Errorf("got\n%s\nwant\n%s", log, want)
		}
	})
}

// TestAWorkerWithoutProxiesWarnsAtOnceUnlessASourceMayBringSome: the bucket or a list by URL may still be on its way.
func TestAWorkerWithoutProxiesWarnsAtOnceUnlessASourceMayBringSome(t *testing.T) {
	for name, c := range map[string]struct {
		known, usable  time.Duration // from when on; zero is never
		silent, warned time.Duration // until and from when on; zero is never
	}{
		"every source is empty":     {time.Nanosecond, 0, 50 * time.Millisecond, 200 * time.Millisecond},
		"the bucket comes later":    {time.Second, 0, 900 * time.Millisecond, 1200 * time.Millisecond},
		"the bucket never comes":    {0, 0, 4900 * time.Millisecond, 5200 * time.Millisecond},
		"the list comes with some":  {2 * time.Second, 2 * time.Second, time.Minute, 0},
		"the list comes after that": {8 * time.Second, 8 * time.Second, 4900 * time.Millisecond, 5200 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			since := func(d time.Duration) bool { return d > 0 && time.Since(began) >= d }
			_, log, stop := journal(t, func() (bool, bool, string) { return since(c.usable), since(c.known), "none" })
			defer stop()
			time.Sleep(c.silent)
			if log.String() != "" {
				t.Errorf("%s: after %s the log has\n%s", name, c.silent, log)
			}
			time.Sleep(max(0, c.warned-c.silent))
			if want := c.warned > 0; strings.Contains(log.String(), "no proxy can be used, jobs wait") != want {
				t.Errorf("%s: after %s the log has\n%s", name, c.warned, log)
			}
		})
	}
}
