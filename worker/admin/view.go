package admin

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// view is what all pages share of the fleet.
type view struct {
	workers *shared[workersKnown]
	proxies *shared[*proxyList]
	dead    *shared[deadLetters]
	queues  *shared[[]Queue]
}

// deadLetters are the groups of dead letters and the number of all.
type deadLetters struct {
	groups []DeadGroup
	count  uint64
}

func newView(a *admin) view {
	v := view{
		workers: &shared[workersKnown]{period: fleetPeriod, timeout: fleetPeriod},
		proxies: &shared[*proxyList]{ask: a.listProxies, period: fleetPeriod, timeout: fleetPeriod},
		dead:    &shared[deadLetters]{period: fleetPeriod, timeout: letterTime},
	}
	v.queues = &shared[[]Queue]{period: fleetPeriod, timeout: fleetPeriod}
	if a.Operator.Queues != nil {
		v.queues.ask = a.askQueues
	}
	if a.Fleet != nil {
		var before workersKnown // only the one question that is open reads and writes it
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

// Problem is something that is wrong.
type Problem struct {
	// Level is "bad" if jobs do not go on, else "warn".
	Level string `json:"level"`
	// Text is a sentence.
	Text string `json:"text"`
}

// maxProblems bounds the list; the last one counts those that are left out.
const maxProblems = 8

// problems are what an operator has to know first.
func (a *admin) problems(ctx context.Context, s *Snapshot) []Problem {
	out := []Problem{}
	add := func(level, format string, args ...any) {
		out = append(out, Problem{Level: level, Text: fmt.Sprintf(format, args...)})
	}
	for _, c := range s.Checks {
		if !c.OK {
			add("bad", "%s: %s", c.Name, c.Detail)
		}
	}
	if _, known, err := a.view.workers.get(ctx); known && err != nil {
		add("warn", "the other workers cannot be asked: %v", err)
	}
	for _, w := range s.Workers {
		switch {
		case w.Silent:
			add("bad", "worker %s does not answer any more", w.Worker)
		case w.Worker != s.Worker && !w.Ready && !w.Draining:
			add("bad", "worker %s is not ready: %s", w.Worker, cmp.Or(strings.Join(w.Reasons, "; "), "it does not say why"))
		}
	}
	if all, closed := sumOf(s.Breakers), s.Breakers["closed"]; all > 0 && closed*2 < all && closed > 0 {
		add("warn", "%d of %d proxies rest", all-closed, all)
	}
	for _, q := range s.Queues {
		switch {
		case !q.Served && q.Queued > 0:
			add("bad", "queue %s: no worker serves it, and %s", q.Queue, countOf(int(q.Queued), "job waits", "jobs wait"))
		case q.Paused:
			add("warn", "queue %s is paused", q.Queue)
		}
		for _, reason := range q.Reasons {
			add("warn", "queue %s: %s", q.Queue, reason)
		}
	}
	var resting []string
	for _, site := range s.Sites {
		if site.State == "resting" || site.State == "testing" {
			resting = append(resting, site.Site)
		}
	}
	if len(resting) > 0 {
		add("warn", "%s not answer, and jobs for it wait: %s", countOf(len(resting), "site does", "sites do"), firstOf(resting, 3))
	}
	slices.SortStableFunc(out, func(a, b Problem) int { return cmp.Compare(a.Level, b.Level) })
	if len(out) > maxProblems {
		more := len(out) - maxProblems + 1
		out = append(out[:maxProblems-1], Problem{Level: "warn", Text: fmt.Sprintf("and %d more", more)})
	}
	return out
}

func sumOf(counts map[string]int) (sum int) {
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

// firstOf names the first of a list.
func firstOf(list []string, count int) string {
	if len(list) <= count {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:count], ", "), len(list)-count)
}
