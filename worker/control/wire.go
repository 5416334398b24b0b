package control

import (
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// Status is a worker's answer to Workers.
type Status struct {
	Worker    string    `json:"worker"`
	Version   string    `json:"version"`
	StartedAt time.Time `json:"started_at"`
	// ConfigHash is equal for equal configurations; workers of earlier versions do not report it.
	ConfigHash string `json:"config_hash,omitempty"`
	// Slots is how many jobs the worker runs at once at most.
	Slots int `json:"slots"`
	// InFlight is the number of running jobs by queue; a queue without any may be missing.
	InFlight map[string]int `json:"in_flight"`
	Draining bool           `json:"draining"`
	// Ready is what /readyz says. Reasons say what is missing. Workers of earlier versions leave out empty Reasons.
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons"`
	// Proxies counts the pool by the state of the breaker: "closed", "open", "half_open".
	Proxies map[string]int `json:"proxies"`
	// ProxiesError is why a list of proxies cannot be read, so that the worker keeps an older list; empty if it can be read.
	ProxiesError string  `json:"proxies_error,omitempty"`
	Queues       []Queue `json:"queues"`
	// Unusual are proxies whose share of 4xx at a site is far from that of other proxies there, at most MaxUnusual.
	Unusual []UnusualProxy `json:"unusual_4xx,omitempty"`
	// Domain is the JetStream domain that the worker takes jobs from; empty if it has none.
	Domain string `json:"domain,omitempty"`
	// Unsettled are jobs that the worker holds and cannot settle, at most MaxUnsettled; UnsettledJobs counts all of them.
	Unsettled     []Unsettled `json:"unsettled,omitempty"`
	UnsettledJobs int         `json:"unsettled_jobs,omitempty"`
	// Recent and Minutes are what ended here lately, in steps of rollup.ShortStep and rollup.LongStep, if the request asks for
	// them.
	Recent  []rollup.Step `json:"recent,omitempty"`
	Minutes []rollup.Step `json:"minutes,omitempty"`
}

// WorkersRequest asks for Workers. Workers of earlier versions ignore its fields.
type WorkersRequest struct {
	// Recent and Minutes are how many of the newest whole steps the answer has; zero means none.
	Recent  int `json:"recent,omitempty"`
	Minutes int `json:"minutes,omitempty"`
}

// MaxUnusual is how many proxies with an unusual share are in one answer.
const MaxUnusual = 20

// UnusualProxy is a proxy whose share of 4xx at a site is far from that of the others there.
type UnusualProxy struct {
	ProxyID string `json:"proxy_id"`
	rollup.Unusual
}

// MaxUnsettled is how many unsettled jobs are in one answer.
const MaxUnsettled = 100

// Unsettled is a job whose run has ended, and whose result or next attempt cannot be stored.
type Unsettled struct {
	Queue string    `json:"queue"`
	ID    string    `json:"id"`
	Since time.Time `json:"since"`
	// Step is what fails, such as "store result", and Reason why.
	Step   string `json:"step"`
	Reason string `json:"reason"`
	// Permanent means that somebody has to change the server, the account or a stream.
	Permanent bool `json:"permanent"`
}

// Running returns the number of jobs that the worker runs.
func (s Status) Running() (n int) {
	for _, count := range s.InFlight {
		n += count
	}
	return n
}

// Queue is a queue that a worker serves, and the weight by which it gets slots.
type Queue struct {
	Queue  string `json:"queue"`
	Weight int    `json:"weight"`
}

// BreakersRequest asks for Breakers. Workers of earlier versions ignore its fields.
type BreakersRequest struct {
	// Limit is how many breakers the answer has at most; zero means as many as fit into a message.
	Limit int `json:"limit,omitempty"`
}

// ResetRequest asks for ResetBreakers; without a proxy it means all.
type ResetRequest struct {
	ProxyID string `json:"proxy_id,omitempty"`
}

// ResetResponse is a worker's answer to ResetBreakers: the number of proxies whose breaker it closed.
type ResetResponse struct {
	Worker  string `json:"worker"`
	Proxies int    `json:"proxies"`
}

// ProxiesRequest asks for Proxies.
type ProxiesRequest struct {
	// Worker is the only worker that answers, with its proxies in the order of its list. Empty means all workers: then the
	// noted proxies come first.
	Worker string `json:"worker,omitempty"`
	// From is the place in that list at which the answer begins, from 0 on.
	From int `json:"from,omitempty"`
}

// ProxiesResponse is a worker's answer to Proxies. Its numbers are of the whole pool. If the request names the worker, Total is
// the only number that is set.
type ProxiesResponse struct {
	Worker string `json:"worker"`
	Total  int    `json:"total"`
	// States counts the proxies by state: "closed", "open", "half_open", "avoided".
	States map[string]int `json:"states"`
	// Noted is how many proxies are not closed or cool down for a site.
	Noted int `json:"noted"`
	// Pool is equal for pools of the same proxies, by their ids.
	Pool string `json:"pool"`
	// FailingSince is since when all proxies have failed at once; nil if they do not.
	FailingSince *time.Time `json:"failing_since,omitempty"`
	// Proxies are as many proxies as fit into the message.
	Proxies []Proxy `json:"proxies"`
}

// Proxy is a proxy of a worker's pool. Its address has no user information.
type Proxy struct {
	ID          string   `json:"id"`
	Addr        string   `json:"addr"`
	Kind        string   `json:"kind"` // proxy or gateway
	Tags        []string `json:"tags"`
	Region      string   `json:"region"`
	Weight      int      `json:"weight"`
	MaxInflight int      `json:"max_inflight"`
	Rate        float64  `json:"rate"`
	// Source is "bucket", or "worker" for what the environment, the file or the URL of the worker names.
	Source string `json:"source"`
	// State is that of the breaker, or "avoided" while another worker's finding makes the proxy the last resort.
	State string `json:"state"`
	// Reason is the code of the failure that opened the breaker, or the worker that found an avoided proxy dead. Until is when
	// the proxy is tried again; nil if that is not known.
	Reason string     `json:"reason"`
	Until  *time.Time `json:"until"`
	// Failures are those that count for the breaker now, and Threshold is how many open it.
	Failures  int `json:"failures"`
	Threshold int `json:"threshold"`
	// Bans is the number of sites for which the proxy cools down now, because they have banned it or asked for a pause.
	Bans     int `json:"bans"`
	InFlight int `json:"in_flight"`
	// ExitsTried counts the attempts through a gateway that showed whether their exit works, ExitsFailed those whose exit failed.
	// Both count from the start of the worker.
	ExitsTried  uint64 `json:"exits_tried,omitempty"`
	ExitsFailed uint64 `json:"exits_failed,omitempty"`
	// Unusual is where the proxy's share of 4xx is far from that of other proxies; nil if there is no such site.
	Unusual *rollup.Unusual `json:"unusual_4xx,omitempty"`
}

// IsNoted reports whether something about the proxy is worth a look: it is not closed, or sites have banned it.
func (p *Proxy) IsNoted() bool { return p.State != "closed" || p.Bans > 0 }

// SiteRequest asks for Sites, where an empty site means all, or for ResetSite.
type SiteRequest struct {
	// Site is host and port, read by jobs.SiteNames: with port 80 or 443 it may also mean the site without.
	Site string `json:"site,omitempty"`
	// Limit is how many sites the answer has at most; zero means as many as fit into a message. ResetSite ignores it.
	Limit int `json:"limit,omitempty"`
}

// SiteReset is a worker's answer to ResetSite.
type SiteReset struct {
	Worker string `json:"worker"`
	// Site is the site in the spelling of the workers; empty if it is not known, and from workers of an earlier version.
	Site string `json:"site,omitempty"`
	// Known means that the worker remembers the site. The site does not rest there any more.
	Known bool `json:"known"`
}

// DrainRequest asks for Drain.
type DrainRequest struct {
	Worker string `json:"worker"`
}

// DrainResponse is the answer of the worker that began to drain.
type DrainResponse struct {
	Worker   string `json:"worker"`
	Draining bool   `json:"draining"`
}

// PolicyResponse is the answer to Policy: the current retry policy, and since when the fleet has it; nil for the policy of the
// environment.
type PolicyResponse struct {
	jobs.Policy
	UpdatedAt *time.Time `json:"updated_at"`
	// Environment is the policy of the worker's environment; older workers do not report it.
	Environment *jobs.Policy `json:"environment,omitempty"`
}

// RollupRequest asks for Rollups.
type RollupRequest struct {
	// Hours is 1 to 168; zero means 24.
	Hours int `json:"hours,omitempty"`
	// Scope is ScopeCluster, which is the default, or ScopeWorker, the hours of whichever worker answers.
	Scope string `json:"scope,omitempty"`
}

// RollupResponse is the answer to Rollups: one point for each hour, oldest first, the running hour last. Scope may be another one
// than was asked for: a worker may know its own hours only.
type RollupResponse struct {
	Worker string         `json:"worker"`
	Scope  string         `json:"scope"`
	Points []rollup.Point `json:"data_points"`
}

// QueueRequest asks for Pause or Resume.
type QueueRequest struct {
	Queue string `json:"queue"`
}

// PauseResponse is the answer to Pause and Resume.
type PauseResponse struct {
	Queue  string `json:"queue"`
	Paused bool   `json:"paused"`
}
