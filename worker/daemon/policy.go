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

// policy is the retry policy that applies now.
func (d *daemon) policy() jobs.Policy {
	p, _ := d.settings.Policy()
	return p
}

// setPolicy makes p the fleet's retry policy; every worker has it within a second.
func (d *daemon) setPolicy(ctx context.Context, p jobs.Policy) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	kv, err := d.policies(ctx)
	if err != nil {
		return err
	}
	_, before := d.settings.Policy()
	if _, err := kv.Put(ctx, fleet.PolicyKey, data); err != nil {
		return err
	}
	// Whoever asks this worker next shall find it; if the watch is being made anew, that takes a second.
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end) && ctx.Err() == nil; sleep(ctx, 5*time.Millisecond) {
		if _, now := d.settings.Policy(); !now.Equal(before) {
			break
		}
	}
	return nil
}

// resetPolicy returns to the policy of the workers' environment.
func (d *daemon) resetPolicy(ctx context.Context) error {
	kv, err := d.policies(ctx)
	if err == nil {
		err = kv.Delete(ctx, fleet.PolicyKey)
	}
	return err
}

func (d *daemon) policies(ctx context.Context) (jetstream.KeyValue, error) {
	conn := d.connected.Load()
	if conn == nil || !conn.nc.IsConnected() {
		return nil, bus.ErrUnreachable
	}
	return conn.client.Bucket(ctx, "policy")
}
