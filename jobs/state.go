package jobs

// The states of a job that has not ended. Metrics, the API and the command line use these words.
const (
	StateQueued   = "queued"   // nobody has taken it
	StateRunning  = "running"  // a worker holds it, inline waits included
	StateDelayed  = "delayed"  // it waits for its not_before
	StateRetrying = "retrying" // it waits for its next attempt
	StateNoProxy  = "no_proxy" // no proxy can be used
	StateSiteDown = "site_down"
)

// States are all states, in the order in which a job meets them.
func States() []string {
	return []string{StateQueued, StateRunning, StateDelayed, StateRetrying, StateNoProxy, StateSiteDown}
}

// Outcomes are how a job can end.
func Outcomes() []string { return []string{Succeeded, Failed, Cancelled} }
