package main

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// accepted is a job whose publish was acknowledged.
type accepted struct {
	order
	since time.Time // from when on it could have ended: its ack, or the end of the wait that it asked for
}

// stored is a result as it was found in the stream.
type stored struct {
	at, finished    time.Time
	outcome, reason string
}

// ledger is what was promised and what was seen of it. Streams that were deleted took promises along; which, is written down
// before.
type ledger struct {
	mu       sync.Mutex
	jobs     map[string]accepted
	refused  int                 // jobs that the server did not take
	aliases  map[string]string   // other names of results, by the name that is not theirs
	results  map[string]stored   // the first result of each job
	again    map[string]int      // further ones
	mayLose  map[string]bool     // jobs that were in a deleted stream
	replayed map[string]bool     // jobs whose dead letter was taken away for a replay
	origins  map[string][]string // ids of the jobs that a replay may fetch again: a new stream numbers its letters from 1
	mayAgain map[string]bool     // jobs whose result was in a deleted stream, before they were done
	foreign  []string            // results with bytes of another job
	unsound  map[string]int      // sound jobs that did not succeed, or not with their own body, by why
	noBodies time.Time           // when the bodies were deleted last: results that ended before may have lost theirs
	noDead   time.Time           // the same of the dead letters
}

func newLedger() *ledger {
	return &ledger{
		jobs: map[string]accepted{}, aliases: map[string]string{}, results: map[string]stored{}, again: map[string]int{},
		mayLose: map[string]bool{}, replayed: map[string]bool{}, origins: map[string][]string{}, mayAgain: map[string]bool{}, unsound: map[string]int{},
	}
}

// accept notes a job that the server has taken.
func (l *ledger) accept(o order) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.jobs[o.id] = accepted{o, time.Now().Add(o.waits)}
	if !jobs.ValidID(o.id) {
		l.aliases[hashed(o.id)] = o.id
	}
}

// replay notes that the dead letter of a job may go, and that the job may run again under another id.
func (l *ledger) replay(id, again string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.replayed[l.name(id)] = true
	l.origins[again] = append(l.origins[again], l.name(id))
}

func (l *ledger) refuse() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused++
}

// name is the job that a result belongs to.
func (l *ledger) name(id string) string {
	if known, ok := l.aliases[id]; ok {
		return known
	}
	return id
}

// found notes a result. Its body has to be the job's own.
func (l *ledger) found(id string, r stored, body []byte, readable bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id = l.name(id)
	if _, twice := l.results[id]; twice {
		l.again[id]++
		return
	}
	l.results[id] = r
	job, known := l.jobs[id]
	owners := append([]string{id}, l.origins[id]...)
	if r.outcome == jobs.Succeeded && !slices.ContainsFunc(owners, func(owner string) bool { return !isForeign(owner, body) }) {
		l.foreign = append(l.foreign, fmt.Sprintf("%s: %.200q", id, body))
	}
	if !known || !job.sound {
		return
	}
	switch {
	case r.outcome != jobs.Succeeded:
		l.unsound[r.outcome+" "+r.reason]++
	case readable && !isOwn(id, body):
		l.unsound[fmt.Sprintf("not its own body: %.40q", body)]++
	case !readable && r.finished.After(l.noBodies):
		l.unsound["its body is gone"]++
	}
}

// lost lists the jobs that have no result and should have one.
func (l *ledger) lost() (ids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.jobs {
		if _, ended := l.results[id]; !ended && !l.mayLose[id] {
			ids = append(ids, id)
		}
	}
	return ids
}

// seconds counts the results that came after the first one of a job, in the stream, and those that the subscriber saw.
func (l *ledger) seconds(seen map[string]int) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, times := range l.again {
		if !l.mayAgain[id] {
			n += times
		}
	}
	for id, times := range seen {
		if !l.mayAgain[l.name(id)] {
			n += times - 1
		}
	}
	return n
}

// recovery is the longest time from a job's acceptance to its result.
func (l *ledger) recovery() (longest time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, job := range l.jobs {
		if r, ended := l.results[id]; ended {
			longest = max(longest, r.at.Sub(job.since))
		}
	}
	return longest
}

// failed lists the jobs that must have a dead letter.
func (l *ledger) failed() (ids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, r := range l.results {
		if r.outcome == jobs.Failed && r.at.After(l.noDead) && !l.replayed[id] {
			ids = append(ids, id)
		}
	}
	return ids
}

// giveUp notes jobs that are about to be deleted.
func (l *ledger) giveUp(ids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		l.mayLose[id] = true
	}
}

// isOver reports whether nothing more is to be expected of a job: it has ended, or may have been deleted.
func (l *ledger) isOver(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ended := l.results[id]
	return ended || l.mayLose[id]
}

// mayEndAgain notes that results are about to be deleted while some of their jobs are not done with, or may be published again.
func (l *ledger) mayEndAgain(undone []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range undone {
		if _, ended := l.results[id]; ended {
			l.mayAgain[id] = true
		}
	}
	for id, job := range l.jobs {
		if job.twice {
			l.mayAgain[id] = true
		}
	}
}
