package worker

import (
	"context"
	"sync"
)

// name is what a job is known by.
type name struct{ queue, id string }

// running are the jobs in hand, so that they can be cancelled by name and none of them runs twice here at once: a server
// that was killed has forgotten what it gave out, and gives it out again, to this worker as well as to any other.
type running struct {
	mu    sync.Mutex
	tasks map[name]*task // the first of a name; the others hang on it by next
}

// add takes t in hand, with what cancels it. It reports false when a run of the same job is in hand whose lease is valid: that
// run goes on, and its heartbeats hold for this delivery too, since the server counts by message.
func (r *running) add(t *task, cancel context.CancelCauseFunc) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := name{t.queue, t.id}
	for other := r.tasks[key]; other != nil; other = other.next {
		if other.progress.JobSeq == t.progress.JobSeq && other.ours() {
			return false
		}
	}
	t.cancel, t.next = cancel, r.tasks[key]
	r.tasks[key] = t
	return true
}

func (r *running) remove(t *task) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := name{t.queue, t.id}
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

func (r *running) cancel(queue, id string, cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for t := r.tasks[name{queue, id}]; t != nil; t = t.next {
		t.cancel(cause)
	}
}

// all are the jobs in hand.
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

// count is how many jobs are in hand.
func (r *running) count() int { return len(r.all()) }

// queues is how many jobs run of each queue.
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
