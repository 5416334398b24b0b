package main

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
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
	letters  map[string]letters  // dead letters by the id that their replay runs under: a new stream numbers its letters from 1
	owners   map[string][]string // other jobs whose bytes a result may have, by its id
	mayAgain map[string]bool     // jobs whose result was in a deleted stream, before they were done
	foreign  []string            // results with bytes of another job
	unsound  map[string]int      // sound jobs that did not succeed, or not with their own body, by why
	noBodies time.Time           // when the bodies were deleted last: results that ended before may have lost theirs
	noDead   time.Time           // the same of the dead letters
}

// letters are dead letters by what distinguishes them from all others, with the job of each.
type letters map[string]string

// jobs lists whose letters they are, in a fixed order.
func (l letters) jobs() []string { return slices.Sorted(maps.Values(l)) }

func newLedger() *ledger {
	return &ledger{
		jobs: map[string]accepted{}, aliases: map[string]string{}, results: map[string]stored{}, again: map[string]int{},
		mayLose: map[string]bool{}, replayed: map[string]bool{}, letters: map[string]letters{}, owners: map[string][]string{}, mayAgain: map[string]bool{}, unsound: map[string]int{},
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

// giveAway notes that the dead letter of a job may go.
func (l *ledger) giveAway(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.replayed[l.name(id)] = true
}

// replay notes that the job of a letter may run again, under one of these ids. Each letter may bring one result.
func (l *ledger) replay(d client.DeadLetter, ids ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		if l.letters[id] == nil {
			l.letters[id] = letters{}
		}
		l.letters[id][fmt.Sprint(d.Seq, d.StoredAt.UnixNano(), d.Key)] = l.name(d.ID)
	}
}

// owns allows results of some ids to have the bytes of a letter's job.
func (l *ledger) owns(d client.DeadLetter, ids ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		l.owners[id] = append(l.owners[id], l.name(d.ID))
	}
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
	owners := slices.Concat([]string{id}, l.letters[id].jobs(), l.owners[id])
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

// seconds counts the results that came after those that a job may have, in the stream and as the subscriber saw them. which says
// of what jobs they are.
func (l *ledger) seconds(seen map[string]int) (n int, which []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	count := func(id, how string, times int) {
		if more := times - max(1, len(l.letters[id])); more > 0 && !l.mayAgain[id] {
			n += more
			which = append(which, fmt.Sprintf("%s: %s %d times, replayed from letters of %q", id, how, times, l.letters[id].jobs()))
		}
	}
	for id, times := range l.again {
		count(id, "stored", 1+times)
	}
	for id, times := range seen {
		count(l.name(id), "seen", times)
	}
	return n, which
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
// The message of a job that is cancelled is gone before its run ends: who still runs or cancels a job that ended since then finds
// no result that would stand in the way of another.
func (l *ledger) mayEndAgain(undone []string, since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range undone {
		if _, ended := l.results[id]; ended {
			l.mayAgain[id] = true
		}
	}
	for id, job := range l.jobs {
		if job.twice || job.cancelled && l.results[id].at.After(since) {
			l.mayAgain[id] = true
		}
	}
}
