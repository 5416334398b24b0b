package fetch

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/worker/fetch/http1"
)

// The errors of an exchange whose response is at fault. They are compared by errors.Is; judge maps each of them
// to a fault.
var (
	errTooLarge  = errors.New("the body is larger than allowed")
	errRedirects = errors.New("too many redirects")
	errDecode    = errors.New("the body cannot be decoded")
	errMatch     = errors.New("the pattern of the job's ban takes too long for this body")
)

// deniedError says that a redirect leads to a URL that may not be fetched.
type deniedError struct{ reason string }

func (e *deniedError) Error() string { return e.reason }

// locationError says that the Location of a redirect is no URL.
type locationError struct{ reason string }

func (e *locationError) Error() string { return e.reason }

// exchanges are those of one attempt: the request, and one more for each redirect, all through the same proxy. The fields
// describe the newest exchange unless they say otherwise. Atomic fields are read by the watches while the exchanges go on. All
// others belong to the goroutine of do, and to that of the run once do has returned.
type exchanges struct {
	run   *run
	proxy *url.URL      // nil when direct; with the word of the exit filled in
	alone bool          // no other attempt uses its connections
	kept  *conn         // of an attempt alone: the connection that the latest exchange leaves to the next one
	ttl   time.Duration // how long its connections may be idle; zero means as long as any

	started         time.Time
	phase           atomic.Int32
	changed         atomic.Int64           // when the phase changed last, in nanoseconds since started
	spent           [done + 1]atomic.Int64 // nanoseconds in each phase
	waited          atomic.Int64           // nanoseconds of spent[waiting] before the newest request
	written         atomic.Bool            // all of the newest request has been written
	lookups         lookups
	sent            atomic.Bool // a request, or a part of it, may have reached the target
	stall           stallWatch
	first           *firstByteWatch
	memory          memoryShare
	taken           bool          // the response outlives the attempt, with its memory
	begun           atomic.Bool   // a response has begun
	readToken       chan struct{} // holds a value while one of two attempts reads a response; nil without another attempt
	holdsReadToken  bool
	missedReadToken bool            // the context ended before the read token came
	received        int64           // bytes on the wire
	ended           bool            // the newest connection was closed by its other end
	otherProtocol   otherProtocol   // what came on the newest connection instead of HTTP
	target          jobs.URL        // of the newest request
	url             string          // the same, as text
	site            string          // the same, by its site
	firstByte       time.Duration   // how long the newest response took to begin
	exceeded        time.Duration   // the first-byte timeout that ended the attempt; zero if none did
	cookies         cookies         // of redirects
	leftOrigin      bool            // a redirect led to another origin
	host            string          // its host and port, once a redirect led there
	method          string          // of the newest request
	resp            *http1.Response // of the newest exchange; its body may be closed
	header          http.Header
	fields          []http1.Field // the same in their order; none of HTTP/2
	body            []byte
	matched         bool // the body matches the pattern of the job's ban
	err             error
	cause           error // why the context ended, if it did
	// ender is the error for which a watch ended the context. A context with a cause would be one more allocation for
	// each attempt.
	ender atomic.Pointer[error]
}

// newExchanges prepares the exchanges of one attempt.
func (r *run) newExchanges(lease *rotation.Lease) *exchanges {
	x := &exchanges{run: r, started: time.Now()}
	// Time spent waiting for memory is no stall of the peer, so the share pauses the watch.
	x.memory = memoryShare{account: &r.memory, pause: x.stall.pause}
	if p := lease.Proxy(); p != nil {
		x.proxy, x.alone, x.ttl = lease.URL(), lease.Alone(), lease.IdleFor()
	}
	x.first = r.newFirstByteWatch(x, lease)
	return x
}

