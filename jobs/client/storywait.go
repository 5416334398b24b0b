package client

import (
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
)

// Wait is what a job waits for.
type Wait struct {
	// Why is the state: jobs.StateDelayed, StateRetrying, StateNoProxy or StateSiteDown.
	Why string `json:"why"`
	// Since is when the job began to wait for it.
	Since time.Time `json:"since,omitzero"`
	// Until is the time of the next attempt. For a site only workers know it, not the streams.
	Until time.Time `json:"until,omitzero"`
	Site  string    `json:"site,omitempty"`
	// Proxies are the ids of the only proxies that the job may use; empty if it may use others.
	Proxies []string `json:"proxies,omitempty"`
	// Detail is a sentence.
	Detail string `json:"detail,omitempty"`
}

// waitOf returns what a job waits for, from its message. m has the times of the wait.
func (t *Story) waitOf(msg *nats.Msg, m Moment) *Wait {
	state, since, progress := jobs.StateOfWait(msg.Header.Get(jobs.HeaderProgress))
	w := &Wait{Why: state, Since: since.UTC(), Until: m.Until, Site: m.Site}
	if since.IsZero() {
		w.Since = m.At
	}
	// An invalid job never waits, but anybody may publish one.
	if job, err := jobs.Decode(t.Queue, t.ID, msg.Data); err == nil {
		if w.Site == "" {
			w.Site = job.Target().Site()
		}
		if job.Proxy.ID != "" {
			w.Proxies = []string{job.Proxy.ID}
		}
	}
	w.Detail = detailOf(state, w.Site, progress.Why)
	return w
}

// detailOf says in a sentence why a job waits in a state. Why is the reason of the worker that looked for a proxy.
func detailOf(state, site, why string) string {
	switch state {
	case jobs.StateSiteDown:
		return "the site " + site + " does not answer, or is new and has its share of slots"
	case jobs.StateNoProxy:
		if why != "" {
			return "no proxy can be used for " + site + ": " + why
		}
		return "no proxy can be used for " + site
	case jobs.StateDelayed:
		return "the job waits for its not_before"
	}
	return "the job waits for its next attempt"
}
