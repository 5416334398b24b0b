package release

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
)

// sentJob is a job that was released.
type sentJob struct {
	seq uint64 // of the due job
	at  time.Time
	job bus.Key
	ask time.Time // when to ask whether it is still due
}

// withNextAsk returns s with the time of its next check. The longer the job runs, the rarer the checks: its end is known after at
// most a quarter more of the time that it took, and many jobs of a slow site cost few requests.
func (s sentJob) withNextAsk(now time.Time) sentJob {
	s.ask = now.Add(min(now.Sub(s.at)/4, latest))
	return s
}

// recall gives released jobs their place back when their queue is served again.
func (l *line) recall(q *queues) {
	l.stuck = slices.DeleteFunc(l.stuck, func(s sentJob) bool {
		if !q.serves(s.job.Queue) {
			return false
		}
		// It was not on its way until now, so lostAfter counts from here.
		s.at = time.Now()
		l.sent = append(l.sent, s)
		return true
	})
}

// settle checks which released jobs are still due and drops the others. It checks all that are due for a check: jobs that take
// long must not hide that others have ended. On an error, the jobs whose state is unknown stay, and are checked again.
func (l *line) settle(ctx context.Context, stream siteJobs, q *queues) (moved bool, err error) {
	now := time.Now()
	var asked, kept []sentJob
	l.sent = slices.DeleteFunc(l.sent, func(s sentJob) bool {
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
			part, some, err = l.settleChunk(ctx, stream, q, part)
			moved = moved || some
		}
		kept = append(kept, part...)
	}
	l.sent = append(l.sent, kept...)
	return moved, err
}

// settleChunk settles some released jobs, and returns those that stay. If a job waits again, the site had no room: the window is
// halved. Otherwise it grows by one.
func (l *line) settleChunk(ctx context.Context, stream siteJobs, q *queues, part []sentJob) (kept []sentJob, moved bool, err error) {
	seqs := make([]uint64, len(part))
	for i, s := range part {
		seqs[i] = s.seq
	}
	there, err := stream.StillDue(ctx, seqs)
	if err != nil {
		return part, false, err
	}
	var gone []sentJob
	for _, s := range part {
		// Still due: nobody has taken the job or its worker has not settled it. A job in an unserved queue
		// gives up its place, and one beyond lostAfter is dropped without learning anything from it.
		switch {
		case !there[s.seq]:
			gone = append(gone, s)
		case q.isStuck(s):
			l.stuck = append(l.stuck, s)
		case time.Since(s.at) < lostAfter:
			kept = append(kept, s.withNextAsk(time.Now()))
		}
	}
	// Gone from the due jobs: it ended, or it waits again, for the site or for its next attempt. Both waits mean that the site
	// cannot take so many.
	cameBack, errs := askCameBack(ctx, stream, gone)
	for i, s := range gone {
		if errs[i] != nil {
			err = errs[i]
			if time.Since(s.at) < lostAfter {
				kept = append(kept, s)
			}
			continue
		}
		l.learn(cameBack[i])
		moved = true
	}
	return kept, moved, err
}

// askCameBack asks for each job, at most a chunk of them, whether it waits again. The requests run in parallel: one after the
// other, they would hold up a site whose jobs end fast.
func askCameBack(ctx context.Context, stream siteJobs, gone []sentJob) (cameBack []bool, errs []error) {
	cameBack, errs = make([]bool, len(gone)), make([]error, len(gone))
	var asking sync.WaitGroup
	for i, s := range gone {
		asking.Go(func() { cameBack[i], errs[i] = stream.WaitsAgain(ctx, s.job, s.seq) })
	}
	asking.Wait()
	return cameBack, errs
}

// learn adapts the window to what became of one released job.
func (l *line) learn(cameBack bool) {
	// Halving more than once in one look is intended: each job that came back found no place.
	if cameBack {
		l.window, l.cameBackAt = max(1, l.window/2), time.Now()
		l.cameBack++
		return
	}
	l.window, l.cameBack = min(maxWindow, l.window+1), 0
}
