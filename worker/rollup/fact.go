package rollup

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// AttemptFact describes an attempt that ended. A zero At means now.
type AttemptFact struct {
	// Proxy is the proxy's id, empty for a direct fetch.
	Proxy string
	// Status is the status of the target's answer; zero without an answer.
	Status int
	Fault  jobs.Fault
	// Reason is one of Reasons, and empty if the attempt did not fail. An unknown reason counts as Other.
	Reason   string
	Duration time.Duration
	// Bytes counts the bytes that were received on the connection to the proxy, or to the target.
	Bytes int64
	At    time.Time
}

// failed reports whether the attempt has a fault or a reason.
func (f AttemptFact) failed() bool { return f.Fault != jobs.FaultNone || f.Reason != "" }

// JobFact describes a job whose result is stored. A zero At means now.
type JobFact struct {
	Queue, ID string
	// Outcome is jobs.Succeeded, jobs.Failed or jobs.Cancelled; Error one of the codes of package jobs.
	Outcome, Error string
	// Status is the last status of the target; zero without an answer.
	Status int
	// Detail is a sentence that says why the job failed. URL is the final URL, after redirects. Only LastFailures returns the
	// two.
	Detail, URL string
	// Policy is the name of the retry policy that the job ran under, such as "exponential/3".
	Policy string
	// Attempts counts all attempts of the job.
	Attempts int
	// Duration runs from the first attempt to the end.
	Duration time.Duration
	// Bytes counts the bytes of all attempts. They are not added to the hour, because the hour has the bytes of each attempt.
	Bytes int64
	At    time.Time
}

// code returns the label of the job: "succeeded", or one of JobErrors.
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

// Rest stands for all proxies that are not named. No proxy can have this id.
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
	return append(jobs.ErrorCodes(), Other)
}

// policyLabel returns the name of a policy if there can be such a policy: 3 strategies with 1 to jobs.MaxMaxAttempts attempts.
// Any other name counts as Other. So there are at most 31 labels, whatever jobs say.
func policyLabel(name string) string {
	strategy, attempts, _ := strings.Cut(name, "/")
	n, err := strconv.Atoi(attempts)
	known := strategy == jobs.Exponential || strategy == jobs.Linear || strategy == jobs.Fixed
	if !known || err != nil || n < 1 || n > jobs.MaxMaxAttempts {
		return Other
	}
	return name
}

// attemptLabel returns the label of the attempt that succeeded. A number below 1 or above jobs.MaxMaxAttempts, which no policy
// allows, counts as the nearest allowed number.
func attemptLabel(n int) string { return strconv.Itoa(min(max(n, 1), jobs.MaxMaxAttempts)) }

// oneOf returns a label if the list has it, else Other. So text from outside cannot add labels.
func oneOf(list []string, label string) string {
	if slices.Contains(list, label) {
		return label
	}
	return Other
}
