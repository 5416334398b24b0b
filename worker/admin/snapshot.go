package admin

import (
	"context"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// Snapshot is what the page shows. Its members are sent only when they change, so a member that differs in each second
// must be small.
type Snapshot struct {
	At time.Time `json:"at"`
	// Worker is the one that answers, and Version its version.
	Worker  string `json:"worker"`
	Version string `json:"version"`
	// Watched is the worker that the workers' numbers are of; empty means all of them.
	Watched string `json:"watched"`
	// TokenNeeded tells whether changes need a token, or are taken from this machine without one.
	TokenNeeded bool    `json:"token_needed"`
	Ready       bool    `json:"ready"`
	Checks      []Check `json:"checks"`
	// Problems say what is wrong, the worst first; empty means healthy.
	Problems []Problem `json:"problems"`
	InFlight int       `json:"in_flight"`
	Slots    int       `json:"slots"`
	// Recent are the last two minutes, Minutes the last hour, Hours the last day.
	Recent  Series `json:"recent"`
	Minutes Series `json:"minutes"`
	// Scope is whose hours these are: "cluster", or "worker" while the fleet's cannot be read.
	Scope            string           `json:"scope"`
	Hours            []rollup.Point   `json:"hours"`
	SuccessByAttempt map[string]int64 `json:"success_by_attempt"`
	// Workers are the first of all workers, those that are not ready first; WorkerCount counts all.
	Workers     []Worker `json:"workers"`
	WorkerCount int      `json:"worker_count"`
	Queues      []Queue  `json:"queues"`
	// Sites are the sites that this worker remembers, those that rest first.
	Sites []Site `json:"sites"`
	// Breakers counts the proxies of this worker by the state of their breaker; Proxies are the worst of them.
	Breakers map[string]int `json:"breakers"`
	Proxies  []ProxyRow     `json:"proxies"`
	// Dead are groups of dead letters, the largest first; DeadCount counts all letters. Both are absent while nobody knows.
	Dead      []DeadGroup       `json:"dead"`
	DeadCount *uint64           `json:"dead_count"`
	Failures  []Failure         `json:"failures"`
	Retries   []jobs.RetryEvent `json:"retries"`
}

// Failure is a job that failed. Detail is cut, since a proxy's or site's text may be of any length.
type Failure struct {
	At       time.Time `json:"at"`
	Queue    string    `json:"queue"`
	JobID    string    `json:"job_id"`
	Error    string    `json:"error"`
	Detail   string    `json:"detail"` // may be empty; at most 300 bytes
	Attempts int       `json:"attempts"`
}

// Queue is how a queue stands.
type Queue struct {
	Queue  string `json:"queue"`
	Paused bool   `json:"paused"`
	// Queued jobs are those that no worker has taken, Running those that some worker holds.
	Queued  uint64 `json:"queued"`
	Running uint64 `json:"running"`
	// Served tells that some worker serves the queue.
	Served bool `json:"served"`
	// Waiting counts the jobs that wait, by state: delayed, retrying, no_proxy, site_down. It is nil while the fleet has not
	// counted.
	Waiting map[string]uint64 `json:"waiting"`
	// OldestSeconds is how long the oldest job that has not ended has been in its state.
	OldestSeconds int64 `json:"oldest_seconds"`
	// Reasons say in words what most of its jobs wait for.
	Reasons []string `json:"reasons"`
}

// How much of a list a snapshot has. The rest is found by the API. A snapshot must stay small whatever the
// fleet's size: it is made each second.
const (
	maxWorkers = 50
	maxSites   = 50
	maxDead    = 100
	maxProxies = 20
)

// snapshot reads what is known, and waits for at most patience for each shared value that nobody has asked for lately.
func (a *admin) snapshot(ctx context.Context, watched string) Snapshot {
	s := Snapshot{
		At: time.Now().UTC(), Worker: a.Worker, Version: a.Version, Watched: watched, TokenNeeded: a.Token != "",
		Retries: a.Book.LastRetries(10), Failures: []Failure{}, Queues: a.queuesNow(ctx), Sites: []Site{}, Dead: []DeadGroup{},
	}
	s.Ready, s.Checks = a.ready()
	a.addHours(ctx, &s)
	a.addWorkers(ctx, &s)
	if list, _, _ := a.view.proxies.get(ctx); list != nil {
		s.Breakers, s.Proxies = list.counts, a.proxyRows(list, list.order[:min(len(list.order), maxProxies)])
	} else {
		s.Breakers, s.Proxies = map[string]int{}, []ProxyRow{}
	}
	if a.Sites != nil {
		s.Sites = a.view.sites.hold(a.Sites(maxSites))
	}
	// DeadCount stays nil while nobody knows; zero would say that there are none.
	if dead, known, err := a.view.dead.get(ctx); known && err == nil {
		s.Dead, s.DeadCount = orEmpty(dead.groups), &dead.count
	}
	for _, f := range a.Book.LastFailures(10) {
		s.Failures = append(s.Failures, Failure{At: f.At.UTC(), Queue: f.Queue, JobID: f.ID, Error: f.Error, Detail: short(f.Detail), Attempts: f.Attempts})
	}
	// The problems come last, because they are derived from the other members.
	s.Problems = a.problems(ctx, &s)
	return s
}

// The last day, by hour, of the fleet if it can be read.
func (a *admin) addHours(ctx context.Context, s *Snapshot) {
	book := a.bookNow(ctx)
	s.Scope = "worker"
	if book != a.Book {
		// bookNow returns the own book itself as its fallback, so comparing pointers tells the scope.
		s.Scope = "cluster"
	}
	total := book.Total(24)
	s.Hours, s.SuccessByAttempt = book.Series(24), total.SuccessByAttempt()
}

// bookNow is the fleet's book, or this worker's while that is all that is known. A failure to read is silent
// here: the page shows the scope.
func (a *admin) bookNow(ctx context.Context) *rollup.Book {
	if a.Cluster != nil {
		if fleet, err := a.Cluster(ctx); err == nil {
			return fleet
		}
	}
	return a.Book
}

// The cut may fall into a character, which is then removed, so the text stays valid UTF-8.
func short(text string) string {
	if len(text) <= 300 {
		return text
	}
	return strings.ToValidUTF8(text[:297], "") + "…"
}
