package main

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/worker/control"
)

const (
	// hintAfter is after how long without an outcome the user learns why the jobs wait. Jobs of a healthy queue have
	// begun by then.
	hintAfter = 5 * time.Second
	// maxHintPause bounds the pause between two such hints.
	maxHintPause = time.Minute
	// hintTime bounds how long a call that does not wait for results asks about its queues.
	hintTime = 2 * time.Second
	// maxHinted bounds the queues that a call asks about one by one.
	maxHinted = 32
)

// warnOfQueues names the queues of the accepted jobs that no worker serves, or that are paused. It asks for only one
// consumer of each queue, because a script may call gofer for each job. An error, such as a missing right, ends it
// silently.
func (s *submission) warnOfQueues(ctx context.Context) {
	ctx, cancel := context.WithTimeout(bus.Optional(ctx), hintTime)
	defer cancel()
	for _, queue := range slices.Sorted(maps.Keys(s.queues)) {
		consumer, err := s.session.bus.JobConsumerInfo(ctx, queue, false)
		switch {
		case errors.Is(err, bus.ErrNotFound):
			s.printNote("queue " + queue + ": no worker has ever served it, so its jobs wait: add it to GOFER_QUEUES of a worker; if it is misspelt, gofer cancel --queue " + queue + " ends its jobs")
		case err != nil:
			return
		case consumer.Paused:
			s.printNote("queue " + queue + " is paused, so its jobs wait: gofer resume " + queue)
		}
	}
}

// warnOfWaiting warns that a job of the id given by --id waits already. It costs a few requests, so it is done for one job only.
// A job that begins to wait meanwhile, and a request that fails, are no error: the server keeps one result in any case.
func (s *submission) warnOfWaiting(ctx context.Context) {
	if s.flags.id == "" {
		return
	}
	ctx, cancel := context.WithTimeout(bus.Optional(ctx), hintTime)
	defer cancel()
	key := client.Key{Queue: cmp.Or(s.flags.queue, jobs.DefaultQueue), ID: s.flags.id}
	found, err := s.session.client.Find(ctx, key)
	if err == nil && slices.ContainsFunc(found, func(f client.Found) bool { return f.Place == client.Waiting }) {
		s.printNote("job " + key.String() + " waits already. There will be one result: that of this job if this job need not wait, else that of the waiting one. gofer job " + key.String() + " shows which one ran")
	}
}

// hintWhileSilent asks why the jobs wait, whenever none has ended for hintAfter. The pause doubles after each question, because
// many users may wait for one fleet. ask adds to hinted the queues that it has named, which are not asked about again.
// hintWhileSilent returns when ctx ends.
func (s *submission) hintWhileSilent(ctx context.Context, ask func(ctx context.Context, open, hinted map[string]bool)) {
	hinted := map[string]bool{}
	pause := hintAfter
	for before := 0; sleep(ctx, pause); {
		open, ended := s.openQueues()
		maps.DeleteFunc(open, func(queue string, _ bool) bool { return hinted[queue] })
		switch {
		// Jobs end, so the fleet works, and the next silence is a new one.
		case ended != before:
			before, pause = ended, hintAfter
		case len(open) > 0:
			ask(ctx, open, hinted)
			pause = min(2*pause, maxHintPause)
		}
	}
}

// hint prints what gofer queues would print of the queues, and adds those to hinted. A user who may not read the queues gets
// no hint.
func (s *submission) hint(ctx context.Context, queues, hinted map[string]bool) {
	list, _, err := askQueues(bus.Optional(ctx), s.session)
	if err != nil {
		return
	}
	// An error of this question is one of the facts by which markServed decides.
	workers, silence := askWorkers(bus.Optional(ctx), s.session, control.WorkersRequest{})
	markServed(list, workers, silence)
	for _, q := range list {
		// Queues without open jobs are none of this call's business.
		if !queues[q.Queue] {
			continue
		}
		for _, line := range queueTroubles(s.session.names, []queueRow{q}) {
			hinted[q.Queue] = true
			s.printNote(line)
		}
	}
}

// openQueues returns the queues of the jobs whose outcomes have not come yet, and how many outcomes have come.
func (s *submission) openQueues() (open map[string]bool, ended int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	open = map[string]bool{}
	for key := range s.open {
		open[key.Queue] = true
	}
	for _, n := range s.ended {
		ended += n
	}
	return open, ended
}