// do makes the exchanges. When it returns, everything that it opened is closed, or idle and owned by the fetcher's
// connections. It may run in a goroutine of its own, so it reads only those fields of the run that do not change.
//
// Three bounds end it, each with its own cause: the attempt's timeout, the stall timeout, and the first-byte timeout.
func (x *exchanges) do(ctx context.Context) {
	defer x.closeKept()
	r := x.run
	timeout := r.job.Timeout.Std()
	if timeout == 0 {
		timeout = r.f.cfg.AttemptTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errAttemptTimeout)
	defer cancel()
	// Only the first cause counts: two watches may end the attempt at about the same time.
	end := func(cause error) {
		x.ender.CompareAndSwap(nil, &cause)
		cancel()
	}
	x.stall.timeout, x.stall.end = r.f.cfg.StallTimeout, end
	x.first.start(timeout, end)
	defer x.first.stop() // also after a panic: the watch would keep all of x alive
	x.err = x.follow(ctx)
	x.exceeded = x.first.stop()
	if deadline, _ := ctx.Deadline(); x.err != nil && !time.Now().Before(deadline) {
		// A dial and a connection have ctx's own deadline, and may report it a moment before ctx ends.
		<-ctx.Done()
	}
	if ctx.Err() != nil {
		x.cause = context.Cause(ctx)
		if watch := x.ender.Load(); watch != nil && errors.Is(x.cause, context.Canceled) {
			x.cause = *watch
		}
	}
}

// status is the status of the newest response; zero if none has come.
func (x *exchanges) status() int {
	if x.resp == nil {
		return 0
	}
	return x.resp.StatusCode
}

// follow makes the request of the job and those of the redirects, all through the same proxy. It returns when a response
// is not a redirect to follow, or at the first error.
func (x *exchanges) follow(ctx context.Context) error {
	req := x.run.firstRequest()
	x.target = x.run.job.Target()
	// n is the number of redirects so far. exchangeOnce compares it with what the job allows.
	for n := 0; ; n++ {
		x.url, x.site = x.target.String(), x.target.Site()
		x.first.ask(x.site)
		if n > 0 {
			x.host = hostPort(x.target)
		}
		// If this exchange fails, the response of the one before must not count as its own.
		x.resp = nil
		next, err := x.exchangeOnce(ctx, req, n)
		if err != nil || next == nil {
			return err
		}
		req = *next
		x.restart()
	}
}

// request is what one exchange sends. Nobody changes the header and the body: other exchanges and attempts share them.
type request struct {
	method string
	header http.Header // in the job's spelling
	body   []byte
}

// firstRequest is the request of the job. Jobs without headers share one header.
func (r *run) firstRequest() request {
	header := r.f.header
	if len(r.job.Headers) > 0 {
		header = requestHeader(r.job.Headers, r.f.cfg.UserAgent)
	}
	return request{method: r.job.Method, header: header, body: r.job.Content()}
}

// exchangeOnce does one exchange. It returns the next request if the response is a redirect to follow, else it keeps the
// response. n counts the redirects before it.
func (x *exchanges) exchangeOnce(ctx context.Context, req request, n int) (next *request, err error) {
	l, err := x.send(ctx, req)
	if err != nil {
		return nil, err
	}
	// The time to the first byte is that of this request only, while spent adds up all of them.
	x.firstByte = time.Duration(x.spent[waiting].Load() - x.waited.Load())
	reusable := false
	defer func() { x.giveBack(l, reusable) }() // also after a panic
	if next, err = x.redirect(ctx, l, req, n); err == nil && next == nil {
		x.header, x.fields = x.resp.Header, x.resp.Fields
		if err = x.acquireReadToken(ctx, l); err == nil {
			err = x.read(ctx)
		}
	}
	reusable = err == nil
	return next, err
}

// send sends the request on an idle connection, or on a new one. A server that answers HTTP_1_1_REQUIRED (RFC 9113, 7)
// gets HTTP/1.1 at once, and is remembered.
func (x *exchanges) send(ctx context.Context, req request) (connLease, error) {
	l, err := x.sendOnce(ctx, req)
	// The request was refused unprocessed, so it may be sent again whatever its method.
	if code, ok := http2Code(err); !ok || code != http11Required || ctx.Err() != nil {
		return l, err
	}
	x.run.f.conns.http1Hosts.add(x.target)
	x.restart()
	return x.sendOnce(ctx, req)
}

