package waiting

import (
	"cmp"
	"slices"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// OtherQueues is the name for the jobs of queues that are not counted singly: there are too many queues, or too many
// without workers. No queue can have it.
const OtherQueues = "(other)"

// group is the key by which entries are added up.
type group struct {
	queue, state uint8
	site         uint32
}

// maxStates is larger than every stateIndex.
const maxStates = 16

// sum is what is known of a group of entries.
type sum struct {
	jobs, overdue uint64
	since, until  uint32 // the earliest of the group, as in entry
}

// addWaiting adds the jobs of the table to their queues.
func (c *Counter) addWaiting(queues map[string]*Queue, now time.Time) {
	overdue := unixSeconds(now.Add(-bus.OverdueAfter))
	// Of a million entries most have no site. For those an array costs a tenth of a map.
	sums, plain := map[group]*sum{}, new([maxQueues][maxStates]*sum)
	for i := range c.table.n {
		e := c.table.at(i)
		g := group{e.queue, e.state, e.site}
		s := plain[g.queue][g.state]
		if g.site != 0 {
			s = sums[g]
		}
		if s == nil {
			s = &sum{since: e.since, until: e.until}
			if sums[g] = s; g.site == 0 {
				plain[g.queue][g.state] = s
			}
		}
		s.add(e, overdue)
	}
	for g, s := range sums {
		c.addSum(queues, g, s)
	}
	// Sorted once all groups are in, not while they are added: a queue may have thousands of sites.
	for _, q := range queues {
		q.sortReasons()
	}
}

// add adds an entry, which is overdue if its time is before overdue.
func (s *sum) add(e *entry, overdue uint32) {
	s.jobs++
	s.since, s.until = min(s.since, e.since), min(s.until, e.until)
	if e.until < overdue {
		s.overdue++
	}
}

// addSum adds a sum to the queue of its group.
func (c *Counter) addSum(queues map[string]*Queue, g group, s *sum) {
	// compact has removed the entries that are gone, so the state is not zero.
	name, state := c.queues.list[g.queue], jobs.States()[g.state-1]
	if g.queue == 0 {
		name = OtherQueues
	}
	q := queueOf(queues, name)
	*q.count(state) += s.jobs
	q.Overdue += s.overdue
	q.noteOldest(state, time.Unix(int64(s.since), 0))
	// The other waits end by themselves at a known time.
	if state != jobs.StateNoProxy && state != jobs.StateSiteDown {
		return
	}
	r := Reason{State: state, Site: c.sites.list[g.site], Jobs: s.jobs, Since: time.Unix(int64(s.since), 0).UTC()}
	// Jobs that wait for a site are released by a worker, so their own time says nothing.
	if state == jobs.StateNoProxy {
		r.Until, r.Detail = time.Unix(int64(s.until), 0).UTC(), c.lastWaits[g.site].detail
	}
	q.Reasons = append(q.Reasons, r)
}

// sortReasons sorts the reasons by jobs, and keeps the first MaxReasons.
func (q *Queue) sortReasons() {
	// Ties are broken by state and name, so that two snapshots of the same jobs are equal.
	slices.SortFunc(q.Reasons, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(b.Jobs, a.Jobs), cmp.Compare(a.State, b.State), cmp.Compare(a.Site, b.Site))
	})
	q.Reasons = q.Reasons[:min(len(q.Reasons), MaxReasons)]
}
