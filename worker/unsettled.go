package worker

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Unsettled is a job that the worker holds although its run has ended, because its outcome cannot be stored.
type Unsettled struct {
	Queue, ID string
	// Since is when storing the outcome failed first.
	Since time.Time
	// Step is what fails, such as "store result", and Reason the text of Err, the latest error.
	Step, Reason string
	Err          error
	// Permanent is true if somebody has to change the server, the account or a stream.
	Permanent bool
}

// unsettled holds the jobs whose outcome could not be stored yet.
type unsettled struct {
	mu   sync.Mutex // guards the fields below
	jobs map[*task]*Unsettled
	last error // the latest reason of any job
}

// add notes why a job cannot be settled now, and reports whether the step or the reason is new.
func (u *unsettled) add(t *task, step string, err error, permanent bool) (news bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.jobs == nil {
		u.jobs = map[*task]*Unsettled{}
	}
	job := u.jobs[t]
	if job == nil {
		job = &Unsettled{Queue: t.queue, ID: t.id, Since: time.Now()}
		u.jobs[t] = job
	}
	u.last = err
	news = job.Step != step || job.Reason != err.Error()
	job.Step, job.Reason, job.Err, job.Permanent = step, err.Error(), err, permanent
	return news
}

// remove forgets a job that was settled, or given up.
func (u *unsettled) remove(t *task) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.jobs, t)
}

// err returns the latest reason; nil if there is no such job.
func (u *unsettled) err() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.jobs) == 0 {
		return nil
	}
	return u.last
}

// blocks reports whether a job of the queue cannot be settled until somebody changes something: other jobs of the queue would
// meet the same.
func (u *unsettled) blocks(queue string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, job := range u.jobs {
		if job.Queue == queue && job.Permanent {
			return true
		}
	}
	return false
}

// list returns a copy, the oldest first.
func (u *unsettled) list() []Unsettled {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := make([]Unsettled, 0, len(u.jobs))
	for _, job := range u.jobs {
		out = append(out, *job)
	}
	slices.SortFunc(out, func(a, b Unsettled) int {
		return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.Queue, b.Queue), strings.Compare(a.ID, b.ID))
	})
	return out
}

// Unsettled lists the jobs that the worker holds and cannot settle, the oldest first.
func (w *Worker) Unsettled() []Unsettled { return w.unsettled.list() }
