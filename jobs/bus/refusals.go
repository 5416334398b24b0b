package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
)

// refusals finds the request that a permission violation is about. The server reports a violation on the connection and
// not as the answer to the request, which would run into its time limit. nats.Conn.LastError keeps the last violation
// until the connection is made again, so it says nothing about a later request.
type refusals struct {
	refused func(subject string, err error) // ends the publishes that confirmations has

	mu        sync.Mutex // guards the maps
	waiting   map[*request]struct{}
	listening map[*listener]struct{}
}

// request is a call that waits for an answer. subjects are the subjects that it publishes to, or their beginnings.
type request struct {
	subjects []string
	refuse   context.CancelCauseFunc
}

// watchRefusals begins to watch a connection. It calls refused with the subject of each publish that the server refuses. The
// connection's own error handler is called as before.
func watchRefusals(nc *nats.Conn, refused func(subject string, err error)) *refusals {
	r := &refusals{refused: refused, waiting: map[*request]struct{}{}, listening: map[*listener]struct{}{}}
	// The handler of Connect logs; this one runs first and calls it.
	next := nc.ErrorHandler()
	nc.SetErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
		if subject, ok := refusedSubject(err, "Publish"); ok {
			r.refuse(subject, err)
		}
		// An expected refusal of a subscription is no error of the connection.
		if subject, ok := refusedSubject(err, "Subscription"); ok && r.isExpected(subject) {
			return
		}
		if next != nil {
			next(nc, sub, err)
		}
	})
	return r
}

// refusedSubject reads the subject of a refused publish or subscription from the server's text; the protocol has no other
// form of it.
func refusedSubject(err error, what string) (subject string, ok bool) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return "", false
	}
	_, rest, ok := strings.Cut(err.Error(), " for "+what+" to ")
	if !ok {
		return "", false
	}
	// The server quotes the subject as Go does.
	quoted, err := strconv.QuotedPrefix(rest)
	if err != nil {
		return "", false
	}
	subject, err = strconv.Unquote(quoted)
	return subject, err == nil
}

// refuse ends the requests that a refused subject is about. It calls only cancel functions under the lock, which do not
// block.
func (r *refusals) refuse(subject string, err error) {
	r.refused(subject, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	for request := range r.waiting {
		for _, own := range request.subjects {
			if isAbout(subject, own) {
				request.refuse(err)
			}
		}
	}
}

// listener is called when the server refuses a subscription whose subject begins with prefix.
type listener struct {
	prefix  string
	refused func()
}

// ExpectRefusal calls refused when the server refuses a subscription whose subject begins with prefix. Such a refusal
// is neither logged nor an error of the connection. refused must not block. The caller calls forget at the end.
func (c *Client) ExpectRefusal(prefix string, refused func()) (forget func()) {
	r, own := c.refusals, &listener{prefix, refused}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listening[own] = struct{}{}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.listening, own)
	}
}

// isExpected reports whether the refusal of a subscription is expected, and calls its listeners without the lock.
func (r *refusals) isExpected(subject string) bool {
	var expecting []*listener
	r.mu.Lock()
	for l := range r.listening {
		if strings.HasPrefix(subject, l.prefix) {
			expecting = append(expecting, l)
		}
	}
	r.mu.Unlock()
	for _, l := range expecting {
		l.refused()
	}
	return len(expecting) > 0
}

// isAbout reports whether a refused subject is own, or begins with own. A server may name a request to the JetStream API by
// another prefix: that of a domain, or the one that it maps the subject to.
func isAbout(refused, own string) bool {
	if refused == own || strings.HasPrefix(refused, own+".") {
		return true
	}
	// A subject of the API is compared without its prefix.
	request, ok := strings.CutPrefix(own, api)
	if !ok {
		return false
	}
	request = "." + request
	// Two tokens are too few to name one request among others, so more are demanded for a match in the middle.
	return strings.HasSuffix(refused, request) || strings.Count(request, ".") > 2 && strings.Contains(refused, request+".")
}

// begin returns a context that a refusal of one of the subjects, or of what begins with them, ends with the refusal as its cause.
// The caller calls end when it sends no more.
func (r *refusals) begin(ctx context.Context, subjects ...string) (watched context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	own := &request{subjects: subjects, refuse: cancel}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting[own] = struct{}{}
	return ctx, func() {
		r.mu.Lock()
		delete(r.waiting, own)
		r.mu.Unlock()
		cancel(nil)
	}
}

// watch runs do, which sends to one of the subjects or to what begins with them. A refusal by the server ends do's ctx at
// once and is returned; it wraps nats.ErrPermissionViolation.
func (r *refusals) watch(ctx context.Context, do func(context.Context) error, subjects ...string) error {
	// It begins before do sends, so that the refusal cannot come too early.
	ctx, end := r.begin(ctx, subjects...)
	defer end()
	err := do(ctx)
	// Only an error becomes a refusal: do may have succeeded before the server reported another one.
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, nats.ErrPermissionViolation) {
		return cause
	}
	return Plain(err)
}

// Ask runs do, which sends requests to subject, or to what begins with it, and waits for answers in its own time. A refusal of
// the server ends do's ctx at once and is returned as an ErrPermission. Plain words any other error of do.
func (c *Client) Ask(ctx context.Context, subject string, do func(context.Context) error) error {
	err := c.refusals.watch(ctx, do, subject)
	if errors.Is(err, nats.ErrPermissionViolation) {
		return refused("ask "+subject, err)
	}
	return err
}

// refused returns an ErrPermission with the server's text, which says what this user may not do.
func refused(action string, err error) error {
	text := err.Error()
	if _, rest, ok := strings.Cut(text, "Permissions Violation for "); ok {
		text = strings.Replace(strings.ToLower(rest[:1])+rest[1:], "subscription to", "subscribe to", 1)
	}
	return fmt.Errorf("%s: %w %s", action, ErrPermission, text)
}
