package admin

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/text"
)

// view holds the values about the fleet that all pages share. Each value has its own period and lock, so a slow
// question about dead letters delays nothing else.
type view struct {
	workers *shared[workersKnown]
	proxies *shared[*proxyList]
	dead    *shared[deadLetters]
	queues  *shared[[]Queue]
	sites   *heldSites
	// fleetSites is asked for only while other workers exist.
	fleetSites *shared[fleetSites]
}

// deadLetters are the groups of dead letters and the number of all.
type deadLetters struct {
	groups []DeadGroup
	count  uint64
}

// newView makes the shared values. A value whose function the program does not provide has a nil ask.
func newView(a *admin) view {
	v := view{
		workers: &shared[workersKnown]{period: fleetPeriod, timeout: fleetPeriod},
		proxies: &shared[*proxyList]{ask: a.listProxies, period: fleetPeriod, timeout: fleetPeriod},
		dead:    &shared[deadLetters]{period: fleetPeriod, timeout: letterTime},
	}
	v.sites, v.fleetSites = &heldSites{}, &shared[fleetSites]{period: fleetPeriod, timeout: fleetPeriod}
	if a.FleetSites != nil {
		v.fleetSites.ask = a.askSites
	}
	v.queues = &shared[[]Queue]{period: fleetPeriod, timeout: fleetPeriod}
	if a.Operator.Queues != nil {
		v.queues.ask = a.askQueues
	}
	if a.Fleet != nil {
		var before workersKnown // used only by the one open question
		v.workers.ask = func(ctx context.Context) (workersKnown, error) {
			after, err := a.askFleet(ctx, before)
			if err == nil {
				before = after
			}
			return after, err
		}
	}
	if a.Operator.DeadGroups != nil {
		v.dead.ask = func(ctx context.Context) (d deadLetters, err error) {
			d.groups, d.count, err = a.Operator.DeadGroups(ctx)
			d.groups = d.groups[:min(len(d.groups), maxDead)]
			return d, err
		}
	}
	return v
}

// Problem is one problem that the page names.
type Problem struct {
	// Level is "bad" if jobs are held up, else "warn".
	Level string `json:"level"`
	// Text is a sentence.
	Text string `json:"text"`
}

// maxProblems bounds the list; the last one counts those that are left out.
const maxProblems = 8

// problems lists the problems, the worst first.
func (a *admin) problems(ctx context.Context, s *Snapshot) []Problem {
	out, connected := problemList{}, true
	for _, c := range s.Checks {
		if !c.OK {
			out.add("bad", "%s: %s", c.Name, c.Detail)
			connected = connected && c.Name != "nats"
		}
	}
	// Without NATS no worker can answer, so a missing answer is no problem of a worker.
	if connected {
		if _, known, err := a.view.workers.get(ctx); known && err != nil {
			out.add("warn", "the other workers cannot be asked: %v", err)
		}
		out.addWorkers(s)
	}
	// If no breaker is closed, the check of the proxies says so already.
	if all, closed := sumOf(s.Breakers), s.Breakers["closed"]; all > 0 && closed*2 < all && closed > 0 {
		out.add("warn", "%d of %d proxies have no closed breaker: %s", all-closed, all, jobs.NoProxyRemedy)
	}
	out.addQueues(s.Queues)
	out.addSites(s)
	out.addDead(s.Dead)
	// "bad" sorts before "warn". The sort is stable, so problems of one level keep the order in which they were added.
	slices.SortStableFunc(out, func(a, b Problem) int { return cmp.Compare(a.Level, b.Level) })
	if len(out) > maxProblems {
		more := len(out) - maxProblems + 1
		out = append(out[:maxProblems-1], Problem{Level: "warn", Text: fmt.Sprintf("and %d more", more)})
	}
	return out
}

// problemList collects problems. An empty list is not nil, because the page expects an array.
type problemList []Problem

func (p *problemList) add(level, format string, args ...any) {
	*p = append(*p, Problem{Level: level, Text: fmt.Sprintf(format, args...)})
}

