package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"github.com/gofer-mq/gofer/jobs"
)

// jobFlags are the flags that stand for members of a job. They are set in a JSON line that lacks them. The zero value sets
// nothing.
type jobFlags struct {
	method, data, deadline string
	// These are the texts of the flags, which template parses.
	headers, tags, meta    []string
	region, session, proxy string
	attempts               wholeFlag
	attemptTimeout         time.Duration
	// hasData is true if --data was given, perhaps empty.
	hasData bool
}

// add adds the flags, with the names of curl where curl has them. StringArray keeps the commas of a header, at which
// StringSlice would split.
func (f *jobFlags) add(flags *pflag.FlagSet) {
	flags.StringVarP(&f.method, "method", "X", "", "`METHOD` (default \"GET\", with --data \"POST\")")
	flags.StringArrayVarP(&f.headers, "header", "H", nil, "request `HEADER` 'Name: value'; may be given several times")
	flags.StringVarP(&f.data, "data", "d", "", "request body, `DATA` or @FILE for the bytes of a file")
	flags.StringVar(&f.region, "region", "", "preferred `REGION` of the proxy")
	flags.StringArrayVar(&f.tags, "tag", nil, "`TAG` that the proxy must have; may be given several times")
	flags.StringVar(&f.session, "session", "", "`SESSION` whose jobs use the same proxy while it works")
	flags.StringVar(&f.proxy, "proxy", "", "`ID` of the only proxy that may be used")
	flags.Var(&f.attempts, "attempts", "how many attempts the job has, 1 to 10")
	flags.Var((*durationFlag)(&f.attemptTimeout), "attempt-timeout", "how long one attempt may take, at most 10m: the member timeout of a job")
	flags.StringVar(&f.deadline, "deadline", "", "`TIME` after which no attempt starts or goes on (RFC 3339)")
	flags.StringArrayVar(&f.meta, "meta", nil, "`KEY=VALUE` that is handed back in the result; may be given several times")
}

// template returns the job that the flags describe, without a URL. All lines of the input share it, so nobody may change
// its maps and slices. Errors are usage errors. The check of each job finds values that no job may have.
func (f *jobFlags) template() (jobs.Job, error) {
	t := jobs.Job{
		Method: f.method, Timeout: jobs.Duration(f.attemptTimeout),
		Proxy: jobs.ProxyChoice{Tags: f.tags, Region: f.region, Session: f.session, ID: f.proxy},
	}
	if f.attempts != 0 {
		n := int(f.attempts)
		// A pointer, because zero attempts would be a value of its own.
		t.Retry = &jobs.Override{MaxAttempts: &n}
	}
	var err error
	if t.Headers, err = headersOf(f.headers); err != nil {
		return t, err
	}
	if t.Meta, err = metaOf(f.meta); err != nil {
		return t, err
	}
	if f.deadline != "" {
		// The bounds are checked with the job itself, where the same rule holds for every client.
		if t.Deadline, err = timeOf("--deadline", f.deadline); err != nil {
			return t, err
		}
	}
	return t, f.body(&t)
}

// body sets the request body of t. A body that is not UTF-8 goes into body_base64, because JSON holds only text. An empty
// --data is an empty body.
func (f *jobFlags) body(t *jobs.Job) error {
	if !f.hasData {
		return nil
	}
	content := []byte(f.data)
	// As in curl, a body that begins with @ has to come from a file.
	if path, isFile := strings.CutPrefix(f.data, "@"); isFile {
		var err error
		if content, err = readBody(path); err != nil {
			return usage("--data: %w", err)
		}
	}
	if utf8.Valid(content) {
		t.Body = string(content)
	} else {
		t.BodyBase64 = content
	}
	return nil
}

// readBody reads a file of at most jobs.MaxJobBytes. A larger file is an error, and is not read to its end.
func readBody(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	// One byte more than the limit shows that the file is larger.
	content, err := io.ReadAll(io.LimitReader(file, jobs.MaxJobBytes+1))
	if err == nil && len(content) > jobs.MaxJobBytes {
		err = fmt.Errorf("%s has more than %d bytes, which no job can hold", path, jobs.MaxJobBytes)
	}
	return content, err
}

// headersOf reads 'Name: value' flags. A name that is given again adds a value. The error repeats nothing of the flag,
// which may hold a secret.
func headersOf(flags []string) (jobs.Headers, error) {
	var headers jobs.Headers
	for _, flag := range flags {
		// Only the first colon separates: a value may have others.
		name, value, found := strings.Cut(flag, ":")
		if name = strings.TrimSpace(name); !found || name == "" {
			return nil, usage("--header: write it as 'Name: value'")
		}
		if headers == nil {
			headers = jobs.Headers{}
		}
		headers[name] = append(headers[name], strings.TrimSpace(value))
	}
	return headers, nil
}

