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

// askedAgain is a job that is still due. The older it is, the later it is asked for again: its end is known after at most a
// quarter more of the time that it took, and many jobs of a slow site cost few questions.
func (s sentJob) askedAgain(now time.Time) sentJob {
	s.ask = now.Add(min(now.Sub(s.at)/4, latest))
	return s
}

// recall lets released jobs hold a place again whose queue is served by now.
func (l *line) recall(q *queues) {
	l.lying = slices.DeleteFunc(l.lying, func(s sentJob) bool {
		if !q.serves(s.job.Queue) {
			return false
		}
		// It was not on its way until now, so lostAfter counts from here.
		s.at = time.Now()
		l.sent = append(l.sent, s)
		return true
	})
}

// settle asks for released jobs whether they are still due, and removes those that are not. It asks for all whose time for
// that has come: jobs that take long must not hide that others have ended. On an error the jobs of which nothing was learned
// stay, to be asked for again.
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

// settleChunk settles some released jobs, and returns those that stay. One that waits for the site again found no place there:
// half as many may be on their way. Any other one ended, or waits for its next attempt: one more may.
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
		case q.lies(s):
			l.lying = append(l.lying, s)
		case time.Since(s.at) < lostAfter:
			kept = append(kept, s.askedAgain(time.Now()))
		}
	}
	// Gone from the due jobs: it ended, is scheduled for a retry, or waits for the site again. Only the last one
	// says that the site cannot take so many.
	again, errs := waitAgain(ctx, stream, gone)
	for i, s := range gone {
		if errs[i] != nil {
			err = errs[i]
			if time.Since(s.at) < lostAfter {
				kept = append(kept, s)
			}
			continue
		}
		l.learn(again[i])
		moved = true
	}
	return kept, moved, err
}

// waitAgain asks at the same time for each job, at most a chunk of them, whether it waits again. One after the other, the
// answers would hold up a site whose jobs end fast.
func waitAgain(ctx context.Context, stream siteJobs, gone []sentJob) (again []bool, errs []error) {
	again, errs = make([]bool, len(gone)), make([]error, len(gone))
	var asking sync.WaitGroup
	for i, s := range gone {
		asking.Go(func() { again[i], errs[i] = stream.WaitsAgain(ctx, s.job, s.seq) })
	}
	asking.Wait()
	return again, errs
}

func (l *line) learn(waitsAgain bool) {
	// Halving more than once in one look is intended: each job that came back found no place.
	if waitsAgain {
		l.window, l.vainAt = max(1, l.window/2), time.Now()
		l.vain++
		return
	}
	l.window, l.vain = min(maxWindow, l.window+1), 0
}
