package daemon

import (
	"context"
	"encoding/json"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/fleet"
)

// policy is the retry policy that applies now: the fleet's, or Config's while the fleet has none.
func (d *daemon) policy() jobs.Policy {
	p, _ := d.settings.Policy()
	return p
}

// setPolicy makes p the fleet's retry policy. Every worker has it within a second, because each watches the bucket. It returns
// when this worker has it, so that a read that follows shows what was written. Errors: bus.ErrUnreachable.
func (d *daemon) setPolicy(ctx context.Context, p jobs.Policy) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	kv, err := d.policyBucket(ctx)
	if err != nil {
		return err
	}
	// The time of the policy, and not its content, is compared: the same policy may be set again.
	_, before := d.settings.Policy()
	if _, err := kv.Put(ctx, fleet.PolicyKey, data); err != nil {
		return err
	}
	d.awaitPolicy(ctx, func(now time.Time) bool { return !now.Equal(before) })
	return nil
}

// awaitPolicy waits until this worker has a policy of the fleet whose time fits. The bucket notifies this worker like any other.
// That takes a second if the watch was just lost; two are enough.
func (d *daemon) awaitPolicy(ctx context.Context, fits func(time.Time) bool) {
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end) && ctx.Err() == nil; sleep(ctx, 5*time.Millisecond) {
		if _, now := d.settings.Policy(); fits(now) {
			return
		}
	}
}

// resetPolicy removes the fleet's policy, so that each worker returns to its own. Like setPolicy it returns when this worker has
// done so.
func (d *daemon) resetPolicy(ctx context.Context) error {
	kv, err := d.policyBucket(ctx)
	if err != nil {
		return err
	}
	// A key that does not exist is deleted without an error.
	if err := kv.Delete(ctx, fleet.PolicyKey); err != nil {
		return err
	}
	d.awaitPolicy(ctx, time.Time.IsZero)
	return nil
}

// policyBucket is where the fleet keeps its settings. While the connection is lost it is an error at once: a request would wait
// until it is back.
func (d *daemon) policyBucket(ctx context.Context) (jetstream.KeyValue, error) {
	conn := d.connected.Load()
	if conn == nil || !conn.nc.IsConnected() {
		return nil, bus.ErrUnreachable
	}
	return conn.client.Bucket(ctx, "policy")
}
