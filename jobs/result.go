package jobs

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The outcomes of a job.
const (
	Succeeded = "succeeded" // an HTTP answer that the policy takes as final, whatever its status
	Failed    = "failed"
	Cancelled = "cancelled"
)

// The errors of a job that did not succeed.
const (
	ErrInvalidJob        = "invalid_job"
	ErrExpired           = "expired"
	ErrTimedOut          = "timed_out"
	ErrNoProxy           = "no_proxy"
	ErrSiteDown          = "site_down"
	ErrAttemptsExhausted = "attempts_exhausted"
	ErrPermanent         = "permanent"
	ErrBodyTooLarge      = "body_too_large"
	ErrTooManyRedirects  = "too_many_redirects"
	ErrTargetDenied      = "target_denied"
	ErrCancelled         = "cancelled"
)

// Fault says whose doing a failed attempt was.
type Fault string

// The faults. An attempt that ended with an answer has none. An attempt whose fault is unclear is weighed with
// others in rotation/outlier.
const (
	FaultNone    Fault = ""        // nobody's: an answer, a cancelled job, a bound of the job itself
	FaultProxy   Fault = "proxy"   // the proxy did not do its work
	FaultTarget  Fault = "target"  // the target did not
	FaultPair    Fault = "pair"    // this target does not serve this proxy, or the other way round
	FaultUnclear Fault = "unclear" // either of the two
)

// MaxInlineBody is the largest body that travels in the result message; a larger one goes to the object store.
const MaxInlineBody = 512 << 10

// Attempt is one try of a job through one proxy.
type Attempt struct {
	// Attempt counts from 1.
	Attempt int `json:"attempt"`
	// Proxy is the proxy's id, empty when the fetch was direct.
	Proxy  string `json:"proxy"`
	Region string `json:"region"`
	// Exit is the word that chose the exit of a gateway, empty without one.
	Exit      string    `json:"exit,omitempty"`
	StartedAt time.Time `json:"started_at"`
	Duration  Duration  `json:"duration"`
	// Status is the target's answer, zero when there was none.
	Status int `json:"status"`
	// Phase is how far the attempt came: "connect", "proxy", "tls", "send", "wait", "body", "done".
	Phase string `json:"phase"`
	// Phases is how long each phase took that was reached, all redirects together.
	Phases map[string]Duration `json:"phases,omitempty"`
	Fault  Fault               `json:"fault"`
	// Error is a short sentence without credentials, at most 300 bytes.
	Error string `json:"error"`
	// Hedge is true of an attempt that ran beside another one and lost: the other one decided what became of the job.
	Hedge bool `json:"hedge,omitempty"`
}

// Result is how a job ended. Exactly one is stored for every job. The zero value is no result: Outcome is
// always set.
type Result struct {
	Queue, ID string
	Outcome   string
	// Error is one of the Err… codes, empty when the job succeeded.
	Error string
	// Detail is a sentence for people and Reasons what is wrong with an invalid job; both travel in the payload of a
	// job that did not succeed.
	Detail  string
	Reasons []string
	// Status is the last status of the target, zero when it never answered. URL is the final one, after redirects.
	Status int
	URL    string
	// Attempts are all attempts made; a result that was read back has them only if the job did not succeed.
	Attempts []Attempt
	// AttemptCount is how many attempts were made; Bytes how many bytes were received over proxies in all of them.
	AttemptCount int
	Bytes        int64
	// Proxy is the id of the last proxy, Exit the word of its exit if it is a gateway with words.
	Proxy, Exit string
	// Duration runs from the first attempt to the end.
	Duration   time.Duration
	Worker     string
	FinishedAt time.Time
	// Body is the response's body after content decoding; only when the job succeeded.
	Body []byte
	// Fields are the response's header fields in the order in which they came. Header is the same without an order; it is
	// used if there are no Fields, and it is what a result that was read back has. Both only when the job succeeded.
	Fields    []HeaderField
	Header    http.Header
	Truncated bool // some response headers were left out
	// HeadersOnly means that the result was read without its payload, so that body, detail and attempts are missing.
	HeadersOnly bool
	// Omitted names what no message could carry and was left out: "headers", "attempts", "meta", "url", "body".
	Omitted []string
	// Object is "bucket/name" when the body is in the object store, ObjectDigest its SHA-256; Body is empty then.
	Object, ObjectDigest string
	Meta                 map[string]string
	// JobSeq is the job's sequence in the job stream. It distinguishes a rerun after a crash from a second job of that name.
	JobSeq uint64
	// Trace is that of the job's message.
	Trace Trace
}

// OK reports whether the job succeeded with a status from 200 to 299. A job whose answer is a 404 succeeded as well, but is
// not OK: compare Outcome with Succeeded to accept any status. It is a method of the value, so it can be used
// on what a call returns.
func (r Result) OK() bool { return r.Outcome == Succeeded && r.Status >= 200 && r.Status <= 299 }

