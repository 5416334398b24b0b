package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
)

// facts are what is known of an attempt that ended; judge decides by them alone.
type facts struct {
	err       error
	answered  bool // there is an answer, though perhaps too large a one
	stopped   bool // the job was stopped, or its time was over
	timeout   bool // the attempt's time was over, or the job's
	hurried   bool // it was the job's, and the attempt had not had all of its own
	phase     stage
	host      string // where redirects led to; empty without one
	status    int
	header    http.Header
	refused   *connectRefused
	direct    bool
	plain     bool // no tunnel: what answers may be the proxy itself
	works     bool // although it says that it wants other credentials, the proxy reached a target lately
	sent      bool
	ban       bool
	retryable bool
	badCert   int // through how many proxies the target's certificate was refused so far
	// retryAfter is the least wait that was asked for.
	retryAfter time.Duration
	latency    time.Duration
}

// facts gathers them.
func (r *run) facts(ctx context.Context, x *exchange, lease *rotation.Lease) facts {
	f := facts{
		err: x.err, phase: stage(x.stage.Load()), host: x.host, status: x.status(), direct: lease.Proxy() == nil, sent: x.sent.Load(),
		answered: x.err == nil || errors.Is(x.err, errTooLarge),
		stopped:  ctx.Err() != nil && x.err != nil, latency: time.Since(x.started),
	}
	switch own := r.job.Timeout.Std(); {
	case errors.Is(x.cause, errAttemptTimeout):
		f.timeout, f.hurried = true, own > 0 && own < r.f.cfg.AttemptTimeout
	case errors.Is(x.cause, errExpired), errors.Is(x.cause, errTimedOut):
		f.timeout, f.hurried = true, true
	}
	if x.resp != nil {
		f.header = x.resp.Header
	}
	if x.proxy != nil {
		f.plain = strings.HasPrefix(x.url, "http://") && strings.HasPrefix(x.proxy.Scheme, "http")
	}
	if f.answered {
		f.ban = r.banned(x)
		f.retryable = r.policy.Retryable(f.status)
	} else {
		errors.As(x.err, &f.refused)
	}
	f.works = f.plain && f.status == http.StatusProxyAuthRequired && lease.Works()
	if f.status == http.StatusTooManyRequests || f.status == http.StatusServiceUnavailable {
		f.retryAfter = RetryAfter(f.header.Get("Retry-After"), time.Now())
	}
	if x.err != nil && untrusted(x.err) && !f.direct && !slices.Contains(r.badCert, lease.ID()) {
		r.badCert = append(r.badCert, lease.ID())
	}
	f.badCert = len(r.badCert)
	return f
}

func (r *run) banned(x *exchange) bool {
	if slices.Contains(r.job.Ban.Statuses, x.status()) {
		return true
	}
	pattern := r.job.Ban.Pattern()
	return pattern != nil && x.err == nil && pattern.Match(x.body)
}

// blame is the judgement of an attempt.
type blame struct {
	answer   bool       // there is an answer that may be the job's result
	fault    jobs.Fault // whose doing a failure was
	kind     rotation.Kind
	reason   string // from a closed list, for statistics
	text     string // a sentence without anything that was not ours to begin with
	end      string // the job ends with this error code
	failover bool   // another proxy may be tried at once
	trip     time.Duration
	unsent   bool // the proxy kept the request to itself
}

// restTrip is how long a proxy rests that will not mend by itself, such as one that refuses our credentials.
const restTrip = 10 * time.Minute

func (b blame) verdict(f facts) rotation.Verdict {
	v := rotation.Verdict{
		Kind: b.kind, Host: f.host, Answered: f.answered || b.fault == jobs.FaultTarget, Hurried: f.hurried, CoolDown: f.retryAfter, Trip: b.trip, Latency: f.latency, Reason: b.reason,
	}
	if f.ban {
		v.Host = "" // the rule is the job's, and so is the host for which another proxy has to be picked
	}
	return v
}

