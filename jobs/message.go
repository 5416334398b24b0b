package jobs

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// HeaderField is one header field of a response.
type HeaderField struct{ Name, Value string }

// maxHTTPHeader bounds the response's header fields in a result, each counted as a message carries it.
const maxHTTPHeader = 16 << 10

const (
	contentType = "Content-Type"
	problemType = "application/problem+json"
)

// problem is the payload of a job that did not succeed (RFC 9457).
type problem struct {
	Type     string    `json:"type"`
	Title    string    `json:"title"`
	Detail   string    `json:"detail,omitempty"`
	Error    string    `json:"error"`
	Reasons  []string  `json:"reasons,omitempty"`
	Attempts []Attempt `json:"attempts"`
}

// Message writes the result as the headers and the payload of a message. The header map has the shape of nats.Header and
// holds only what a NATS client encodes and decodes unchanged. The same result always gives the same message.
func (r *Result) Message() (header map[string][]string, payload []byte, err error) {
	// Room for all of them at once, so the map does not grow.
	h := r.facts(len(r.Meta) + len(r.Fields) + len(r.Header))
	for key, value := range r.Meta {
		h.set(metaPrefix+key, value)
	}
	if r.Outcome == Succeeded {
		if truncated := r.addFields(h.all); truncated || r.Truncated {
			h.put(HeaderHeadersTruncated, "true")
		}
		return h.all, r.Body, nil
	}
	h.put(contentType, problemType)
	payload, err = json.Marshal(r.problem())
	if err != nil {
		return nil, nil, fmt.Errorf("encode result of job %s: %w", r.ID, err)
	}
	return h.all, payload, nil
}

// Facts are the headers of the result's message without those of the response and without meta. They include its trace.
func (r *Result) Facts() map[string][]string { return r.facts(0).all }

// maxFacts is how many headers facts makes at most.
const maxFacts = 19

// facts are the same, with room for more headers.
func (r *Result) facts(more int) *headers {
	// The values share one array, which saves an allocation for each header.
	h := &headers{all: make(map[string][]string, maxFacts+more), values: make([]string, 0, maxFacts)}
	h.put(HeaderJobID, r.ID)
	h.put(HeaderQueue, r.Queue)
	h.put(HeaderOutcome, r.Outcome)
	h.put(HeaderError, r.Error)
	h.put(HeaderURL, r.URL)
	h.put(HeaderProxy, r.Proxy)
	h.put(HeaderExit, r.Exit)
	h.put(HeaderWorker, r.Worker)
	h.put(HeaderAttempts, strconv.Itoa(r.AttemptCount))
	h.put(HeaderBytes, strconv.FormatInt(r.Bytes, 10))
	h.put(HeaderDuration, formatSeconds(r.Duration))
	h.put(HeaderFinishedAt, r.FinishedAt.UTC().Format(time.RFC3339Nano))
	h.put(HeaderObject, r.Object)
	h.put(HeaderObjectDigest, r.ObjectDigest)
	h.put(HeaderOmitted, strings.Join(r.Omitted, ","))
	if r.Status != 0 {
		h.put(HeaderStatus, strconv.Itoa(r.Status))
	}
	if r.JobSeq != 0 {
		h.put(HeaderJobSeq, strconv.FormatUint(r.JobSeq, 10))
	}
	h.put(HeaderTraceParent, r.Trace.Parent)
	h.put(HeaderTraceState, r.Trace.State)
	return h
}

// headers are those of a message. Values of headers that come once lie in one array.
type headers struct {
	all    map[string][]string
	values []string
}

// put adds a header of ours that has a value, unless no message can carry the value.
func (h *headers) put(name, value string) {
	// A value with a line end could add a header of its own.
	if value != "" && !hasLineEnd(value) {
		h.add(name, trimBlanks(value))
	}
}

// set adds a header, unless no message can carry the header.
func (h *headers) set(name, value string) {
	if value = trimBlanks(value); isCarriable(name, value) {
		h.add(name, value)
	}
}

func (h *headers) add(name, value string) {
	h.values = append(h.values, value)
	// The capacity ends with the value, so an append to one header cannot write over the next.
	h.all[name] = h.values[len(h.values)-1 : len(h.values) : len(h.values)]
}

// isCarriable reports whether a NATS client encodes and decodes a header unchanged (NATS ADR-4): the name is a token as
// in HTTP, and the value has no line ends. Clients cut off the blanks around a value.
func isCarriable(name, value string) bool {
	return httpguts.ValidHeaderFieldName(name) && !hasLineEnd(value)
}