// sendOnce sends the request on an idle connection, and on a new one if the idle one ended before a response began. An
// idle connection may have died unseen, so this second sending is no retry: it goes through the same proxy. A request
// that must not be sent twice never takes an idle connection, because it would be unknown whether it arrived.
func (x *exchanges) sendOnce(ctx context.Context, req request) (connLease, error) {
	if l, found := x.idle(ctx); found {
		err := x.roundTrip(ctx, l, req)
		// With HTTP/2, an error before the response began may come from a connection that ended while it was
		// idle.
		ended := errors.Is(err, http1.ErrEnded) || err != nil && l.http2 != nil && phase(x.phase.Load()) < reading
		if !ended || ctx.Err() != nil {
			return l, err
		}
		x.restart()
	}
	l, err := x.open(ctx)
	if err != nil {
		return connLease{}, err
	}
	return l, x.roundTrip(ctx, l, req)
}

// open makes a connection to the target. Suites with RSA key exchange are offered only to a server that ended the first
// handshake because it found no other.
func (x *exchanges) open(ctx context.Context) (connLease, error) {
	l, err := x.connect(ctx, false)
	// The second handshake offers weaker suites, to this server only.
	if err != nil && ctx.Err() == nil && wantsRSA(err) {
		x.restart()
		l, err = x.connect(ctx, true)
	}
	return l, err
}

// roundTrip sends the request and waits for the head of the response. If it fails, the connection is closed and must not
// be given back again.
func (x *exchanges) roundTrip(ctx context.Context, l connLease, req request) (err error) {
	x.waited.Store(x.spent[waiting].Load())
	x.written.Store(false)
	x.reachPhase(sending)
	x.method = req.method
	if l.http2 != nil {
		err = x.roundTrip2(ctx, l, req)
	} else {
		err = x.roundTrip1(l, req)
	}
	// Bytes that came instead of HTTP are examined before the connection is closed.
	if err != nil {
		x.otherProtocol = l.meter.classify(false)
		x.giveBack(l, false)
	}
	l.meter.opened()
	return err
}

// roundTrip1 speaks HTTP/1.1. A plain request that an HTTP proxy itself handles names the whole URL (RFC 9112, 3.2.2) and
// carries the proxy's credentials. In a tunnel neither is sent: the target would see the credentials.
func (x *exchanges) roundTrip1(l connLease, req request) (err error) {
	r := http1.Request{Method: req.method, Target: x.target.RequestTarget(), Host: x.target.Authority(), Header: req.header, Body: req.body}
	if x.proxy != nil && strings.HasPrefix(x.proxy.Scheme, "http") && x.target.Scheme() == "http" {
		r.Target, r.ProxyAuthorization = x.url, basicAuth(x.proxy)
	}
	// From here on, the target may act on the request, even if writing it fails half-way.
	x.sent.Store(true)
	x.resp, err = l.http1.Do(&r, x.watchPhases(l.meter))
	return err
}

// roundTrip2 speaks HTTP/2, always with the target: gofer offers HTTP/2 to no proxy.
func (x *exchanges) roundTrip2(ctx context.Context, l connLease, req request) error {
	r, err := http.NewRequestWithContext(x.withTrace(ctx, l.meter), req.method, "/", content(req.body))
	if err != nil {
		return errors.New("the request cannot be built")
	}
	l.meter.allow(maxHTTP2Overhead + 4*x.run.maxBody())
	r.URL, r.Host, r.Header = http2URL(x.target), x.target.Authority(), req.header
	resp, err := l.http2.RoundTrip(r)
	if err == nil {
		x.responseBegan(l.meter) // again, if an informational response came before
		err = checkHTTP2(resp)
	}
	if err == nil {
		// Its Fields stay nil: HTTP/2 does not keep the order of fields that repeat.
		x.resp = &http1.Response{Response: resp}
	}
	return err
}

// content is the body of a request for net/http. Without a body it is http.NoBody, so that no Transfer-Encoding is sent.
func content(body []byte) io.Reader {
	if len(body) > 0 {
		return bytes.NewReader(body)
	}
	return http.NoBody
}
