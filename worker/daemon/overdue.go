package daemon

import (
	"context"

	"github.com/gofer-mq/gofer/worker/fleet"
	"github.com/gofer-mq/gofer/worker/overdue"
	"github.com/gofer-mq/gofer/worker/stream"
)

// findOverdue looks for overdue jobs while this worker is the one of the fleet that does, until ctx ends.
func (d *daemon) findOverdue(ctx context.Context, client *stream.Client) {
	leader := fleet.NewLeader(fleet.LeaderConfig{Task: "overdue", Worker: d.cfg.Name, Log: d.log})
	leader.Run(ctx, client.JetStream(), d.names, func(ctx context.Context) {
		overdue.New(client, overdue.Config{Released: func(n int) { d.overdue.Add(int64(n)) }, Log: d.log}).Run(ctx)
	})
}

// findStranded looks for jobs of this worker's queues that their consumers no longer deliver, until ctx ends.
func (d *daemon) findStranded(ctx context.Context, client *stream.Client) {
	overdue.RunStranded(ctx, client, overdue.StrandedConfig{
		Queues: d.cfg.Streams.Queues, Released: func(n int) { d.overdue.Add(int64(n)) }, Log: d.log,
	})
}
