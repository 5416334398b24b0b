package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// SetupError is the server's refusal to create or change a stream or consumer that gofer needs. It is an ErrConfig
// unless waiting may help.
type SetupError struct {
	Action string // such as "create stream GOFER_JOBS"
	// Code and Text are the server's.
	Code jetstream.ErrorCode
	Text string
	// InTheWay names the other consumer or stream that causes the refusal; empty if there is none, or if this user may
	// not ask.
	InTheWay string
	cause    error
}

// Error has the server's text.
func (e *SetupError) Error() string {
	text := fmt.Sprintf("%s: %s (error %d)", e.Action, e.Text, e.Code)
	if e.InTheWay != "" {
		text += ": " + e.InTheWay + " is in the way"
	}
	return text
}

// Unwrap is the server's answer, and ErrConfig if waiting does not help.
func (e *SetupError) Unwrap() []error {
	// The cause decides, so both views of the error agree.
	if CuredByWaiting(e.cause) {
		return []error{e.cause}
	}
	return []error{e.cause, ErrConfig}
}

// The refusals whose cause is another stream or consumer.
const (
	codeSubjectsOverlap    jetstream.ErrorCode = 10065
	codeWQUnfiltered       jetstream.ErrorCode = 10099
	codeWQNotUnique        jetstream.ErrorCode = 10100
	codeAckPendingExceeded jetstream.ErrorCode = 10121
)

// setupError turns a refusal of the server into a *SetupError, and explains any other error. It calls inTheWay, which sends
// requests, only for a refusal; nil is allowed. It returns nil for nil.
func (c *Client) setupError(action string, err error, inTheWay func() string) error {
	if inTheWay == nil {
		inTheWay = func() string { return "" }
	}
	api, ok := errors.AsType[*jetstream.APIError](err)
	// A missing stream, or one without a leader, has an explanation of its own.
	if !ok || classOf(err) == Missing || isLeaderless(err) ||
		errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
		return c.Explain(action, err)
	}
	return &SetupError{Action: action, Code: api.ErrorCode, Text: api.Description, InTheWay: inTheWay(), cause: err}
}

// otherStream names a foreign stream that has a subject of want; empty if there is none.
func (c *Client) otherStream(ctx context.Context, want streamConfig) string {
	ctx, cancel := Bounded(ctx)
	defer cancel()
	for _, subject := range want.Subjects {
		// The server finds the stream by subject, so no list of all streams is needed.
		if name, err := c.js.StreamNameBySubject(ctx, subject); err == nil && name != want.Name {
			return "stream " + name
		}
	}
	return ""
}

// otherConsumers names the foreign consumers that would get jobs of want; empty if there is none. A work queue allows one
// consumer for each subject.
func (c *Client) otherConsumers(ctx context.Context, want durable) string {
	ctx, cancel := Bounded(ctx)
	defer cancel()
	stream, err := c.js.Stream(ctx, want.stream)
	if err != nil {
		return ""
	}
	var names []string
	lister := stream.ListConsumers(ctx)
	for info := range lister.Info() {
		theirs := filters(&info.Config)
		if len(theirs) == 0 { // the consumer gets everything
			theirs = []string{">"}
		}
		clash := slices.ContainsFunc(theirs, func(filter string) bool { return overlap(filter, want.config.FilterSubject) })
		if info.Name != want.config.Durable && clash {
			names = append(names, fmt.Sprintf("consumer %s of stream %s (filter %s)", info.Name, want.stream, strings.Join(theirs, ", ")))
		}
	}
	slices.Sort(names)
	return strings.Join(names, " and ")
}

// overlap reports whether some subject matches both filters.
func overlap(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(x), len(y)) {
		switch {
		case x[i] == ">" || y[i] == ">":
			return true // the wildcard matches any rest, of at least one token
		case x[i] != y[i] && x[i] != "*" && y[i] != "*":
			return false
		}
	}
	return len(x) == len(y)
}

// covers reports whether every subject that matches narrow matches wide.
func covers(wide, narrow string) bool {
	w, n := strings.Split(wide, "."), strings.Split(narrow, ".")
	for i, token := range w {
		switch {
		case i >= len(n):
			return false
		case token == ">":
			return true
		case n[i] == ">" || token != "*" && token != n[i]:
			return false
		}
	}
	return len(w) == len(n)
}
