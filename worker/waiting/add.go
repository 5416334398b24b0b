package waiting

import (
	"cmp"
	"slices"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// OtherQueues stands for the jobs of queues that are not counted singly: the table is full, or there are too many
// queues without workers. The name is not valid for a queue.
const OtherQueues = "(other)"

// group is the key by which entries are added up. It is small and comparable, because it is a map key for up to a
// million entries.
type group struct {
	queue, state uint8
	site         uint32
}

// states is more than jobs.States has, whose numbers begin at 1.
const states = 16

// sum is what is known of a group of entries. since and until are the minima over the group, in seconds since
// 1970, as in entry.
type sum struct {
	jobs, overdue uint64
	since, until  uint32 // the earliest of the group
}

// addWaiting adds the jobs that wait.
func (c *Counter) addWaiting(queues map[string]*Queue, now time.Time) {
	// A job is overdue only after a grace, because the server releases many jobs of one second one after the
	// other.
	overdue := seconds(now.Add(-bus.OverdueAfter))
	// Most entries have no site, and for those an array is a tenth of the cost of a map: there may be a million of them.
	sums, plain := map[group]*sum{}, new([maxQueues][states]*sum)
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

func (s *sum) add(e *entry, overdue uint32) {
	s.jobs++
	s.since, s.until = min(s.since, e.since), min(s.until, e.until)
	if e.until < overdue {
		s.overdue++
	}
}

func (c *Counter) addSum(queues map[string]*Queue, g group, s *sum) {
	// States are numbered from 1, so that zero can mean gone. addWaiting never finds an entry that is gone: compact has
	// removed it.
	name, state := c.queues.list[g.queue], jobs.States()[g.state-1]
	if g.queue == 0 {
		name = OtherQueues
	}
	q := queueOf(queues, name)
	*q.count(state) += s.jobs
	q.Overdue += s.overdue
	q.note(state, time.Unix(int64(s.since), 0))
	// Only waits for a proxy or a site have a reason worth naming; the others end by themselves at a known
	// time.
	if state != jobs.StateNoProxy && state != jobs.StateSiteDown {
		return
	}
	r := Reason{State: state, Site: c.sites.list[g.site], Jobs: s.jobs, Since: time.Unix(int64(s.since), 0).UTC()}
	// Jobs at a resting site are released by the leader, so their own time says nothing and is not shown.
	if state == jobs.StateNoProxy {
		r.Until, r.Detail = time.Unix(int64(s.until), 0).UTC(), c.about[g.site].detail
	}
	q.Reasons = append(q.Reasons, r)
}

// sortReasons keeps the reasons for which most jobs wait.
func (q *Queue) sortReasons() {
	// Ties are broken by state and name, so that two snapshots of the same jobs are equal.
	slices.SortFunc(q.Reasons, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(b.Jobs, a.Jobs), cmp.Compare(a.State, b.State), cmp.Compare(a.Site, b.Site))
	})
	q.Reasons = q.Reasons[:min(len(q.Reasons), MaxReasons)]
}
