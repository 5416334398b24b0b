package jobs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// The bounds of a job.
const (
	MaxJobBytes        = 768 << 10        // payload and headers together
	MaxURLBytes        = 8 << 10          // redirect targets too
	MaxAttemptTimeout  = 10 * time.Minute // of one attempt
	MaxMetaKeys        = 32
	MaxMetaBytes       = 8 << 10 // keys and values together
	MaxFollowRedirects = 50
	DefaultRedirects   = 10
	MaxYear            = 2261 // of a time: the server counts nanoseconds, and what overflows would come at once
)

// The choices of Job.WhenNoProxy.
const (
	NoProxyWait = "wait"
	NoProxyFail = "fail"
)

// The choices of Job.WhenSiteDown.
const (
	SiteDownWait = "wait"
	SiteDownFail = "fail"
)

// Job is one request that is to be fetched. Make one with Decode, or fill it in and let Encode check it. Queue and
// ID are not part of the payload: they stand in the subject.
type Job struct {
	Queue string `json:"-"`
	ID    string `json:"-"`

	// Trace is published in the headers of the job's message. An invalid one is left out. Workers find it in Progress.
	Trace Trace `json:"-"`

	// URL is absolute, http or https, without user information.
	URL string `json:"url"`
	// Method is GET when empty.
	Method string `json:"method,omitempty"`
	// Headers are sent as they stand; hop-by-hop ones, Host and Content-Length are refused.
	Headers Headers `json:"headers,omitempty"`
	// Body and BodyBase64 are the request body as text or as bytes; one of the two.
	Body       string `json:"body,omitempty"`
	BodyBase64 []byte `json:"body_base64,omitempty"`
	// Timeout bounds one attempt, at most MaxAttemptTimeout; zero means the worker's.
	Timeout Duration `json:"timeout,omitempty"`
	// FirstByteTimeout bounds the wait for the first byte of each response, and each step to a connection; zero means the
	// worker's.
	FirstByteTimeout AutoDuration `json:"first_byte_timeout,omitempty"`
	// NotBefore is the time before which the job waits; zero means now.
	NotBefore time.Time `json:"not_before,omitzero"`
	// Deadline is the time after which no attempt starts or goes on; zero means none.
	Deadline time.Time `json:"deadline,omitzero"`
	// Retry replaces fields of the fleet's policy; nil replaces none.
	Retry *Override `json:"retry,omitempty"`
	// Proxy narrows which proxies may be used.
	Proxy ProxyChoice `json:"proxy,omitzero"`
	// Ban names the answers that mean "this proxy is banned by this host"; nil means those of the fleet's policy.
	Ban *Ban `json:"ban,omitempty"`
	// WhenNoProxy is NoProxyWait (also when empty) or NoProxyFail.
	WhenNoProxy string `json:"when_no_proxy,omitempty"`
	// WhenSiteDown is SiteDownWait (also when empty) or SiteDownFail.
	WhenSiteDown string `json:"when_site_down,omitempty"`
	// FollowRedirects is how many redirects are followed; nil means DefaultRedirects, 0 returns the 3xx itself.
	FollowRedirects *int `json:"follow_redirects,omitempty"`
	// MaxBodyBytes bounds the decoded body; zero means the worker's own bound, and a worker refuses more than that.
	MaxBodyBytes int64 `json:"max_body_bytes,omitempty"`
	// Meta is handed back in the result.
	Meta map[string]string `json:"meta,omitempty"`

	target URL
}

// Target is the URL of a decoded job in its normal form; the zero value if the job's URL is invalid.
func (j *Job) Target() URL { return j.target }

// ProxyChoice narrows the proxies that a job may use. The zero value allows all of them.
type ProxyChoice struct {
	// Tags must all be on the proxy.
	Tags []string `json:"tags,omitempty"`
	// Region is preferred, or demanded with RegionStrict.
	Region       string `json:"region,omitempty"`
	RegionStrict bool   `json:"region_strict,omitempty"`
	// Session sends all jobs of one name through the same proxy while it works.
	Session string `json:"session,omitempty"`
	// ID names the only proxy allowed.
	ID string `json:"id,omitempty"`
	// Direct fetches without a proxy; invalid unless the worker allows it.
	Direct bool `json:"direct,omitempty"`
}

