package daemon

import (
	"context"
	"sync"

	"github.com/gofer-mq/gofer/worker/overdue"
	"github.com/gofer-mq/gofer/worker/stream"
)

// lookAfterWaiting releases overdue jobs, and counts and shares what the queues hold, until ctx ends. One worker of the fleet
// does both for all; the others wait to take over. One leadership for both keeps an idle worker from asking for two.
func (d *daemon) lookAfterWaiting(ctx context.Context, client *stream.Client) {
	d.waitingLeader.Run(ctx, client.JetStream(), d.names, func(ctx context.Context) {
		var tasks sync.WaitGroup
		// The leadership ends only when the counting has, so two workers never count at the same time for long.
		defer tasks.Wait()
		tasks.Go(func() { d.shareCounts(ctx, client.Client) })
		// Run blocks until ctx ends.
		overdue.New(client, overdue.Config{Released: func(n int) { d.overdue.Add(int64(n)) }, Log: d.log}).Run(ctx)
	})
}

// findStranded releases jobs of this worker's queues that a consumer counts as acked and no longer delivers, until ctx ends.
// Every worker looks after its own queues.
func (d *daemon) findStranded(ctx context.Context, client *stream.Client) {
	overdue.RunStranded(ctx, client, overdue.StrandedConfig{
		Queues: d.cfg.Streams.Queues, Released: func(n int) { d.overdue.Add(int64(n)) }, Log: d.log,
	})
}
