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

// refusals ends the request that a permission violation is about. The server reports a violation on the connection and not
// as the answer to the request, which would run into its time limit. nats.Conn.LastError is of no use: it keeps an old
// violation until the connection is made again.
type refusals struct {
	refused func(subject string, err error) // ends the publishes that wait in confirmations

	mu        sync.Mutex // guards the maps
	waiting   map[*request]struct{}
	listening map[*listener]struct{}
}

// request is a call that waits for an answer. subjects are the subjects that it publishes to, or their beginnings.
type request struct {
	subjects []string
	refuse   context.CancelCauseFunc
	optional bool // see Optional
}

// optional is the key of a context for Optional.
type optional struct{}

// Optional returns a context for requests that this NATS user may lack the right for. Such a refusal ends the request and is
// neither logged nor an error of the connection.
func Optional(ctx context.Context) context.Context { return context.WithValue(ctx, optional{}, true) }

// watchRefusals begins to watch a connection. It calls refused with the subject of each publish that the server refuses. The
// connection's own error handler is called as before.
func watchRefusals(nc *nats.Conn, refused func(subject string, err error)) *refusals {
	r := &refusals{refused: refused, waiting: map[*request]struct{}{}, listening: map[*listener]struct{}{}}
	// The handler of Connect, which logs.
	next := nc.ErrorHandler()
	nc.SetErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
		if subject, ok := refusedSubject(err, "Publish"); ok && r.refuse(subject, err) {
			return
		}
		if subject, ok := refusedSubject(err, "Subscription"); ok && r.notifyListeners(subject) {
			return
		}
		if next != nil {
			next(nc, sub, err)
		}
	})
	return r
}

// refusedSubject reads the subject of a refused publish or subscription from the server's text. The protocol sends it in no
// other form.
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

// refuse ends the requests that a refused subject is about, and reports whether all of them are optional. It calls only
// cancel functions under the lock, which do not block.
func (r *refusals) refuse(subject string, err error) (expected bool) {
	r.refused(subject, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	needed := false
	for request := range r.waiting {
		for _, own := range request.subjects {
			if isAbout(subject, own) {
				request.refuse(err)
				expected, needed = true, needed || !request.optional
			}
		}
	}
	return expected && !needed
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

// notifyListeners calls the listeners of a refused subscription, without the lock, and reports whether there are any.
func (r *refusals) notifyListeners(subject string) bool {
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

// isAbout reports whether a refused subject is own, or begins with own. A server may name a request to the JetStream API with
// another prefix: that of a domain, or that of a subject mapping.
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
	// Two tokens do not identify a request in the middle of a subject.
	return strings.HasSuffix(refused, request) || strings.Count(request, ".") > 2 && strings.Contains(refused, request+".")
}

// begin returns a context for requests to the subjects, or to longer subjects that begin with them. A refusal of one ends the
// context and is its cause. The caller calls end when it sends no more.
func (r *refusals) begin(ctx context.Context, subjects ...string) (watched context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	own := &request{subjects: subjects, refuse: cancel, optional: ctx.Value(optional{}) != nil}
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

// watch runs do, which sends to the subjects, as begin describes them. A refusal by the server ends do's ctx at once and is
// returned. It wraps nats.ErrPermissionViolation.
func (r *refusals) watch(ctx context.Context, do func(context.Context) error, subjects ...string) error {
	// It begins before do sends, so that the refusal cannot come too early.
	ctx, end := r.begin(ctx, subjects...)
	defer end()
	err := do(ctx)
	// do may have succeeded, and the refusal may be of another request to the same subject.
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, nats.ErrPermissionViolation) {
		return cause
	}
	return Plain(err)
}

// Ask runs do, which sends requests to subject, or to longer subjects that begin with it, and bounds its own time. A
// refusal by the server ends do's ctx at once and is returned as an ErrPermission. Any other error of do is returned as
// Plain words it.
func (c *Client) Ask(ctx context.Context, subject string, do func(context.Context) error) error {
	err := c.refusals.watch(ctx, do, subject)
	if errors.Is(err, nats.ErrPermissionViolation) {
		return permissionError("ask "+subject, err)
	}
	return err
}

// permissionError returns an ErrPermission with the server's text, which says what this user may not do.
func permissionError(action string, err error) error {
	text := err.Error()
	if _, rest, ok := strings.Cut(text, "Permissions Violation for "); ok {
		text = strings.Replace(strings.ToLower(rest[:1])+rest[1:], "subscription to", "subscribe to", 1)
	}
	return fmt.Errorf("%s: %w %s", action, ErrPermission, text)
}