// ofProxy reports whether the failure may be the proxy's, and heal by itself.
func (b blame) ofProxy() bool {
	return b.trip == 0 && (b.kind == rotation.ProxyFault || b.kind == rotation.Unclear)
}

// cost is what a retry after it takes out of the budget.
func (b blame) cost() float64 {
	if b.failover {
		return costOfFailover
	}
	return costOfRetry
}

func byProxy(reason, text string) blame {
	return blame{fault: jobs.FaultProxy, kind: rotation.ProxyFault, reason: reason, text: text, failover: true}
}

func unclear(reason, text string) blame {
	return blame{fault: jobs.FaultUnclear, kind: rotation.Unclear, reason: reason, text: text}
}

// either is unclear, and worth another proxy at once: proxies have many ways to say that a target cannot be reached.
func either(reason, text string) blame {
	b := unclear(reason, text)
	b.failover = true
	return b
}

func byTarget(reason, text string) blame {
	return blame{fault: jobs.FaultTarget, kind: rotation.TargetFault, reason: reason, text: text}
}

// told is what a proxy says of a target that it cannot reach. A proxy that has lost its own network says so of every one.
func told(text string) blame {
	b := byTarget("connect", text)
	b.kind = rotation.Unclear
	return b
}

func byPair(reason, text string) blame {
	return blame{fault: jobs.FaultPair, kind: rotation.PairFault, reason: reason, text: text, failover: true}
}

func refused(reason, text string) blame {
	return blame{fault: jobs.FaultPair, kind: rotation.Refused, reason: reason, text: text, failover: true}
}

// ends is a failure of nobody's that ends the job; the proxy delivered.
func ends(code, reason, text string) blame {
	return blame{kind: rotation.Delivered, reason: reason, text: text, end: code}
}

// judge names the fault: the one switch of this package that does. A breaker asks "did this proxy deliver what the target
// said?", not "did the fetch succeed?", so a 403 or a 500 out of a tunnel speaks for the proxy.
func judge(f facts) blame {
	if f.err == nil {
		return judgeAnswer(f)
	}
	var denied *deniedError
	var location *locationError
	switch {
	case f.stopped && !f.timeout:
		return blame{reason: "cancelled", text: "the attempt was cut short"}
	case errors.As(f.err, &denied):
		return ends(jobs.ErrTargetDenied, "denied", denied.reason)
	case errors.As(f.err, &location):
		return byTarget("location", "the target redirects to a Location that is no URL: "+location.reason)
	case errors.Is(f.err, errTooLarge):
		if b := judgeAnswer(f); !b.answer {
			return b // its status says enough
		}
		return ends(jobs.ErrBodyTooLarge, "body_too_large", "the response body is larger than allowed")
	case errors.Is(f.err, errRedirects):
		return ends(jobs.ErrTooManyRedirects, "redirects", "the target redirected more often than follow_redirects allows")
	case f.direct:
		return judgeDirect(f)
	case f.refused != nil:
		return judgeRefusal(f)
	}
	return judgeFailure(f)
}

// judgeAnswer is for a complete answer.
func judgeAnswer(f facts) blame {
	status := http.StatusText(f.status)
	switch {
	case f.status == http.StatusProxyAuthRequired && f.works:
		// Most proxies hand on a 407 of the target's: only one that reaches no target may be taken at its word.
		return refused("proxy_auth", "the proxy, which works for others, wants other credentials (407)")
	case f.status == http.StatusProxyAuthRequired && f.plain:
		b := byProxy("proxy_auth", "the proxy wants other credentials (407)")
		b.trip, b.unsent = restTrip, f.host == ""
		return b
	case f.status == http.StatusProxyAuthRequired && !f.direct:
		// It came through the tunnel, so the proxy we speak to did not say it: no target may shut a pool like that.
		return byPair("proxy_auth", "a proxy in front of the target wants credentials (407)")
	case f.ban && f.direct:
		return byTarget("ban", "the answer matches the job's ban rule")
	case f.ban:
		return byPair("ban", "the answer matches the job's ban rule")
	case !f.retryable:
		return blame{answer: true, kind: rotation.Delivered}
	case f.status == http.StatusTooManyRequests:
		return blame{fault: jobs.FaultPair, kind: rotation.Delivered, reason: "status_429", text: "the target answered 429 " + status}
	case f.plain && f.status >= 502 && f.status <= 504:
		// The target may have a proxy of its own that says it (RFC 9209, 2): then it accuses that one and not ours.
		if said, known := proxyStatus(f.header); known && said.fault == jobs.FaultTarget {
			return said
		}
		return unclear("status_5xx", "the target or the proxy answered "+code(f.status))
	case f.status >= 500:
		return byTarget("status_5xx", "the target answered "+code(f.status))
	case f.status == http.StatusForbidden:
		return byTarget("status_403", "the target answered "+code(f.status))
	}
	return byTarget("status", "the target answered "+code(f.status))
}