// addWorkers adds the workers that take no jobs. It leaves out the worker that answers, whose checks are in the list
// already.
func (p *problemList) addWorkers(s *Snapshot) {
	for _, w := range s.Workers {
		switch {
		case w.Silent:
			p.add("bad", "worker %s does not answer any more: look whether its process runs, and at its log", w.Worker)
		case w.Worker != s.Worker && !w.Ready && !w.Draining:
			p.add("bad", "worker %s is not ready: %s", w.Worker, cmp.Or(strings.Join(w.Reasons, "; "), "it does not say why"))
		}
	}
}

// addQueues adds the queues whose jobs are not taken. A pause is intended, so it is only a warning.
func (p *problemList) addQueues(queues []Queue) {
	for _, q := range queues {
		open := q.Queued + sumOf(q.Waiting) // a job that waits will need a worker
		switch {
		case !q.Served && open > 0:
			p.add("bad", "queue %s: no worker serves it, and %s: add it to GOFER_QUEUES of a worker; if it is misspelt, gofer cancel --queue %[1]s ends its jobs", q.Queue, countOf(int(open), "job waits", "jobs wait"))
		case q.Paused:
			p.add("warn", "queue %s is paused, and %s: gofer resume %[1]s", q.Queue, countOf(int(q.Queued), "job waits", "jobs wait"))
		}
		for _, reason := range q.Reasons {
			p.add("warn", "queue %s: %s", q.Queue, reason)
		}
	}
}

// addSites adds one problem for all sites that rest: many of them often rest for one cause. The
// counts of the fleet say whether jobs wait for a site, because a site may rest that no job needs any more.
func (p *problemList) addSites(s *Snapshot) {
	waiting := uint64(0)
	for _, q := range s.Queues {
		waiting += q.Waiting[jobs.StateSiteDown]
	}
	if len(s.resting) == 0 {
		return
	}
	what := countOf(len(s.resting), "site does", "sites do") + " not answer"
	if waiting > 0 {
		what += ", and " + countOf(int(waiting), "job waits for its site", "jobs wait for their site")
	}
	p.add("warn", "%s: %s: gofer sites show %s says why; once it answers, gofer sites reset %[3]s ends its rest",
		what, firstOf(s.resting, 3), text.Printable(s.resting[0]))
}

// manyDead is the number of dead letters that is a problem, if the newest letter of its group is at most an hour old.
const manyDead = 20

// addDead adds the groups of dead letters that still grow. A letter is kept for two weeks, so a group without new
// letters is no problem. The number counts all letters of these groups, because the index does not know how many are new.
func (p *problemList) addDead(groups []DeadGroup) {
	count, worst := 0, DeadGroup{}
	for _, g := range groups {
		if time.Since(g.Newest) > time.Hour {
			continue
		}
		count += g.Count
		if g.Count > worst.Count {
			worst = g
		}
	}
	if count < manyDead {
		return
	}
	cause := fmt.Sprintf("%s in queue %s", worst.Reason, worst.Queue)
	if worst.Site != "" {
		cause += " for " + worst.Site
	}
	remedy := "when the cause is gone, gofer dead replay --reason " + text.Printable(worst.Reason) + " runs those again"
	// A replay publishes the same bytes, so an invalid job fails again.
	if worst.Reason == jobs.ErrInvalidJob {
		remedy = "correct what publishes them; gofer dead purge --reason invalid_job removes them"
	}
	p.add("warn", "%d jobs have failed for good within two weeks, the latest within the hour, the most as %s: gofer dead ls says why; %s", count, text.Printable(cause), remedy)
}

func sumOf[N int | uint64](counts map[string]N) (sum N) {
	for n := range maps.Values(counts) {
		sum += n
	}
	return sum
}

func countOf(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// firstOf returns a phrase that names the first elements of a list.
func firstOf(list []string, count int) string {
	if len(list) <= count {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:count], ", "), len(list)-count)
}
