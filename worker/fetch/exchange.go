package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
)

// What an exchange ends with when the answer is at fault.
var (
	errTooLarge  = errors.New("the body is larger than allowed")
	errRedirects = errors.New("too many redirects")
	errDecode    = errors.New("the body cannot be decoded")
	errNoAnswer  = errors.New("the status is that of no answer")
	errMatch     = errors.New("the pattern of the job's ban takes too long for this body")
)

// deniedError tells that a redirect leads to where no fetch may go.
type deniedError struct{ reason string }

func (e *deniedError) Error() string { return e.reason }

// locationError tells that the Location of a redirect is no URL.
type locationError struct{ reason string }

func (e *locationError) Error() string { return e.reason }

// exchange is one request through one proxy, redirects included, and what came back.
type exchange struct {
	run   *run
	proxy *url.URL // nil when direct

	started  time.Time
	stage    atomic.Int32
	changed  atomic.Int64           // when the stage changed last, since started
	spent    [done + 1]atomic.Int64 // nanoseconds in each stage
	lookups  lookups
	sent     atomic.Bool    // a request, or a part of it, may have reached the target
	received int64          // bytes on the wire
	ended    bool           // the newest connection was closed by its other end
	heard    heard          // what the newest connection answered instead of HTTP
	target   jobs.URL       // of the newest request
	url      string         // the same, as text
	cookies  cookies        // of redirects
	crossed  bool           // a redirect led to another origin
	host     string         // its host and port, once a redirect led there
	resp     *http.Response // the newest hop's
	header   http.Header
	body     []byte
	matched  bool // the body matches the pattern of the job's ban
	err      error
	cause    error // why the context ended, if it did
}

// exchange does one attempt. Everything it opens is closed, or idle and owned by the pool, when it returns.
func (r *run) exchange(ctx context.Context, lease *rotation.Lease) *exchange {
	timeout := r.job.Timeout.Std()
	if timeout == 0 {
		timeout = r.f.cfg.AttemptTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errAttemptTimeout)
	defer cancel()
	x := &exchange{run: r, started: time.Now()}
	if p := lease.Proxy(); p != nil {
		x.proxy = p.URL
	}
	x.err = x.follow(httptrace.WithClientTrace(ctx, x.trace()))
	if deadline, _ := ctx.Deadline(); x.err != nil && !time.Now().Before(deadline) {
		// A dial and a connection have ctx's own deadline, and may report it a moment before ctx ends.
		<-ctx.Done()
	}
	if ctx.Err() != nil {
		x.cause = context.Cause(ctx)
	}
	return x
}

func (x *exchange) status() int {
	if x.resp == nil {
		return 0
	}
	return x.resp.StatusCode
}

// follow does the request and the redirects that it leads to, all through the same proxy.
func (x *exchange) follow(ctx context.Context) error {
	req, err := x.first(ctx)
	if err != nil {
		return err
	}
	for hop := 0; ; hop++ {
		x.url = x.target.String()
		if hop > 0 {
			x.host = hostPort(x.target)
		}
		x.resp = nil
		next, err := x.hop(ctx, req, hop)
		if err != nil || next == nil {
			return err
		}
		req = next
		x.restart()
	}
}

func (x *exchange) first(ctx context.Context) (*http.Request, error) {
	job := &x.run.job
	x.target = job.Target()
	req, err := x.request(ctx, job.Method, content(job))
	if err != nil {
		return nil, err
	}
	setHeader(req.Header, job.Headers)
	return req, nil
}

// request makes a request for the newest target.
func (x *exchange) request(ctx context.Context, method string, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, "/", body)
	if err != nil {
		return nil, errors.New("the request cannot be built")
	}
	absolute := x.proxy != nil && strings.HasPrefix(x.proxy.Scheme, "http") && x.target.Scheme() == "http"
	req.URL, req.Host = wireURL(x.target, absolute), x.target.Authority()
	return req, nil
}

func content(job *jobs.Job) io.Reader {
	if body := job.Content(); len(body) > 0 {
		return bytes.NewReader(body)
	}
	return http.NoBody
}

// hop does one request. It returns the next one when the answer is a redirect that is followed, else it keeps the answer.
func (x *exchange) hop(ctx context.Context, req *http.Request, hop int) (next *http.Request, err error) {
	cn, err := x.send(ctx, req)
	if err != nil {
		return nil, err
	}
	reusable := false
	defer func() { x.giveBack(cn, reusable) }() // also when what came made us panic
	if x.resp.StatusCode < http.StatusOK {
		// After a 101 net/http leaves the connection to its caller: reading would outlive ctx.
		return nil, errNoAnswer
	}
	if next, err = x.redirect(ctx, req, hop); err == nil && next == nil {
		x.header = x.resp.Header
		err = x.read(ctx)
	}
	reusable = err == nil && !x.resp.Close && surelyEnded(req, x.resp)
	return next, err
}

// surelyEnded reports whether no byte of this exchange can be taken for an answer to the next request on its connection. A
// server may send a body where there is none by rule, or read the body of a request that it should ignore as another request
// (RFC 9110, 9.3 and 15). HTTP/2 keeps exchanges apart.
func surelyEnded(req *http.Request, resp *http.Response) bool {
	if resp.ProtoMajor == 2 {
		return true
	}
	switch req.Method {
	case http.MethodHead:
		return false
	case http.MethodPost, http.MethodPut, http.MethodPatch:
	default:
		if req.ContentLength != 0 {
			return false
		}
	}
	announced := resp.Header.Get("Content-Length")
	return resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusNotModified ||
		(announced == "" || announced == "0") && len(resp.TransferEncoding) == 0
}