func code(status int) string {
	text := http.StatusText(status)
	if text != "" {
		text = " " + text
	}
	return string([]byte{byte('0' + status/100%10), byte('0' + status/10%10), byte('0' + status%10)}) + text
}

// judgeDirect is for a failure without a proxy: there is nobody else to blame.
func judgeDirect(f facts) blame {
	var dns *net.DNSError
	switch {
	case errors.Is(f.err, errInner):
		return ends(jobs.ErrTargetDenied, "denied", "private, loopback and link-local targets are not allowed here")
	case errors.As(f.err, &dns) && dns.IsNotFound:
		b := byTarget("dns", "the host name does not exist")
		b.end = jobs.ErrPermanent
		return b
	case untrusted(f.err):
		return byTarget("tls", "the target's certificate is not trusted")
	case f.timeout:
		return byTarget("timeout", "no complete answer in time, in phase "+f.phase.String())
	}
	return byTarget("connect", "the target failed in phase "+f.phase.String()+": "+brief(f.err))
}

// judgeRefusal is for an answer to CONNECT other than 200.
func judgeRefusal(f facts) blame {
	status, text := f.refused.status, "the proxy answered CONNECT with "+code(f.refused.status)
	switch {
	case status == http.StatusProxyAuthRequired || status == http.StatusUnauthorized:
		b := byProxy("proxy_auth", text)
		b.trip = restTrip
		return b
	case status == http.StatusForbidden || status == http.StatusMethodNotAllowed:
		return refused("proxy_refused", text)
	case status == http.StatusTooManyRequests:
		// Said by the proxy itself: no tunnel stands yet.
		b := byProxy("proxy_refused", text)
		b.trip = max(time.Second, RetryAfter(f.refused.header.Get("Retry-After"), time.Now()))
		return b
	case status == http.StatusInternalServerError, status >= 502 && status <= 504:
		// By 500 tinyproxy says that it cannot reach the target.
		if fault, known := proxyStatus(f.refused.header); known {
			return fault
		}
		return unclear("proxy_refused", text)
	case status >= http.StatusBadRequest:
		// Each proxy has its own words for a target that it cannot reach: privoxy's are 404.
		return either("proxy_refused", text)
	}
	return byProxy("proxy_refused", text)
}

// proxyStatus reads what a proxy says about its own failure (RFC 9209, and squid's header).
func proxyStatus(h http.Header) (blame, bool) {
	said := strings.ToLower(h.Get("Proxy-Status") + " " + h.Get("X-Squid-Error"))
	for _, word := range []string{"dns_", "destination_", "connection_refused", "connection_timeout", "connection_terminated", "err_dns_fail", "err_connect_fail", "err_read_timeout", "http_response_"} {
		if strings.Contains(said, word) {
			return told("the proxy says that the target cannot be reached"), true
		}
	}
	// ERR_CANNOT_FORWARD is not among them: by that squid 5 says also that the target's name does not exist.
	for _, word := range []string{"proxy_internal_", "proxy_configuration_", "connection_limit_reached"} {
		if strings.Contains(said, word) {
			return byProxy("proxy_refused", "the proxy says that it has failed itself"), true
		}
	}
	return blame{}, false
}