// hasLineEnd reports whether a value would end its header line, and so begin another header.
func hasLineEnd(value string) bool {
	return strings.IndexByte(value, '\n') >= 0 || strings.IndexByte(value, '\r') >= 0
}

// trimBlanks cuts off the blanks that are not part of a field's name or value (RFC 9110, 5.5; RFC 9112, 5.1).
func trimBlanks(text string) string { return strings.Trim(text, " \t") }

// problem is the document of a job that did not succeed (RFC 9457).
func (r *Result) problem() problem {
	p := problem{
		Type: "urn:gofer:error:" + r.Error, Title: Title(r.Error), Detail: r.Detail,
		Error: r.Error, Reasons: r.Reasons, Attempts: r.Attempts,
	}
	// An array rather than null, for clients in other languages.
	if p.Attempts == nil {
		p.Attempts = []Attempt{}
	}
	return p
}

// addFields copies the response's header fields in their order until maxHTTPHeader is reached, and reports whether it left
// out one that does not end at the proxy. A single field larger than the bound does not keep out those after it. The cost
// is linear in the size of all fields.
func (r *Result) addFields(h map[string][]string) (truncated bool) {
	fields := r.fields()
	ends := connectionOptions(fields)
	left := maxHTTPHeader
	for _, field := range fields {
		name, value := http.CanonicalHeaderKey(trimBlanks(field.Name)), trimBlanks(field.Value)
		size := len(httpPrefix) + len(name) + len(": \r\n") + len(value)
		switch {
		case isHopByHop(name) || len(ends) > 0 && ends[strings.ToLower(name)]:
		// A field that is too large by itself is left out, and those after it may still fit.
		case size > maxHTTPHeader || !isCarriable(name, value):
			truncated = true
		case size > left:
			return true
		default:
			left -= size
			h[httpPrefix+name] = append(h[httpPrefix+name], value)
		}
	}
	return truncated
}

// fields are the header fields in the order in which they came or, if that is not known, in the order of their names.
func (r *Result) fields() []HeaderField {
	if len(r.Fields) > 0 {
		return r.Fields
	}
	var fields []HeaderField
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		for _, value := range r.Header[name] {
			fields = append(fields, HeaderField{name, value})
		}
	}
	return fields
}

// connectionOptions are the names of the fields that end at the proxy because Connection says so, in lower case.
func connectionOptions(fields []HeaderField) map[string]bool {
	var options map[string]bool
	for _, field := range fields {
		if !strings.EqualFold(trimBlanks(field.Name), "Connection") {
			continue
		}
		for option := range strings.SplitSeq(field.Value, ",") {
			if options == nil {
				options = map[string]bool{}
			}
			options[strings.ToLower(trimBlanks(option))] = true
		}
	}
	return options
}

// isHopByHop reports response headers that always end at the proxy.
func isHopByHop(name string) bool {
	return forbiddenHeader(name) && !strings.EqualFold(name, "Content-Length")
}

// Omit leaves out the part of the result that its reader misses least, and reports whether there was one. The facts
// (outcome, error, status, attempts, bytes, times) stay.
func (r *Result) Omit() bool {
	// The order is from what can be fetched again to what nobody else knows.
	switch {
	case len(r.Fields) > 0 || len(r.Header) > 0:
		r.Fields, r.Header, r.Truncated = nil, nil, true
		r.omitted("headers")
	case len(r.Attempts) > 0 || len(r.Reasons) > 0:
		r.Attempts, r.Reasons = nil, nil
		r.omitted("attempts")
	case len(r.Meta) > 0:
		r.Meta = nil
		r.omitted("meta")
	case r.URL != "" || r.Detail != "":
		r.URL, r.Detail = "", ""
		r.omitted("url")
	default:
		return r.OmitBody()
	}
	return true
}

// OmitBody leaves out the response's body, and reports whether there was one. An empty body that the target sent is never
// among what was omitted.
func (r *Result) OmitBody() bool {
	if len(r.Body) == 0 {
		return false
	}
	r.Body = nil
	r.omitted("body")
	return true
}

// omitted notes the name of a part that was left out. Clip, because a copy of the result may share the array.
func (r *Result) omitted(part string) { r.Omitted = append(slices.Clip(r.Omitted), part) }