// leased is a connection in use and what its meter showed before.
type leased struct {
	*conn
	before int64
}

// send sends the request on an idle connection, or on a new one. An idle connection may have died unseen: then, if no answer
// had begun, the request goes once more on a new connection through the same proxy. A request that may not be sent twice
// never takes an idle one, because nobody could tell whether it arrived. A server that wants HTTP/1.1 gets it at once.
func (x *exchange) send(ctx context.Context, req *http.Request) (leased, error) {
	l, err := x.sendOnce(ctx, req)
	if code, ok := http2Code(err); !ok || code != http11Required || ctx.Err() != nil {
		return l, err
	}
	x.run.f.conns.oldHosts.add(x.target.HostPort())
	if req, err = again(req); err != nil {
		return leased{}, err
	}
	x.restart()
	return x.sendOnce(ctx, req)
}

func (x *exchange) sendOnce(ctx context.Context, req *http.Request) (leased, error) {
	if cn := x.idle(); cn != nil {
		l := leased{conn: cn, before: cn.meter.received.Load()}
		err := x.roundTrip(l, req)
		if err == nil || ctx.Err() != nil || stage(x.stage.Load()) >= reading {
			return l, err
		}
		if req, err = again(req); err != nil {
			return leased{}, err
		}
		x.restart()
	}
	cn, err := x.open(ctx)
	if err != nil {
		return leased{}, err
	}
	l := leased{conn: cn}
	return l, x.roundTrip(l, req)
}

// open makes a connection to the target. Suites with RSA key exchange are offered only to a server that ended the first
// handshake because it found no other.
func (x *exchange) open(ctx context.Context) (*conn, error) {
	cn, received, err := x.run.f.conns.open(ctx, x.proxy, x.target, false)
	if err != nil && ctx.Err() == nil && wantsRSA(err) {
		x.received += received
		x.restart()
		cn, received, err = x.run.f.conns.open(ctx, x.proxy, x.target, true)
	}
	if err != nil {
		x.received += received
	}
	return cn, err
}

func (x *exchange) idle() *conn {
	if x.run.nonIdempotent() {
		return nil
	}
	return x.run.f.conns.pop(x.run.f.conns.key(x.proxy, x.target))
}

// roundTrip sends the request and waits for the answer's headers. When it fails the connection is closed.
func (x *exchange) roundTrip(l leased, req *http.Request) (err error) {
	x.at(sending)
	if x.resp, err = l.RoundTrip(req); err != nil {
		x.heard = l.meter.classify(false)
		x.giveBack(l, false)
	}
	l.meter.opened()
	return err
}

// again is a request that was not answered, with its body from the beginning.
func again(req *http.Request) (*http.Request, error) {
	if req.GetBody == nil {
		return req, nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, err
	}
	fresh := req.WithContext(req.Context())
	fresh.Body = body
	return fresh, nil
}

// giveBack counts what was received, and makes the connection idle again or closes it.
func (x *exchange) giveBack(l leased, reusable bool) {
	if x.resp != nil {
		_ = x.resp.Body.Close()
	}
	x.received += l.meter.received.Load() - l.before
	x.ended = l.meter.ended.Load()
	if !reusable || l.Err() != nil {
		_ = l.Close()
		return
	}
	x.run.f.conns.put(l.conn)
}

// maxDrained is how much of a body that nobody wants is read to keep its connection.
const maxDrained = 64 << 10

// maxGrown is how much room is made at once for a body that has not come yet.
const maxGrown = 256 << 10

// read takes the whole body, decoded, and stops at the limit.
func (x *exchange) read(ctx context.Context) error {
	limit := x.run.f.cfg.MaxBodyBytes
	if own := x.run.job.MaxBodyBytes; own > 0 {
		limit = min(limit, own)
	}
	length := x.resp.ContentLength
	if x.resp.Request.Method == http.MethodHead {
		length = 0 // it is that of another answer
	}
	body, err := x.run.f.decoders.decode(ctx, x.resp, limit)
	if err != nil {
		return err
	}
	defer body.close()
	if length > limit && !body.encoded {
		return errTooLarge
	}
	var buf bytes.Buffer
	if length > 0 && length <= limit {
		buf.Grow(int(min(length, maxGrown)) + bytes.MinRead) // what is announced need not come
	}
	if _, err := buf.ReadFrom(body); err != nil {
		return err
	}
	// A decoder may stop before the end of the message: only there it is known that nothing was cut off, and that the
	// connection is free.
	rest, err := io.Copy(io.Discard, io.LimitReader(x.resp.Body, maxDrained))
	if err != nil {
		return err
	}
	if rest == maxDrained {
		x.resp.Close = true
	}
	x.body = buf.Bytes()
	if x.hasBody() {
		if x.matched, err = x.run.job.Ban.MatchBody(ctx, x.body); err != nil {
			return fmt.Errorf("%w: %w", errMatch, err)
		}
	}
	x.at(done)
	return nil
}

// hasBody reports whether the response has a body by rule, even an empty one (RFC 9110, 6.4.1).
func (x *exchange) hasBody() bool {
	return x.resp.Request.Method != http.MethodHead && x.resp.StatusCode != http.StatusNoContent && x.resp.StatusCode != http.StatusNotModified
}
