package worker

import (
	"context"
	"sync"
)

// jobName identifies a job.
type jobName struct{ queue, id string }

// running holds the runs of this worker, to cancel them by name and to keep a job from running twice here at once: a server that
// was killed has forgotten its deliveries and repeats them, also to this worker.
type running struct {
	mu    sync.Mutex        // guards tasks, and next and cancel of each task
	tasks map[jobName]*task // the first of each name; its field next links the others
}

// add adds t and the function that cancels it. It reports false if the same job already runs here under a valid lease: that run
// goes on, and its heartbeats hold for the new delivery too, because the server counts by message.
func (r *running) add(t *task, cancel context.CancelCauseFunc) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := jobName{t.queue, t.id}
	// Two messages of one name differ in JobSeq, and are two jobs.
	for other := r.tasks[key]; other != nil; other = other.next {
		if other.progress.JobSeq == t.progress.JobSeq && other.isHeld() {
			return false
		}
	}
	// New ones go to the front of the list.
	t.cancel, t.next = cancel, r.tasks[key]
	r.tasks[key] = t
	return true
}

// remove removes a task that add has added. Several deliveries of one name form a list, because a stream that was created
// again may deliver a job of the same name.
func (r *running) remove(t *task) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := jobName{t.queue, t.id}
	if first := r.tasks[key]; first != t {
		for first.next != t {
			first = first.next
		}
		first.next = t.next
		return
	}
	if t.next == nil {
		delete(r.tasks, key)
		return
	}
	r.tasks[key] = t.next
}

// cancel cancels all runs of a name with a cause. A name without a run is ignored: the request goes to all workers.
func (r *running) cancel(queue, id string, cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for t := r.tasks[jobName{queue, id}]; t != nil; t = t.next {
		// A job that has ended ignores it.
		t.cancel(cause)
	}
}

// all returns the running tasks.
func (r *running) all() (out []*task) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.tasks {
		for ; t != nil; t = t.next {
			out = append(out, t)
		}
	}
	return out
}

// count returns the number of running tasks.
func (r *running) count() int { return len(r.all()) }

// queues returns the number of running tasks by queue.
func (r *running) queues() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]int{}
	for key, t := range r.tasks {
		for ; t != nil; t = t.next {
			out[key.queue]++
		}
	}
	return out
}
