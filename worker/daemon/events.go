package daemon

import (
	"context"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// retried stores the announcement before the wait that it announces.
func (d *daemon) retried(e jobs.RetryEvent) {
	d.book.Retry(e)
	d.metrics.Retry(e)
	d.log.Info("retry", "queue", e.Queue, "job", e.JobID, "attempt", e.Attempt, "proxy", e.Proxy, "fault", e.Fault, "error", e.Error, "delay", e.Delay.String(), "kind", e.Kind)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	began := time.Now()
	err := d.connected.Load().stream.PublishRetry(ctx, e)
	d.metrics.Published("event", err == nil, time.Since(began))
	if err != nil {
		d.log.Warn("retry event not stored", "queue", e.Queue, "job", e.JobID, "error", err)
	}
}

// send puts a message into the outbox; a full one loses it, with a word about it, rather than hold up a job.
func (d *daemon) send(publish func(context.Context) error) {
	select {
	case d.outbox <- publish:
	default:
		d.metrics.Published("event", false, 0)
		d.log.Warn("event dropped, too many wait to be published")
	}
}

func (d *daemon) attempted(queue string, a jobs.Attempt, bytes int64, reason string) {
	fact := rollup.AttemptFact{
		Queue: queue, Proxy: a.Proxy, Region: a.Region, Attempt: a.Attempt, Status: a.Status, Fault: a.Fault, Reason: reason,
		Duration: a.Duration.Std(), Bytes: bytes,
	}
	d.book.Attempt(fact)
	d.metrics.Attempt(fact)
}

func (d *daemon) ended(job jobs.Job, result jobs.Result) {
	fact := rollup.JobFact{
		Queue: result.Queue, ID: result.ID, Outcome: result.Outcome, Error: result.Error, Detail: result.Detail, Policy: job.Retry.Over(d.policy()).Name(),
		Attempts: result.AttemptCount, Duration: result.Duration, Bytes: result.Bytes,
	}
	d.book.Job(fact)
	d.metrics.Job(fact)
}

// post publishes what the outbox brings until ctx ends, and then what is in it, until last ends. The outbox is never closed:
// a request to reset a breaker may still come in.
func (d *daemon) post(ctx, last context.Context) {
	for ctx.Err() == nil {
		select {
		case publish := <-d.outbox:
			d.publish(last, publish)
		case <-ctx.Done():
		}
	}
	for len(d.outbox) > 0 && last.Err() == nil {
		d.publish(last, <-d.outbox)
	}
	if lost := len(d.outbox); lost > 0 {
		d.log.Error("events of the last seconds are lost", "events", lost)
	}
}

func (d *daemon) publish(ctx context.Context, message func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	began := time.Now()
	err := message(ctx)
	d.metrics.Published("event", err == nil, time.Since(began))
	if err != nil {
		d.log.Warn("event not published", "error", err)
	}
}
