package admin

import (
	"context"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// Snapshot is what the dashboard shows. A member is sent only when it changes, so a member that changes each second
// must be small.
type Snapshot struct {
	At time.Time `json:"at"`
	// Worker is the name of the worker that answers, and Version its version.
	Worker  string `json:"worker"`
	Version string `json:"version"`
	// Watched is the worker whose numbers are shown; empty means all workers.
	Watched string `json:"watched"`
	// TokenNeeded is true if changes need a token; otherwise this machine may make them without one.
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
	// Scope says whose hours Hours has: "cluster", or "worker" while the fleet's hours cannot be read.
	Scope            string           `json:"scope"`
	Hours            []rollup.Point   `json:"hours"`
	SuccessByAttempt map[string]int64 `json:"success_by_attempt"`
	// Workers has the first workers, those that are not ready first; WorkerCount counts all workers.
	Workers     []Worker `json:"workers"`
	WorkerCount int      `json:"worker_count"`
	// isPartial is true while the fleet has not answered yet, so that this worker stands for it.
	isPartial bool
	Queues    []Queue `json:"queues"`
	// Sites has the first sites of all workers, or of the watched worker, resting sites first; SiteCount counts all listed sites.
	// SitesOf is the worker if the sites are those of only one worker, and empty otherwise. SitesKnown is how many sites one
	// worker remembers at most. SitesMissing has the first of the workers that have not answered.
	Sites        []*FleetSite `json:"sites"`
	SiteCount    int          `json:"site_count"`
	SitesOf      string       `json:"sites_of"`
	SitesKnown   int          `json:"sites_known"`
	SitesMissing []string     `json:"sites_missing"`
	// SitesMissingCount counts all of them.
	SitesMissingCount int `json:"sites_missing_count"`
	// resting has the sites that rest in any worker, whichever worker is watched.
	resting []string
	// Breakers counts the proxies of this worker by the state of their breaker; Proxies are the worst of them.
	Breakers map[string]int `json:"breakers"`
	Proxies  []ProxyRow     `json:"proxies"`
	// Dead has groups of dead letters, the largest first; DeadCount counts all dead letters. Both are null while they are not
	// known.
	Dead      []DeadGroup       `json:"dead"`
	DeadCount *uint64           `json:"dead_count"`
	Failures  []Failure         `json:"failures"`
	Retries   []jobs.RetryEvent `json:"retries"`
}

// Failure is a failed job.
type Failure struct {
	At       time.Time `json:"at"`
	Queue    string    `json:"queue"`
	JobID    string    `json:"job_id"`
	Error    string    `json:"error"`
	Detail   string    `json:"detail"` // may be empty; at most 300 bytes
	URL      string    `json:"url"`    // the final one; at most 300 bytes
	Attempts int       `json:"attempts"`
}

// Queue is the state of a queue.
type Queue struct {
	Queue  string `json:"queue"`
	Paused bool   `json:"paused"`
	// Queued counts the jobs that no worker has taken, Running the jobs that workers hold.
	Queued  uint64 `json:"queued"`
	Running uint64 `json:"running"`
	// Served is true if a worker serves the queue.
	Served bool `json:"served"`
	// isPulled is true if a worker asks for its jobs, or if the queue is this worker's.
	isPulled bool
	// Waiting counts the jobs that wait, by state: delayed, retrying, no_proxy, site_down. It is nil while the fleet has not
	// counted.
	Waiting map[string]uint64 `json:"waiting"`
	// OldestSeconds is the longest time that a job that has not ended has been in its state.
	OldestSeconds int64 `json:"oldest_seconds"`
	// Reasons has phrases that say what most of its jobs wait for.
	Reasons []string `json:"reasons"`
}

// Bounds of the lists of a snapshot. A snapshot is made each second, so it must stay small, whatever the size of the fleet. The
// API has the complete lists.
const (
	maxWorkers = 50
	maxSites   = 50
	maxDead    = 100
	maxProxies = 20
)

// snapshot makes a snapshot of the known values. It waits at most maxDelay for each shared value that has not been asked for
// lately.
func (a *admin) snapshot(ctx context.Context, watched string) Snapshot {
	s := Snapshot{
		At: time.Now().UTC(), Worker: a.Worker, Version: a.Version, Watched: watched, TokenNeeded: a.Token != "",
		Retries: a.Book.LastRetries(10), Failures: []Failure{}, Queues: a.queuesNow(ctx), Sites: []*FleetSite{}, SitesMissing: []string{}, Dead: []DeadGroup{},
	}
	s.Ready, s.Checks = a.ready()
	a.addHours(ctx, &s)
	a.addWorkers(ctx, &s)
	if list, _, _ := a.view.proxies.get(ctx); list != nil {
		s.Breakers, s.Proxies = list.counts, a.proxyRows(list, list.order[:min(len(list.order), maxProxies)])
	} else {
		s.Breakers, s.Proxies = map[string]int{}, []ProxyRow{}
	}
	a.addSites(ctx, &s)
	// DeadCount stays nil while it is not known, because zero would mean that there are no dead letters.
	if dead, known, err := a.view.dead.get(ctx); known && err == nil {
		s.Dead, s.DeadCount = orEmpty(dead.groups), &dead.count
	}
	for _, f := range a.Book.LastFailures(10) {
		s.Failures = append(s.Failures, Failure{At: f.At.UTC(), Queue: f.Queue, JobID: f.ID, Error: f.Error, Detail: shorten(f.Detail), URL: shorten(f.URL), Attempts: f.Attempts})
	}
	// The problems come last, because they are derived from the other members.
	s.Problems = a.problems(ctx, &s)
	return s
}

// addHours adds the hours of the last day: those of the fleet if they can be read, else those of this worker.
func (a *admin) addHours(ctx context.Context, s *Snapshot) {
	book := a.bookNow(ctx)
	s.Scope = "worker"
	if book != a.Book {
		// bookNow falls back to a.Book itself, so the pointers are equal only for the scope worker.
		s.Scope = "cluster"
	}
	total := book.Total(24)
	s.Hours, s.SuccessByAttempt = book.Series(24), total.SuccessByAttempt()
}

// bookNow returns the fleet's book, or this worker's while the fleet's cannot be read. A failure to read is silent
// here: the page shows the scope.
func (a *admin) bookNow(ctx context.Context) *rollup.Book {
	if a.Cluster != nil {
		if fleet, err := a.Cluster(ctx); err == nil {
			return fleet
		}
	}
	return a.Book
}

// shorten cuts a text to 300 bytes. If the cut falls into a character, that character is removed, so the text stays valid UTF-8.
func shorten(text string) string {
	if len(text) <= 300 {
		return text
	}
	return strings.ToValidUTF8(text[:297], "") + "…"
}