// Headers are request headers; in JSON a value is a string or a list of strings.
type Headers map[string][]string

// UnmarshalJSON reads an object whose values are strings or lists of strings, each name once. A name that comes
// twice is refused by members, and not silently replaced.
func (h *Headers) UnmarshalJSON(data []byte) error {
	out := Headers{}
	reasons := members(data, func(name string, value json.RawMessage) []string {
		list, ok := stringOrList(value)
		if !ok {
			return []string{quoted(name) + ": neither a string nor a list of strings"}
		}
		out[name] = list
		return nil
	})
	*h = out
	return asError(reasons)
}

// stringOrList reads a string, or a list of strings, as a list.
func stringOrList(value json.RawMessage) (list []string, ok bool) {
	if isNull(value) {
		return nil, false
	}
	var one string
	if unmarshal(value, &one) == nil {
		return []string{one}, true
	}
	var many []*string
	// Pointers distinguish null from an empty string.
	if json.Unmarshal(value, &many) != nil || slices.Contains(many, nil) {
		return nil, false
	}
	list = make([]string, 0, len(many)) // an empty list is written as one, not as null
	for _, text := range many {
		list = append(list, *text)
	}
	return list, true
}

// Content is the request body, however it was given.
func (j *Job) Content() []byte {
	if j.Body != "" {
		// The copy protects the string; callers treat the bytes as read-only all the same.
		return []byte(j.Body)
	}
	return j.BodyBase64
}

// Redirects is how many redirects are followed.
func (j *Job) Redirects() int {
	if j.FollowRedirects == nil {
		return DefaultRedirects
	}
	return *j.FollowRedirects
}

// Decode reads a job's payload: a bare absolute URL, or a JSON object. The error is an *InvalidError that lists
// everything that is wrong; the job that comes with it is as much as could be read, for the result that says so.
func Decode(queue, id string, payload []byte) (Job, error) {
	job := Job{Queue: queue, ID: id}
	reasons := append(nameReasons(queue, id), job.read(payload, job.field, func() {})...)
	return job, asError(reasons)
}

// read reads a payload into the job, with field for the members of an object, and lists everything that is wrong. fill is called
// before the values are checked, and not at all if the payload has none.
func (j *Job) read(payload []byte, field func(name string) any, fill func()) (reasons []string) {
	empty := *j
	// The mark is of an editor that begins UTF-8 with it.
	text := bytes.Trim(bytes.TrimPrefix(payload, []byte("\ufeff")), " \t\r\n")
	switch {
	case len(payload) > MaxJobBytes:
		reasons = append(reasons, fmt.Sprintf("the job has %d bytes, at most %d are allowed", len(payload), MaxJobBytes))
	case !utf8.Valid(text):
		reasons = append(reasons, "the payload is not UTF-8 text")
	case len(text) == 0:
		reasons = append(reasons, "the payload is empty: send an absolute URL or a JSON object with a url")
	case text[0] == '{':
		// encoding/json would replace it silently, and another job than the publisher's would run.
		reasons = append(reasons, decodeObject(text, field)...)
		if !isObject(text, reasons) {
			*j = empty // the quick path may have read some members before it gave up
		}
		if hasLoneSurrogate(text) {
			reasons = append(reasons, `the payload escapes half of a character, a \ud800 to \udfff that is not one of a pair`)
		}
	case !hasScheme(text):
		// A text that is perhaps no URL at all is not kept as one.
		hint, _ := strings.CutPrefix(noWebURL(string(text)).Error(), notWeb)
		reasons = append(reasons, "the payload is neither an absolute URL nor a JSON object"+hint)
	default:
		j.URL = string(text)
	}
	// The values are checked even if the shape was wrong, so that a publisher learns of everything at once.
	if j.URL != "" || isObject(text, reasons) {
		fill()
		reasons = merge(reasons, j.finish())
	}
	return reasons
}

// hasScheme reports whether a text begins with the scheme of a URL.
func hasScheme(text []byte) bool {
	scheme, _ := cutScheme(string(text))
	return scheme != ""
}

