package daemon

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

const (
	// sumEvery is the time between two sums of what happened to jobs.
	sumEvery = time.Minute
	// maxFailedLines is how many jobs that failed have a line of their own between two sums: a bad list of jobs must not fill the
	// disk.
	maxFailedLines = 60
	// lookEvery is how often the journal looks whether proxies can be used.
	lookEvery = 5 * time.Second
	// firstLooks is how often it looks after the start, until it knows that.
	firstLooks = lookEvery / 50
)

// journal logs what matters of jobs: a line for each that failed, and sums of the rest. A retry is a line at
// the level debug only. The lock is not held while a line is written.
type journal struct {
	log *slog.Logger

	mu  sync.Mutex // guards sum
	sum sum
}

// sum is what happened since the latest line with sums.
type sum struct {
	succeeded, failed, cancelled int
	retries                      map[jobs.Fault]int
	unlogged                     int // jobs that failed without a line of their own
}

// newJournal makes an empty journal; run starts it.
func newJournal(log *slog.Logger) *journal { return &journal{log: log} }

// addRetry notes an announced retry.
func (j *journal) addRetry(e jobs.RetryEvent) {
	// No defer, because the logging that follows must not hold the lock.
	j.mu.Lock()
	if j.sum.retries == nil {
		j.sum.retries = map[jobs.Fault]int{}
	}
	j.sum.retries[e.Fault]++
	j.mu.Unlock()
	if !j.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	traced(j.log, e.Trace).Debug("retry", "queue", e.Queue, "job", e.JobID, "attempt", e.Attempt, "proxy", e.Proxy, "fault", e.Fault, "error", e.Error, "delay", e.Delay.String(), "kind", e.Kind)
}

// addJob notes a job whose result is stored.
func (j *journal) addJob(r *jobs.Result) {
	// Only failures have lines: a list of a million good jobs would fill the log.
	if j.countJob(r.Outcome) {
		traced(j.log, r.Trace).Info("job failed", "queue", r.Queue, "job", r.ID, "reason", r.Error, "detail", r.Detail, "attempts", r.AttemptCount, "proxy", r.Proxy)
	}
}

// countJob counts a job that ended, and reports whether it gets a line.
func (j *journal) countJob(outcome string) (line bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch outcome {
	case jobs.Succeeded:
		j.sum.succeeded++
	// A cancelled job was somebody's wish, so it has no line.
	case jobs.Cancelled:
		j.sum.cancelled++
	default:
		j.sum.failed++
		if line = j.sum.failed <= maxFailedLines; !line {
			j.sum.unlogged++
		}
	}
	return line
}

// proxyState is whether proxies can be used, in words, and whether that is known for good: before every source has been read, a
// pool without proxies says little.
type proxyState struct {
	usable, known bool
	detail        string
}

// run logs sums, and whether proxies can be used when that changes, until ctx ends; then the sums of the rest. It says at once
// that no proxy can be used when every source has been read, else after lookEvery.
func (j *journal) run(ctx context.Context, proxies func() proxyState) {
	summing, looking := time.NewTicker(sumEvery), time.NewTicker(firstLooks)
	defer summing.Stop()
	defer looking.Stop()
	started, settled := time.Now(), false
	// A worker begins with the assumption that proxies work, so the first line is about a change for the worse.
	usable := true
	for {
		select {
		case <-ctx.Done():
			// The last sum covers the rest of a minute.
			j.logSum()
			return
		case <-summing.C:
			j.logSum()
		case <-looking.C:
			now := proxies()
			if !settled {
				if !now.known && time.Since(started) < lookEvery {
					continue
				}
				settled = true
				looking.Reset(lookEvery)
			}
			switch {
			case now.usable && !usable:
				j.log.Info("proxies can be used again", "detail", now.detail)
			case !now.usable && usable:
				j.log.Warn("no proxy can be used, jobs wait", "detail", now.detail)
			}
			usable = now.usable
		}
	}
}

// logSum logs and forgets the sums. There is no line if nothing happened.
func (j *journal) logSum() {
	j.mu.Lock()
	s := j.sum
	// Copied and reset in one step, so no event is counted twice or lost.
	j.sum = sum{}
	j.mu.Unlock()
	retries := 0
	for _, n := range s.retries {
		retries += n
	}
	if s.succeeded+s.failed+s.cancelled+retries == 0 {
		return
	}
	attrs := []any{"succeeded", s.succeeded, "failed", s.failed, "cancelled", s.cancelled, "retries", retries}
	// The order is fixed, so lines can be compared.
	for _, fault := range []jobs.Fault{jobs.FaultProxy, jobs.FaultTarget, jobs.FaultPair, jobs.FaultUnclear} {
		if n := s.retries[fault]; n > 0 {
			attrs = append(attrs, "retries_"+string(fault), n)
		}
	}
	if s.unlogged > 0 {
		attrs = append(attrs, "failed_without_line", s.unlogged)
	}
	j.log.Info("jobs of the last minute", attrs...)
}
