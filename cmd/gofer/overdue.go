package main

import (
	"context"
	"fmt"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/fleet"
	"github.com/gofer-mq/gofer/worker/overdue"
)

// findOverdue looks for overdue jobs while this worker is the one of the fleet that does, until ctx ends.
func (r *rig) findOverdue(ctx context.Context, client *bus.Client) {
	leader := fleet.NewLeader(fleet.LeaderConfig{Task: "overdue", Worker: r.config.WorkerName, Log: r.log})
	leader.Run(ctx, client.JetStream(), r.names, func(ctx context.Context) {
		overdue.New(client, overdue.Config{Released: func(n int) { r.overdue.Add(int64(n)) }, Log: r.log}).Run(ctx)
	})
}

// findStranded looks for jobs of this worker's queues that their consumers no longer deliver, until ctx ends.
func (r *rig) findStranded(ctx context.Context, client *bus.Client) {
	queues := make([]string, len(r.config.Queues))
	for i, q := range r.config.Queues {
		queues[i] = q.Name
	}
	overdue.RunStranded(ctx, client, overdue.StrandedConfig{
		Queues: queues, Released: func(n int) { r.overdue.Add(int64(n)) }, Log: r.log,
	})
}

// overdue counts the jobs that the server has not released at their time, and says what to do about them.
func (s *session) overdue(ctx context.Context, queues []bus.QueueState) finding {
	const name = "waiting jobs"
	if err := s.client.CountOverdue(ctx, queues); err != nil {
		return finding{name, false, err.Error()}
	}
	var overdue, waiting uint64
	for _, q := range queues {
		overdue += q.Overdue
		waiting += q.Waiting
	}
	if overdue == 0 {
		return finding{name, true, fmt.Sprintf("none is overdue of those that wait for their time (%d)", waiting)}
	}
	return finding{name, false, fmt.Sprintf("overdue (%d): the server has not released them at their time; a worker does within two minutes. "+
		"If it does not, start one of this version and give its NATS user the rights of deploy/nats/server.conf; upgrade nats-server to 2.14.10, 2.15.3 or newer", overdue)}
}