// metaOf reads KEY=VALUE flags. A key that is given twice is an error, because only one value could be handed back.
func metaOf(flags []string) (map[string]string, error) {
	var meta map[string]string
	for _, flag := range flags {
		key, value, found := strings.Cut(flag, "=")
		if !found || key == "" {
			return nil, usage("--meta: write it as KEY=VALUE")
		}
		if _, twice := meta[key]; twice {
			return nil, usage("--meta: %q is given more than once", key)
		}
		if meta == nil {
			meta = map[string]string{}
		}
		meta[key] = value
	}
	return meta, nil
}

// fill sets the members that a job lacks from the template: headers and meta name by name, proxy and retry member by
// member. A body from --data makes a POST of a job without a method, as in curl.
func (f *submitFlags) fill(job *jobs.Job) {
	t := f.template
	setIfZero(&job.Method, t.Method) // before --data: --method wins over its POST
	if f.hasData && job.Body == "" && job.BodyBase64 == nil {
		job.Body, job.BodyBase64 = t.Body, t.BodyBase64
		setIfZero(&job.Method, "POST")
	}
	setIfZero(&job.Timeout, t.Timeout)
	setIfZero(&job.Proxy.Region, t.Proxy.Region)
	setIfZero(&job.Proxy.Session, t.Proxy.Session)
	setIfZero(&job.Proxy.ID, t.Proxy.ID)
	if job.Proxy.Tags == nil { // an empty list is the line's own
		job.Proxy.Tags = t.Proxy.Tags
	}
	if job.Deadline.IsZero() {
		job.Deadline = t.Deadline
	}
	fillRetry(job, t.Retry)
	fillHeaders(job, t.Headers)
	for key, value := range t.Meta {
		if job.Meta == nil {
			job.Meta = map[string]string{}
		}
		if _, own := job.Meta[key]; !own {
			// Line and template may share maps: a map of the job itself is made before it is written to.
			job.Meta[key] = value
		}
	}
}

// setIfZero sets a member that a line lacks. Zero is no valid value of these members.
func setIfZero[T comparable](member *T, value T) {
	var zero T
	if *member == zero {
		*member = value
	}
}

// fillRetry sets what the job's retry policy lacks. The template has only max_attempts.
func fillRetry(job *jobs.Job, t *jobs.Override) {
	switch {
	case t == nil:
	case job.Retry == nil:
		// The pointer is shared by all jobs of the call, which is safe as long as nobody writes through it.
		job.Retry = t
	case job.Retry.MaxAttempts == nil:
		job.Retry.MaxAttempts = t.MaxAttempts
	}
}

// fillHeaders adds the headers whose names the job has in no spelling (RFC 9110, 5.1: names are case-insensitive).
func fillHeaders(job *jobs.Job, headers jobs.Headers) {
	// Only the job's own names: the template's must not hide each other.
	own := make([]string, 0, len(job.Headers))
	for name := range job.Headers {
		own = append(own, name)
	}
	for name, values := range headers {
		if slices.ContainsFunc(own, func(o string) bool { return strings.EqualFold(o, name) }) {
			continue
		}
		if job.Headers == nil {
			job.Headers = jobs.Headers{}
		}
		job.Headers[name] = values
	}
}

// printJob prints a job as a line that gofer submit reads, with its id and queue if it has any. Times are in UTC.
func (a *app) printJob(job jobs.Job) error {
	// The zero time stays zero in UTC, so an absent member stays absent.
	job.NotBefore, job.Deadline = job.NotBefore.UTC(), job.Deadline.UTC()
	return a.printJSON(struct {
		ID    string `json:"id,omitempty"`
		Queue string `json:"queue,omitempty"`
		jobs.Job
	}{job.ID, job.Queue, job})
}

// timeOf reads the value of a flag: a time with its zone, or one of this machine's zone without its seconds. The error is a
// usage error.
func timeOf(flag, value string) (time.Time, error) {
	// A time with its zone means the same on every machine, so it is tried first.
	if at, err := time.Parse(time.RFC3339, value); err == nil {
		return at, nil
	}
	at, err := time.ParseInLocation("2006-01-02 15:04", value, time.Local)
	if err != nil {
		return at, usage("%s: %q is no time such as 2026-01-02T15:04:05Z, or \"2026-01-02 15:04\" of this machine's zone", flag, value)
	}
	return at, nil
}
