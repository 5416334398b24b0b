package worker

import (
	"context"
	"errors"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
)

// A worker that has had no work for quietAfter intervals of its inspections is quiet. It skips quietSkips inspections after each
// one, so that a large fleet without jobs costs its server little. A worker that takes no jobs because something is wrong skips
// none, because it has to notice the repair soon. Consumers of queues without work are listed together, in two requests for all
// queues; listSkips intervals are skipped between two lists.
const (
	quietAfter = 2 // intervals
	quietSkips = 11
	listSkips  = 5
)

// watch calls inspect at once, and then in each interval until ctx ends. While isQuiet returns true, it skips skips inspections
// after each one.
func (w *Worker) watch(ctx context.Context, isQuiet func() bool, skips int, inspect func(context.Context)) {
	for skipped := skips; ctx.Err() == nil; sleep(ctx, w.cfg.InspectInterval) {
		if skipped < skips && isQuiet() {
			skipped++
			continue
		}
		skipped = 0
		inspect(ctx)
	}
}

// listConsumers inspects the consumers of quiet queues together, until ctx ends. It inspects consumers one by one if this user
// may not list them, and if a cluster leaves them out of its list.
func (w *Worker) listConsumers(ctx context.Context) {
	mayList := true
	sleep(ctx, w.cfg.InspectInterval*(listSkips+1))
	for ; ctx.Err() == nil; sleep(ctx, w.cfg.InspectInterval*(listSkips+1)) {
		quiet := w.quietPullers()
		if len(quiet) == 0 {
			continue
		}
		listed := map[bool]map[string]bus.JobConsumerInfo{}
		for _, due := range []bool{false, true} {
			if mayList {
				var err error
				listed[due], err = w.client.JobConsumers(ctx, due)
				mayList = !errors.Is(err, bus.ErrPermission) // each refusal is an error in the logs of the server
			}
		}
		for _, p := range quiet {
			if info, found := listed[p.dueJobs][p.queue]; found {
				p.noteInfo(info)
			} else {
				_ = p.inspect(ctx) // if the server does not answer, the last known state stays
			}
		}
	}
}

// quietPullers lists the pullers that do not inspect their consumers themselves now.
func (w *Worker) quietPullers() (list []*puller) {
	for _, p := range w.pullers {
		if p.isQuiet() {
			list = append(list, p)
		}
	}
	return list
}

// isQuiet reports whether the worker has had no work for a while, and could take some.
func (w *Worker) isQuiet() bool {
	return w.slots.quietFor() > quietAfter*w.cfg.InspectInterval && w.resultsFull.Load() == nil && w.StreamsError() == nil && w.PullError() == nil
}

// quietFor returns for how long no queue has had work.
func (s *slots) quietFor() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	least := time.Since(s.createdAt)
	for _, queue := range s.queues {
		least = min(least, s.queueQuietFor(queue))
	}
	return least
}

// consumerQuietFor returns for how long the queue of a consumer has had no work.
func (s *slots) consumerQuietFor(c *consumerSlots) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queueQuietFor(c.queue)
}

// queueQuietFor returns for how long a queue has had no work; zero while it uses a slot, or has jobs that wait for one. A
// queue that never had work counts from the start. The caller holds the lock.
func (s *slots) queueQuietFor(queue *queueSlots) time.Duration {
	if queue.used > 0 || queue.backlogged > 0 {
		return 0
	}
	last := s.createdAt
	if queue.worked.After(last) {
		last = queue.worked
	}
	return time.Since(last)
}

// idleWait returns how long a poll of an idle consumer waits: until its turn in a period of idlePoll that all consumers share.
// Without turns, all consumers would poll at the same moment for ever, because they begin at the same moment.
func (s *slots) idleWait(c *consumerSlots, now time.Time) time.Duration {
	turn := s.idlePoll * time.Duration(c.number) / time.Duration(len(s.consumers))
	since := now.Sub(s.createdAt) - turn
	return s.idlePoll - (since%s.idlePoll+s.idlePoll)%s.idlePoll
}
