package rollup_test

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/rollup"
)

func TestStepsAreWholeAlignedAndForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := rollup.NewBook()
		b.AddJob(rollup.JobFact{Outcome: jobs.Succeeded, Status: 204, Attempts: 1, Duration: time.Second})
		b.AddJob(rollup.JobFact{Outcome: jobs.Failed, Status: 503, Attempts: 3, Duration: 3 * time.Second})
		b.AddJob(rollup.JobFact{Outcome: jobs.Failed, Error: jobs.ErrInvalidJob})
		b.AddRetry(jobs.RetryEvent{})
		if got := b.Steps(rollup.ShortStep, 24); len(got) != 0 {
			t.Errorf("a step that still runs is told: %+v", got)
		}
		time.Sleep(rollup.ShortStep)
		got := b.Steps(rollup.ShortStep, 24)
		if len(got) != 1 {
			t.Fatalf("steps: got %+v, want one", got)
		}
		s := got[0]
		if want := (rollup.Classes{Status2xx: 1, Status5xx: 1, None: 1}); s.Classes != want || s.Failed != 2 || s.Retries != 1 || s.Jobs() != 3 || s.Latency.Count() != 2 {
			t.Errorf("step: got %+v of %d jobs with %d times, want %+v, 2 failed, 1 retry, 2 times", s.Classes, s.Jobs(), s.Latency.Count(), want)
		}
		if s.At%5 != 0 {
			t.Errorf("start: got %d, want a multiple of 5", s.At)
		}
		time.Sleep(24 * rollup.ShortStep)
		if got := b.Steps(rollup.ShortStep, 24); len(got) != 0 {
			t.Errorf("after two minutes: got %+v, want nothing", got)
		}
		if got := b.Steps(rollup.LongStep, 60); len(got) != 1 || got[0].Jobs() != 3 {
			t.Errorf("minutes: got %+v, want the three jobs", got)
		}
		if got := b.Steps(time.Hour, 60); got != nil {
			t.Errorf("a width that is not kept: got %+v", got)
		}
		time.Sleep(rollup.LongSteps * rollup.LongStep)
		if got := b.Steps(rollup.LongStep, 1000); len(got) != 0 {
			t.Errorf("after an hour: got %+v, want nothing", got)
		}
	})
}

func TestHistogramsOfOtherWorkersAreChecked(t *testing.T) {
	var h, back rollup.Histogram
	h.Observe(time.Second)
	h.Observe(time.Second)
	h.Observe(time.Minute)
	data, err := json.Marshal(&h)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &back); err != nil || back != h {
		t.Errorf("%s: got %v back, %v; want the same", data, back.Mean(), err)
	}
	for _, bad := range []string{`[1,2]`, `[-1]`, `[0,-1,1]`, `[0,256,1]`, `[0,1,-1]`, `[0,1,2000000000000000]`, `["x"]`, `{}`} {
		if err := json.Unmarshal([]byte(bad), &back); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}
