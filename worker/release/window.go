package release

import (
	"context"
	"slices"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
)

// sentJob is a released job.
type sentJob struct {
	seq uint64    // sequence of the due job
	at  time.Time // time of the release
	job bus.Key
	ask time.Time // time of the next check whether it is still due
}

// withNextAsk returns s with the time of its next check. The longer the job runs, the rarer are the checks, so that many jobs of
// a slow site cost few requests. The end of a job is noticed late by at most a quarter of its duration.
func (s sentJob) withNextAsk(now time.Time) sentJob {
	s.ask = now.Add(min(now.Sub(s.at)/4, maxPause))
	return s
}

// restorePlaces lets stuck jobs take a place of the window again if their queue is served again.
func (b *backlog) restorePlaces(q *queues) {
	b.stuck = slices.DeleteFunc(b.stuck, func(s sentJob) bool {
		if !q.serves(s.job.Queue) {
			return false
		}
		// The job was not on its way until now, so lostAfter begins now.
		s.at = time.Now()
		b.sent = append(b.sent, s)
		return true
	})
}

// checkReleased checks all released jobs whose time for a check has come, and drops those that are no longer due. After an error
// the jobs whose state is unknown stay. changed means that jobs were dropped.
func (b *backlog) checkReleased(ctx context.Context, stream siteJobs, q *queues) (changed bool, err error) {
	now := time.Now()
	var asked, kept []sentJob
	b.sent = slices.DeleteFunc(b.sent, func(s sentJob) bool {
		if s.ask.After(now) {
			return false
		}
		asked = append(asked, s)
		return true
	})
	for part := range slices.Chunk(asked, chunk) {
		// After an error the remaining chunks stay as they are.
		if err == nil {
			var some bool
			part, some, err = b.checkChunk(ctx, stream, q, part)
			changed = changed || some
		}
		kept = append(kept, part...)
	}
	b.sent = append(b.sent, kept...)
	return changed, err
}

// checkChunk checks a chunk of released jobs, and returns those that stay. For each job that is no longer due, it adapts the
// window.
func (b *backlog) checkChunk(ctx context.Context, stream siteJobs, q *queues, part []sentJob) (kept []sentJob, changed bool, err error) {
	seqs := make([]uint64, len(part))
	for i, s := range part {
		seqs[i] = s.seq
	}
	there, err := stream.StillDue(ctx, seqs)
	if err != nil {
		return part, false, err
	}
	gone := map[uint64]bus.Key{}
	var ended []sentJob
	for _, s := range part {
		// No worker has taken a job that is still due, or its worker has not settled it. After lostAfter the job is dropped, and
		// the window stays as it is.
		switch {
		case !there[s.seq]:
			gone[s.seq], ended = s.job, append(ended, s)
		case q.isStuck(s):
			b.stuck = append(b.stuck, s)
		case time.Since(s.at) < lostAfter:
			kept = append(kept, s.withNextAsk(time.Now()))
		}
	}
	if len(ended) == 0 {
		return kept, false, nil
	}
	// A job that is no longer due has ended, or it waits again, for the site or for its next attempt. Both waits mean that the
	// site cannot take so many jobs.
	cameBack, err := stream.WaitAgain(ctx, gone)
	if err != nil {
		ended = slices.DeleteFunc(ended, func(s sentJob) bool { return time.Since(s.at) >= lostAfter })
		return append(kept, ended...), false, err
	}
	for _, s := range ended {
		b.adjustWindow(cameBack[s.seq])
	}
	return kept, true, nil
}

// adjustWindow halves the window for a released job that waits again, and adds one place for a released job that ended.
func (b *backlog) adjustWindow(cameBack bool) {
	// One visit may halve the window several times, because the site had no room for each of these jobs.
	if cameBack {
		b.window, b.cameBackAt = max(1, b.window/2), time.Now()
		b.cameBack++
		return
	}
	b.window, b.cameBack = min(maxWindow, b.window+1), 0
}
