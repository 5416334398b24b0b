package jobs

import (
	"slices"
	"time"
)

// Summary is what is known of a result, without its body, in the JSON of the command line and the API.
type Summary struct {
	Queue      string              `json:"queue"`
	ID         string              `json:"id"`
	Outcome    string              `json:"outcome"`
	Error      string              `json:"error,omitempty"`
	Detail     string              `json:"detail,omitempty"`
	Reasons    []string            `json:"reasons,omitempty"`
	Status     int                 `json:"status,omitempty"`
	URL        string              `json:"url,omitempty"`
	Proxy      string              `json:"proxy,omitempty"`
	Exit       string              `json:"exit,omitempty"`
	Attempts   int                 `json:"attempts"`
	Tries      []Attempt           `json:"tries,omitempty"`
	Bytes      int64               `json:"bytes"`
	Duration   Duration            `json:"duration"`
	Worker     string              `json:"worker"`
	FinishedAt time.Time           `json:"finished_at"`
	BodyBytes  *int                `json:"body_bytes,omitempty"` // not known where only headers are read, of an object, or if it was left out
	Object     string              `json:"object,omitempty"`
	Meta       map[string]string   `json:"meta,omitempty"`
	Headers    map[string][]string `json:"headers,omitempty"`
	Truncated  bool                `json:"headers_truncated,omitempty"` // headers of the response were left out
	Omitted    []string            `json:"omitted,omitempty"`           // as in Result
}

// Summary is the result without its body.
func (r Result) Summary() Summary {
	var size *int
	if n := len(r.Body); r.Object == "" && !r.HeadersOnly && !r.LacksBody() {
		size = &n
	}
	return Summary{
		Queue: r.Queue, ID: r.ID, Outcome: r.Outcome, Error: r.Error, Detail: r.Detail, Reasons: r.Reasons, Status: r.Status,
		URL: r.URL, Proxy: r.Proxy, Exit: r.Exit, Attempts: r.AttemptCount, Tries: r.Attempts, Bytes: r.Bytes, Duration: Duration(r.Duration),
		Worker: r.Worker, FinishedAt: r.FinishedAt, BodyBytes: size, Object: r.Object, Meta: r.Meta, Headers: r.Header,
		Truncated: r.Truncated, Omitted: r.Omitted,
	}
}

// LacksBody reports whether the response had a body that no stream could hold.
func (r Result) LacksBody() bool { return slices.Contains(r.Omitted, "body") }
