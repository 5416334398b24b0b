package jobs

import (
	"slices"
	"strings"

	"github.com/gofer-mq/gofer/jobs/text"
)

// The headers of a trace (W3C Trace Context). Gofer writes them in lower case.
const (
	HeaderTraceParent = "traceparent"
	HeaderTraceState  = "tracestate"
)

// The bounds of a trace. A publisher's trace travels in every message about its job, so that it must not grow.
const (
	maxTraceParent = 128 // a later version of the standard may be longer than the 55 bytes of version 00
	maxTraceState  = 512 // what the standard asks everybody to hand on
	maxTraceItems  = 32
)

// Trace is the trace context of a job. It comes with the job's message and goes along with its retry events, its result and its
// dead letter. It never goes to proxies or targets. The zero value is none.
type Trace struct {
	// Parent is a valid traceparent, State a valid tracestate. There is no State without a Parent.
	Parent, State string
}

// ParseTrace reads a trace from the headers of a message. What is not valid is dropped: a trace is no reason to refuse a job.
func ParseTrace(header map[string][]string) Trace {
	parents := slices.Concat(header[HeaderTraceParent], header["Traceparent"])
	if len(parents) != 1 || !validTraceParent(parents[0]) {
		return Trace{}
	}
	trace := Trace{Parent: parents[0]}
	state := strings.Join(slices.Concat(header[HeaderTraceState], header["Tracestate"]), ",")
	if validTraceState(state) {
		trace.State = state
	}
	return trace
}

// AddTo sets the headers of the trace. It leaves out what is not valid; the zero value sets none.
func (t Trace) AddTo(header map[string][]string) {
	if !validTraceParent(t.Parent) {
		return
	}
	header[HeaderTraceParent] = []string{t.Parent}
	if validTraceState(t.State) {
		header[HeaderTraceState] = []string{t.State}
	}
}

// validTraceParent reports whether text is version-traceid-parentid-flags, each in lower-case hex, with ids that are not zero.
// Only versions after 00 may go on. Version ff is forbidden.
func validTraceParent(text string) bool {
	if len(text) < 55 || len(text) > maxTraceParent || !isGraphic(text[55:]) || hidesHeaders(text) {
		return false
	}
	version, trace, parent, flags := text[:2], text[3:35], text[36:52], text[53:55]
	for _, part := range []string{version, trace, parent, flags} {
		if strings.Trim(part, "0123456789abcdef") != "" {
			return false
		}
	}
	if text[2] != '-' || text[35] != '-' || text[52] != '-' || version == "ff" || len(text) > 55 && (version == "00" || text[55] != '-') {
		return false
	}
	return strings.Trim(trace, "0") != "" && strings.Trim(parent, "0") != ""
}

// hidesHeaders reports whether text holds the beginning of the server's own headers. nats-server 2.15 overlooks a header whose
// name stands twice in a value before it, and a job whose schedule is overlooked waits for ever.
func hidesHeaders(text string) bool { return strings.Contains(strings.ToLower(text), "nats-") }

// validTraceState reports whether text is a list of key=value, at most 32 with different keys, that a header carries unharmed.
func validTraceState(state string) bool {
	if state == "" || len(state) > maxTraceState || hidesHeaders(state) {
		return false
	}
	var keys []string
	for _, item := range text.Items(state) {
		key, value, ok := strings.Cut(item, "=")
		if !ok || !validTraceKey(key) || !validTraceValue(value) || slices.Contains(keys, key) {
			return false
		}
		keys = append(keys, key)
	}
	return len(keys) > 0 && len(keys) <= maxTraceItems
}

// validTraceKey reports whether key begins with a small letter or digit, and has no more than the letters of keys.
func validTraceKey(key string) bool {
	const first = "abcdefghijklmnopqrstuvwxyz0123456789"
	return key != "" && len(key) <= 256 && strings.Contains(first, key[:1]) && strings.Trim(key, first+"_-*/@") == ""
}

// validTraceValue reports whether value has printable ASCII only, without a comma, which ends an item, and without "=".
func validTraceValue(value string) bool {
	return value != "" && len(value) <= 256 && isGraphic(strings.ReplaceAll(value, " ", "_")) && !strings.Contains(value, "=")
}

// isGraphic reports whether text has visible ASCII characters only.
func isGraphic(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}
