package rollup

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// AttemptFact says that one attempt of a job ended. A zero At means now.
type AttemptFact struct {
	// Proxy is the proxy's id, empty for a direct fetch.
	Proxy string
	// Status is the target's answer, zero when there was none.
	Status int
	Fault  jobs.Fault
	// Reason is one of Reasons, empty when the attempt did not fail; an unknown one counts as Other.
	Reason   string
	Duration time.Duration
	// Bytes were received over the proxy.
	Bytes int64
	At    time.Time
}

// failed reports whether the attempt was anything but an answer.
func (f AttemptFact) failed() bool { return f.Fault != jobs.FaultNone || f.Reason != "" }

// JobFact says that a job ended: its result is stored. A zero At means now.
type JobFact struct {
	Queue, ID string
	// Outcome is jobs.Succeeded, jobs.Failed or jobs.Cancelled; Error one of the codes of package jobs.
	Outcome, Error string
	// Status is the last one of the target, zero when there was none.
	Status int
	// Detail says in words why the job failed, and URL is the final one, after redirects. Only LastFailures has them.
	Detail, URL string
	// Policy is the name of the retry policy that the job ran under, such as "exponential/3".
	Policy string
	// Attempts is how many were made in all.
	Attempts int
	// Duration runs from the first attempt to the end.
	Duration time.Duration
	// Bytes were received over proxies in all attempts. They are not added to the hour: the attempts were.
	Bytes int64
	At    time.Time
}

// code is the label that the job is counted under: "succeeded" or its error, a closed list.
func (f JobFact) code() string {
	switch f.Outcome {
	case jobs.Succeeded:
		return jobs.Succeeded
	case jobs.Cancelled:
		return jobs.ErrCancelled
	}
	return oneOf(JobErrors(), f.Error)
}

// Other is the label of whatever is not on a closed list.
const Other = "other"

// Rest stands for all proxies that are not named. No proxy can have that id.
const Rest = "(other)"

// Reasons is the closed list of why an attempt failed. Dashboards use the names, so none is ever renamed.
func Reasons() []string {
	return []string{
		"connect", "proxy_auth", "proxy_refused", "region_refused", "proxy_tls", "proxy_protocol", "dns", "tls", "timeout", "reset",
		"truncated", "status", "status_403", "status_429", "status_5xx", "ban", "body_too_large", "redirects", "location", "denied",
		"decode", "malformed", "local", "cancelled", "panic", Other,
	}
}

// JobErrors is the closed list of how a job that did not succeed is counted.
func JobErrors() []string {
	return []string{
		jobs.ErrInvalidJob, jobs.ErrExpired, jobs.ErrTimedOut, jobs.ErrNoProxy, jobs.ErrSiteDown, jobs.ErrAttemptsExhausted, jobs.ErrPermanent,
		jobs.ErrBodyTooLarge, jobs.ErrTooManyRedirects, jobs.ErrTargetDenied, jobs.ErrCancelled, Other,
	}
}

// policyLabel is the policy's name if there can be such a policy: 3 strategies with 1 to jobs.MaxMaxAttempts
// attempts. So policies make at most 31 labels, whatever jobs say.
func policyLabel(name string) string {
	strategy, attempts, _ := strings.Cut(name, "/")
	n, err := strconv.Atoi(attempts)
	known := strategy == jobs.Exponential || strategy == jobs.Linear || strategy == jobs.Fixed
	if !known || err != nil || n < 1 || n > jobs.MaxMaxAttempts {
		return Other
	}
	return name
}

// attemptLabel is the number of the attempt that succeeded; a policy allows no more than jobs.MaxMaxAttempts. A
// number that no policy allows counts as the nearest one.
func attemptLabel(n int) string { return strconv.Itoa(min(max(n, 1), jobs.MaxMaxAttempts)) }

// oneOf returns a label if the list has it, else Other: strangers must not make the number of labels grow.
func oneOf(list []string, label string) string {
	if slices.Contains(list, label) {
		return label
	}
	return Other
}