// The headers of a result and of a dead letter.
const (
	HeaderJobID            = "Gofer-Job-Id"
	HeaderQueue            = "Gofer-Queue"
	HeaderOutcome          = "Gofer-Outcome"
	HeaderError            = "Gofer-Error"
	HeaderStatus           = "Gofer-Status"
	HeaderURL              = "Gofer-Url"
	HeaderAttempts         = "Gofer-Attempts"
	HeaderBytes            = "Gofer-Bytes"
	HeaderProxy            = "Gofer-Proxy"
	HeaderExit             = "Gofer-Exit"
	HeaderDuration         = "Gofer-Duration"
	HeaderWorker           = "Gofer-Worker"
	HeaderFinishedAt       = "Gofer-Finished-At"
	HeaderObject           = "Gofer-Object"
	HeaderObjectDigest     = "Gofer-Object-Digest"
	HeaderHeadersTruncated = "Gofer-Headers-Truncated"
	HeaderOmitted          = "Gofer-Omitted"
	HeaderJobSeq           = "Gofer-Job-Seq"
	HeaderReason           = "Gofer-Reason"
	HeaderReplayOf         = "Gofer-Replay-Of"
	HeaderProgress         = "Gofer-Progress"
	// Names of the response and of meta bear a prefix, so no site and no publisher can forge a header of
	// gofer's.
	metaPrefix = "Gofer-Meta-"
	httpPrefix = "Http-"
)

// Title is the sentence that goes with an error code.
func Title(code string) string {
	switch code {
	case ErrInvalidJob:
		return "The job is not valid"
	case ErrExpired:
		return "The job's deadline has passed"
	case ErrTimedOut:
		return "The attempts took longer than the retry timeout"
	case ErrNoProxy:
		return "No proxy could be used"
	case ErrSiteDown:
		return "The site does not answer"
	case ErrAttemptsExhausted:
		return "Every allowed attempt failed"
	case ErrPermanent:
		return "The failure would not go away by trying again"
	case ErrBodyTooLarge:
		return "The response body is larger than allowed"
	case ErrTooManyRedirects:
		return "The target redirected too often"
	case ErrTargetDenied:
		return "The target may not be fetched"
	case ErrCancelled:
		return "The job was cancelled"
	}
	return "The job failed"
}

// ParseResult reads a result back from its message. It is lenient: a header that cannot be read is left at zero, for a
// follower of results must not stop at one odd message.
func ParseResult(header map[string][]string, payload []byte) Result {
	get := func(name string) string {
		// The first value counts; gofer writes each of these headers once.
		if v := header[name]; len(v) > 0 {
			return v[0]
		}
		return ""
	}
	r := Result{
		Queue: get(HeaderQueue), ID: get(HeaderJobID), Outcome: get(HeaderOutcome), Error: get(HeaderError),
		URL: get(HeaderURL), Proxy: get(HeaderProxy), Exit: get(HeaderExit), Worker: get(HeaderWorker), Object: get(HeaderObject),
		ObjectDigest: get(HeaderObjectDigest), Truncated: get(HeaderHeadersTruncated) == "true",
		Trace: ParseTrace(header),
	}
	if omitted := get(HeaderOmitted); omitted != "" {
		r.Omitted = strings.Split(omitted, ",")
	}
	r.Status, _ = strconv.Atoi(get(HeaderStatus))
	r.AttemptCount, _ = strconv.Atoi(get(HeaderAttempts))
	r.Bytes, _ = strconv.ParseInt(get(HeaderBytes), 10, 64)
	r.JobSeq, _ = strconv.ParseUint(get(HeaderJobSeq), 10, 64)
	r.Duration, _ = ParseDuration(get(HeaderDuration))
	r.FinishedAt, _ = time.Parse(time.RFC3339Nano, get(HeaderFinishedAt))
	// Read after the others, since it goes over all headers.
	r.parsePrefixed(header)
	if r.Outcome == Succeeded {
		r.Body = payload
		return r
	}
	var p problem
	// A payload that is no problem document leaves the three fields empty.
	if json.Unmarshal(payload, &p) == nil {
		r.Detail, r.Reasons, r.Attempts = p.Detail, p.Reasons, p.Attempts
	}
	return r
}

// parsePrefixed reads the headers whose names begin with a prefix: the job's meta and the response's header.
func (r *Result) parsePrefixed(header map[string][]string) {
	for name, values := range header {
		if key, ok := strings.CutPrefix(name, metaPrefix); ok && len(values) > 0 {
			if r.Meta == nil {
				r.Meta = map[string]string{}
			}
			r.Meta[key] = values[0]
		}
		// The names are as http.CanonicalHeaderKey has them, since Message wrote them so.
		if key, ok := strings.CutPrefix(name, httpPrefix); ok {
			if r.Header == nil {
				r.Header = http.Header{}
			}
			r.Header[key] = values
		}
	}
}

// The classes of a status, by which metrics, rollups and the command line count.
const (
	Class2xx  = "2xx"
	Class3xx  = "3xx"
	Class4xx  = "4xx"
	Class5xx  = "5xx"
	ClassNone = "none" // no status, or any other
)

// Classes are all classes.
func Classes() []string { return []string{Class2xx, Class3xx, Class4xx, Class5xx, ClassNone} }

// StatusClass returns the class of a status; zero stands for no status.
func StatusClass(status int) string {
	switch status / 100 {
	case 2:
		return Class2xx
	case 3:
		return Class3xx
	case 4:
		return Class4xx
	case 5:
		return Class5xx
	}
	return ClassNone
}
