package jobs

import "time"

// The states of a job that has not ended. Metrics, the API and the command line use these words.
const (
	StateQueued   = "queued"   // nobody has taken it
	StateRunning  = "running"  // a worker holds it, inline waits included
	StateDelayed  = "delayed"  // it waits for its not_before
	StateRetrying = "retrying" // it waits for its next attempt
	StateNoProxy  = "no_proxy" // no proxy can be used
	StateSiteDown = "site_down"
)

// NoProxyRemedy says what helps jobs in the state StateNoProxy. The command line, the page and gofer doctor say it alike. A reset
// ends no cooldown at a site.
const NoProxyRemedy = "gofer proxies ls says what is the matter with each proxy; if those with open breakers work again, gofer breakers reset --all closes these; gofer proxies add URL adds another one; cooldowns at a site end by themselves"

// StateOfWait is the state of a job that waits with the value of HeaderProgress, since when it is in it, and the progress. Since
// is zero if only the time at which the message was stored tells. A job whose progress cannot be read is found to be invalid at
// its time.
func StateOfWait(header string) (state string, since time.Time, p Progress) {
	p, err := ParseProgress(header)
	switch {
	case err != nil:
		return StateRetrying, time.Time{}, Progress{}
	case !p.SiteSince.IsZero():
		return StateSiteDown, p.SiteSince, p
	case !p.WaitingSince.IsZero():
		return StateNoProxy, p.WaitingSince, p
	case len(p.Attempts) == 0:
		return StateDelayed, time.Time{}, p
	}
	return StateRetrying, time.Time{}, p
}

// States are all states, in the order in which a job meets them.
func States() []string {
	return []string{StateQueued, StateRunning, StateDelayed, StateRetrying, StateNoProxy, StateSiteDown}
}

// Outcomes are how a job can end.
func Outcomes() []string { return []string{Succeeded, Failed, Cancelled} }
