package daemon

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// recordRetry counts a retry and stores its event before the delay that the event announces, so that a worker that dies in the
// delay has announced it. That bounds how long a job waits for a server that does not answer: 2 s. Jobs run only on a connection.
func (d *daemon) recordRetry(e jobs.RetryEvent) {
	d.book.AddRetry(e)
	d.metrics.CountRetry(e)
	d.journal.addRetry(e)
	// Not under the run's context: a retry that is planned while the worker drains has to be announced as well.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	began := time.Now()
	err := d.connected.Load().stream.PublishRetry(ctx, e)
	d.metrics.CountPublish("event", err == nil, time.Since(began))
	// The retry happens nevertheless; only its announcement is lost.
	if err != nil {
		d.log.Warn("retry event not stored", "queue", e.Queue, "job", e.JobID, "error", err)
	}
}

// traced is a log that names the trace of a job, if it has one.
func traced(log *slog.Logger, trace jobs.Trace) *slog.Logger {
	if trace.Parent != "" {
		log = log.With(jobs.HeaderTraceParent, trace.Parent)
	}
	if trace.State != "" {
		log = log.With(jobs.HeaderTraceState, trace.State)
	}
	return log
}

// enqueue puts an event into the outbox. A full outbox loses the event, counts and logs that, rather than block a job.
func (d *daemon) enqueue(publish func(context.Context) error) {
	// A select with default never blocks, which matters because the pool and attempts call this.
	select {
	case d.outbox <- publish:
	default:
		d.metrics.CountPublish("event", false, 0)
		d.log.Warn("event dropped, too many wait to be published")
	}
}

// recordAttempt counts an attempt that ended, in the rollups and in the metrics. Reason is from a closed list.
func (d *daemon) recordAttempt(a *jobs.Attempt, bytes int64, reason string) {
	fact := rollup.AttemptFact{Proxy: a.Proxy, Status: a.Status, Fault: a.Fault, Reason: reason, Duration: a.Duration.Std(), Bytes: bytes}
	// Both count the same fact, so their numbers agree.
	d.book.AddAttempt(fact)
	d.metrics.CountAttempt(fact)
}

// recordJob counts a job whose result was stored, under the policy that applied to it.
func (d *daemon) recordJob(job *jobs.Job, result *jobs.Result) {
	fact := rollup.JobFact{
		// The policy is the one of now. It may have changed during the job, whose result does not name it.
		Queue: result.Queue, ID: result.ID, Outcome: result.Outcome, Error: result.Error, Status: result.Status, Detail: result.Detail, URL: cmp.Or(result.URL, job.URL), Policy: job.Retry.ApplyTo(d.policy()).Name(),
		Attempts: result.AttemptCount, Duration: result.Duration, Bytes: result.Bytes,
	}
	d.book.AddJob(fact)
	d.metrics.CountJob(fact)
	// Asked before the attributes are built, since a busy worker ends thousands of jobs a second.
	if d.log.Enabled(context.Background(), slog.LevelDebug) {
		traced(d.log, result.Trace).Debug("job ended", "queue", result.Queue, "job", result.ID, "outcome", result.Outcome, "error", result.Error, "status", result.Status,
			"attempts", result.AttemptCount, "proxy", result.Proxy)
	}
	d.journal.addJob(result)
}

// publishOutbox publishes events from the outbox until ctx ends, and then the events that are left, until last ends. It runs only
// on a connection, so the events may use it.
func (d *daemon) publishOutbox(ctx, last context.Context) {
	for ctx.Err() == nil {
		select {
		case publish := <-d.outbox:
			// Under last and not ctx: an event that was taken out of the box when ctx ended is still published.
			d.publish(last, publish)
		case <-ctx.Done():
		}
	}
	// Nobody takes events but this goroutine, so len cannot fall in between.
	for len(d.outbox) > 0 && last.Err() == nil {
		d.publish(last, <-d.outbox)
	}
	// Only this many can be lost silently to the fleet, so they are counted in the log.
	if lost := len(d.outbox); lost > 0 {
		d.log.Error("events of the last seconds are lost", "events", lost)
	}
}

// publish publishes one event within 5 s. One that fails is counted and logged, not tried again: it is news, and grows old.
func (d *daemon) publish(ctx context.Context, message func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	began := time.Now()
	err := message(ctx)
	d.metrics.CountPublish("event", err == nil, time.Since(began))
	if err != nil {
		d.log.Warn("event not published", "error", err)
	}
}
