package worker

import (
	"context"
	"errors"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
)

// A worker that has had no work for two intervals of its inspections is quiet. It leaves out quietSkips of them between two that
// it makes: a large fleet that has nothing to do should cost its server little. One that takes no jobs because something is wrong
// leaves out none: it has to see soon that somebody has repaired it. Consumers of queues without work are listed together, and
// listSkips intervals are left out between two lists. A list takes two requests for all queues.
const (
	quietAfter = 2 // intervals
	quietSkips = 11
	listSkips  = 5
)

// watch inspects something at once and then regularly until ctx ends. While isQuiet it leaves out skips inspections between two.
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

// listConsumers inspects the consumers of quiet queues together, until ctx ends. A user who may not list them, and consumers that
// a cluster leaves out, are asked for one by one.
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
				mayList = !errors.Is(err, bus.ErrPermission)
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

// idleWait returns how long a poll of an idle consumer waits: until its turn in a round of idlePoll that all consumers share.
// Otherwise all of them would poll again in the same moment, as they began in the same moment, and would do so for ever.
func (s *slots) idleWait(c *consumerSlots, now time.Time) time.Duration {
	turn := s.idlePoll * time.Duration(c.number) / time.Duration(len(s.consumers))
	since := now.Sub(s.createdAt) - turn
	return s.idlePoll - (since%s.idlePoll+s.idlePoll)%s.idlePoll
}
