package experiments_test

import (
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
)

// crowd is ten thousand jobs at once under the race detector, in a process of its own: the detector would slow the rest.
func crowd(t *testing.T) row {
	t.Helper()
	from := time.Now()
	out, err := exec.CommandContext(t.Context(), "go", "test", "-race", "-count=1", "-timeout=4m", "-run=^TestJobsAtOnceEnd$", ".").CombinedOutput()
	if err != nil {
		t.Logf("%s", out)
	}
	return row{
		name: "8 races and deadlocks with 10,000 jobs at once", where: "memory, -race", aim: "none", baseline: "–",
		gofer: map[bool]string{true: "none", false: "some"}[err == nil], gain: "in " + seconds(time.Since(from)), met: err == nil,
	}
}

// TestJobsAtOnceEnd holds every first answer back until all jobs wait for theirs, and then lets go. It is short of a deadlock
// by its end; races are the detector's to find.
func TestJobsAtOnceEnd(t *testing.T) {
	width := chosen().crowd
	w := newWorld(1, 0.25)
	w.hold = width
	for _, p := range w.proxies {
		if p.habit == silent {
			p.habit = hangsUp // the time-out has to be long, and is not to be waited for
		}
	}
	f := arm{attempts: 3, breakers: true, strategy: rotation.Performance, timeout: time.Minute}.fetcher(w, 0, func(jobs.Attempt) {})
	results := make([]jobs.Result, width)
	var wg sync.WaitGroup
	for i := range width {
		j := job(t, i)
		wg.Go(func() { results[i] = finish(t, f, j) })
	}
	wg.Wait()
	f.Close()
	w.wg.Wait()
	succeeded := 0
	for i, r := range results {
		if r.Outcome == "" {
			t.Fatalf("job %d: got no result", i)
		}
		if r.Outcome == jobs.Succeeded {
			succeeded++
		}
	}
	if succeeded < width*9/10 {
		t.Errorf("jobs that succeeded: got %d of %d, want nine in ten", succeeded, width)
	}
}