// isObject reports whether text was read as an object, of whose fields it can be said what they lack.
func isObject(text []byte, reasons []string) bool {
	return len(text) > 0 && text[0] == '{' && len(text) <= MaxJobBytes && utf8.Valid(text) &&
		!slices.ContainsFunc(reasons, func(r string) bool { return strings.HasPrefix(r, notObject) })
}

// merge adds what the values say to what the shape said, unless the shape said something about that field already: one that
// could not be read is empty only for that.
func merge(shape, values []string) []string {
	// Clip keeps append from writing into the caller's array.
	all := slices.Clip(shape)
	for _, reason := range values {
		field, _, _ := strings.Cut(reason, ":")
		if !slices.ContainsFunc(shape, func(r string) bool { return strings.HasPrefix(r, field) }) {
			all = append(all, reason)
		}
	}
	return all
}

// Encode checks the job as Decode does and writes its payload, times in UTC.
func (j *Job) Encode() ([]byte, error) {
	// The check fills in fields that are not published, so it works on a copy.
	checked := *j
	if err := asError(append(nameReasons(j.Queue, j.ID), checked.finish()...)); err != nil {
		return nil, err
	}
	utc := *j
	utc.NotBefore, utc.Deadline = j.NotBefore.UTC(), j.Deadline.UTC()
	payload, err := json.Marshal(&utc)
	if err != nil {
		return nil, fmt.Errorf("encode job %s: %w", j.ID, err)
	}
	// Base64 and escapes may make the payload larger than the body was.
	if len(payload) > MaxJobBytes {
		return nil, &InvalidError{Reasons: []string{fmt.Sprintf("the job has %d bytes, at most %d are allowed", len(payload), MaxJobBytes)}}
	}
	return payload, nil
}

// UnmarshalJSON refuses unknown fields and names every field that it cannot read. It does not check their values:
// Decode and Encode do.
func (j *Job) UnmarshalJSON(data []byte) error { return asError(j.decode(data)) }

// UnmarshalJSON refuses unknown fields.
func (p *ProxyChoice) UnmarshalJSON(data []byte) error {
	return asError(decodeObject(data, p.field))
}

// field is where a member of the object belongs; nil for an unknown one.
func (p *ProxyChoice) field(name string) any {
	switch name {
	case "tags":
		return &p.Tags
	case "region":
		return &p.Region
	case "region_strict":
		return &p.RegionStrict
	case "session":
		return &p.Session
	case "id":
		return &p.ID
	case "direct":
		return &p.Direct
	}
	return nil
}

func (j *Job) decode(data []byte) []string {
	return decodeObject(data, j.field)
}

// field is where a member of the object belongs; nil for an unknown one. A switch instead of reflection: every
// job of a fleet goes through here.
func (j *Job) field(name string) any {
	switch name {
	case "url":
		return &j.URL
	case "method":
		return &j.Method
	case "headers":
		return &j.Headers
	case "body":
		return &j.Body
	case "body_base64":
		return &j.BodyBase64
	case "timeout":
		return &j.Timeout
	case "first_byte_timeout":
		return &j.FirstByteTimeout
	case "not_before":
		return &j.NotBefore
	case "deadline":
		return &j.Deadline
	case "retry":
		return &j.Retry
	case "proxy":
		return &j.Proxy
	case "ban":
		return &j.Ban
	case "when_no_proxy":
		return &j.WhenNoProxy
	case "when_site_down":
		return &j.WhenSiteDown
	case "follow_redirects":
		return &j.FollowRedirects
	case "max_body_bytes":
		return &j.MaxBodyBytes
	case "meta":
		return (*texts)(&j.Meta)
	}
	return nil
}

// nameReasons says what is wrong with the queue and the id of a job.
func nameReasons(queue, id string) (reasons []string) {
	if !ValidQueue(queue) {
		reasons = append(reasons, fmt.Sprintf("queue %q does not match [a-z0-9_-]{1,32}", clip(queue, 60)))
	}
	if !ValidID(id) {
		reasons = append(reasons, fmt.Sprintf("job id %q does not match [A-Za-z0-9_-]{1,128}", clip(strings.ToValidUTF8(id, "?"), 60)))
	}
	return reasons
}