// judgeFailure is for what broke on the way through a proxy.
func judgeFailure(f facts) blame {
	var op *net.OpError
	dialled := errors.As(f.err, &op) && op.Op == "proxyconnect"
	switch {
	case dialled && isTLS(f.err):
		b := byProxy("proxy_tls", "TLS with the proxy failed: "+brief(f.err))
		b.trip = restTrip
		return b
	case dialled || f.phase == connecting:
		return byProxy("connect", "the proxy cannot be reached: "+brief(f.err))
	case op != nil && op.Op == "socks connect":
		return judgeSocks(f, op)
	case untrusted(f.err) && f.badCert > 1:
		b := byTarget("tls", "the target's certificate is not trusted, through two proxies")
		b.end = jobs.ErrPermanent
		return b
	case untrusted(f.err):
		return either("tls", "the target's certificate is not trusted, or the proxy put in its own")
	case f.timeout:
		return unclear("timeout", "no complete answer in time, in phase "+f.phase.String())
	case errors.Is(f.err, errDecode):
		return unclear("decode", "the body is not what its Content-Encoding says")
	case errors.Is(f.err, errNoAnswer):
		return unclear("proxy_protocol", brief(f.err)+": "+code(f.status))
	case f.phase == tunnelling && hungUp(f.err):
		return either("proxy_protocol", "the proxy hung up instead of opening a tunnel")
	case f.phase == tunnelling:
		return byProxy("proxy_protocol", "the proxy did not answer as a proxy should: "+brief(f.err))
	case f.phase == reading:
		return unclear("truncated", "the answer was cut off: "+brief(f.err))
	case f.plain && (f.phase == sending || f.phase == waiting):
		return either("reset", "the proxy closed the connection without an answer")
	}
	return unclear("reset", "the connection broke in phase "+f.phase.String()+": "+brief(f.err))
}

// judgeSocks reads the reply of a SOCKS proxy (RFC 1928, 6) out of the text that is all that net/http keeps of it.
func judgeSocks(f facts, op *net.OpError) blame {
	text := op.Err.Error()
	for _, word := range []string{"network unreachable", "host unreachable", "connection refused", "TTL expired"} {
		if strings.Contains(text, word) {
			return told("the SOCKS proxy says: " + word)
		}
	}
	switch {
	case f.timeout || errors.Is(op.Err, context.DeadlineExceeded):
		return unclear("timeout", "no answer from the SOCKS proxy in time")
	case strings.Contains(text, "authentication"):
		b := byProxy("proxy_auth", "the SOCKS proxy wants other credentials")
		b.trip = restTrip
		return b
	case strings.Contains(text, "not allowed"):
		return refused("proxy_refused", "the SOCKS proxy does not allow this target")
	case strings.Contains(text, "general"), strings.Contains(text, "address type"), hungUp(op.Err):
		// A general failure is microsocks' word for a name that does not exist.
		return either("proxy_protocol", "the SOCKS proxy failed, or cannot reach the target")
	}
	return byProxy("proxy_protocol", "the SOCKS proxy failed")
}

// untrusted reports whether the target's certificate was refused.
func untrusted(err error) bool {
	var cert *tls.CertificateVerificationError
	var op *net.OpError
	return errors.As(err, &cert) && (!errors.As(err, &op) || op.Op != "proxyconnect")
}

func isTLS(err error) bool {
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	return errors.As(err, &cert) || errors.As(err, &record) || errors.As(err, &alert)
}

// hungUp reports whether the other end closed the connection, rather than say what we cannot read.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// brief is what kind of error it was, in words of ours: the library's may hold a URL, and with it a password or a key.
func brief(err error) string {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return "its name cannot be resolved"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET):
		return "connection reset"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "no route to it"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "connection closed"
	case isTLS(err):
		return "TLS failed"
	case errors.Is(err, errNoAnswer):
		return err.Error()
	}
	return "the exchange broke off"
}
