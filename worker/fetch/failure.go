package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/worker/fetch/http1"
)

// judgeDirect judges a failure of a direct fetch: only the target can be to blame.
func judgeDirect(f *facts) blame {
	var dns *net.DNSError
	switch {
	// The address was checked at the moment of the connection; nothing has been sent.
	case errors.Is(f.err, errInner):
		return endJob(jobs.ErrTargetDenied, "denied", "private, loopback and link-local targets are not allowed here")
	case errors.As(f.err, &dns) && dns.IsNotFound:
		b := blameTarget("dns", "the host name does not exist")
		b.end = jobs.ErrPermanent
		return b
	case untrusted(f.err):
		return blameTarget("tls", "the target's certificate "+certificateText(f.err))
	case f.outOfTime():
		return blameTarget("timeout", f.timeoutText())
	}
	b := blameTarget("connect", "the target failed in phase "+f.phase.String()+": "+brief(f.err))
	b.unsent = f.host == "" && isUnprocessed(f.err)
	return b
}

// judgeLocal judges a failure of this host, which is neither the proxy's nor the target's. Such an attempt is not
// counted unless the request was sent: another proxy is tried at once.
func judgeLocal(f *facts) blame {
	// The request has not left this host, so the attempt is made again through another proxy unless it was sent
	// before.
	b := blame{kind: rotation.Neutral, reason: "local", failover: true, local: !f.direct && !f.sent}
	var dns *net.DNSError
	switch {
	case f.lacksMemory():
		b.reason, b.failover, b.text = "timeout", false, errMemory.Error()+" in time"
	case f.outOfTime():
		b.reason, b.local, b.text = "timeout", false, "no complete answer in time: the resolver of this worker took most of it"
	case errors.As(f.err, &dns):
		b.text = "the resolver of this worker does not work"
	default:
		b.text = "this worker cannot open a connection: " + shortage(f.err).Error()
	}
	return b
}

// isLocal reports whether this host failed: it had no descriptor, memory, address or port left, its resolver did not work, or
// most of the time was spent on that. The order matters: waiting for memory and a slow resolver also show as a
// timeout.
func (f *facts) isLocal() bool {
	var dns *net.DNSError
	switch {
	case f.lacksMemory():
		return true
	case f.outOfTime():
		return f.isMostOf(f.resolveTime)
	case errors.As(f.err, &dns):
		return !dns.IsNotFound
	}
	return shortage(f.err) != 0
}

// lacksMemory reports whether an attempt failed because it waited for memory. A peer that is read too slowly may close
// the connection, so that counts as well.
func (f *facts) lacksMemory() bool {
	return errors.Is(f.err, errMemory) || f.isMostOf(f.memoryTime) && (f.outOfTime() || hungUp(f.err))
}

// shortage returns the error number of a resource that this host has used up; zero for any other error. Linux returns
// EAGAIN when all ports are in use. The errors come wrapped by net and os, so they are compared by errors.Is.
func shortage(err error) syscall.Errno {
	for _, errno := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ENOSPC, syscall.EADDRNOTAVAIL, syscall.EADDRINUSE, syscall.EAGAIN,
	} {
		if errors.Is(err, errno) {
			return errno
		}
	}
	return 0
}

// outOfTime reports whether the attempt failed because its time, or the job's, was over.
func (f *facts) outOfTime() bool {
	return f.timeout || errors.Is(f.err, context.DeadlineExceeded) || errors.Is(f.err, os.ErrDeadlineExceeded)
}

// timeoutText says why time ran out.
func (f *facts) timeoutText() string {
	if f.exceeded > 0 {
		return "no answer began within " + f.exceeded.Round(time.Millisecond).String() + ", in phase " + f.phase.String()
	}
	if f.stalled {
		return "the answer stalled: less than 1 KiB of it came in the stall timeout"
	}
	return "no complete answer in time, in phase " + f.phase.String()
}

// minDialTime is the time that a proxy may take for a connection, however little a job allows. A connection
// half around the globe takes less.
const minDialTime = time.Second

// judgeTimeout judges by the time that each party took, and not by the phase in which time ran out. A proxy that
// accepts a connection at once has no part in what targets do, over however many redirects. A job may allow less time
// than any proxy needs; that is not the proxy's fault.
func judgeTimeout(f *facts) blame {
	// A job that allows less than minDialTime in all says nothing about the proxy.
	if f.isMostOf(f.dialTime) && (!f.jobTimeout || f.latency >= minDialTime) {
		text := "the proxy cannot be reached: timeout"
		if f.proxyScheme == "https" { // a plain proxy may wait for the end of a line that TLS does not have
			text += "; if the proxy speaks plain HTTP, list it as http://"
		}
		return blameProxy("connect", text)
	}
	b := blameUnclear("timeout", f.timeoutText())
	// The first-byte bound ends an attempt early, so there is time for another proxy.
	b.failover = f.exceeded > 0
	return b
}

// judgeRefusal judges a response to CONNECT that opens no tunnel. No tunnel stands yet, so it is the proxy that speaks.
// Proxies use the same status for different things, hence most of them are unclear.
func judgeRefusal(f *facts) blame {
	status, text := f.refused.status, "the proxy answered CONNECT with "+code(f.refused.status)
	switch {
	case status == http.StatusProxyAuthRequired || status == http.StatusUnauthorized:
		b := blameProxy("proxy_auth", text+offeredSchemes(f.refused.header))
		b.trip = tripTime
		return b
	case status == http.StatusForbidden || status == http.StatusMethodNotAllowed:
		return blameRefusal("proxy_refused", text)
	case status == http.StatusTooManyRequests:
		// Said by the proxy itself: no tunnel stands yet.
		b := blameProxy("proxy_refused", text)
		b.trip = max(time.Second, RetryAfter(f.refused.header.Get("Retry-After"), time.Now()))
		return b
	case status == http.StatusInternalServerError, status >= 502 && status <= 504:
		// tinyproxy answers 500 when it cannot reach the target.
		if fault, known := proxyStatus(f.refused.header); known {
			return fault
		}
		return blameUnclear("proxy_refused", text)
	case status == http.StatusBadRequest:
		return blameUnclearWithFailover("proxy_refused", text+f.tryTLS()) // many servers respond so to what is not TLS
	case status > http.StatusBadRequest:
		// Each proxy has its own words for a target that it cannot reach: privoxy's are 404.
		return blameUnclearWithFailover("proxy_refused", text)
	}
	return blameProxy("proxy_refused", text)
}

// proxyStatus reads what a proxy says about its own failure: the Proxy-Status header (RFC 9209) and that of squid. It
// looks for words within the header instead of parsing it, because proxies write it in many ways. known is false if no
// word is found. The text of the header is never repeated in a result: it is the proxy's.
func proxyStatus(h http.Header) (blame, bool) {
	said := strings.ToLower(h.Get("Proxy-Status") + " " + h.Get("X-Squid-Error"))
	for _, word := range []string{"dns_", "destination_", "connection_refused", "connection_timeout", "connection_terminated", "err_dns_fail", "err_connect_fail", "err_read_timeout", "http_response_"} {
		if strings.Contains(said, word) {
			return blameTargetByProxy("the proxy says that the target cannot be reached"), true
		}
	}
	// ERR_CANNOT_FORWARD is not among them: squid 5 also uses it for a target whose name does not exist.
	for _, word := range []string{"proxy_internal_", "proxy_configuration_", "connection_limit_reached"} {
		if strings.Contains(said, word) {
			return blameProxy("proxy_refused", "the proxy says that it has failed itself"), true
		}
	}
	return blame{}, false
}

// judgeFailure judges a failure through a proxy, before a complete response. Cases that show who failed come first.
func judgeFailure(f *facts) blame {
	var op *net.OpError
	dialled := errors.As(f.err, &op) && op.Op == "proxyconnect"
	switch {
	// An HTTPS proxy that hangs up during the handshake has mostly been listed by the wrong scheme.
	case dialled && (tlsText(f.err) != "" || certificateText(f.err) != "" || f.proxyScheme == "https" && hungUp(f.err)):
		return judgeProxyTLS(f)
	case dialled && !f.outOfTime():
		return blameProxy("connect", "the proxy cannot be reached: "+brief(f.err))
	case op != nil && op.Op == "socks connect":
		return judgeSocks(f, op)
	case f.otherProtocol == otherPage:
		return blameProxy("proxy_protocol", "the proxy sent a page instead of a tunnel")
	case f.otherProtocol == otherTLS && !f.plain:
		b := blameProxy("proxy_tls", "the proxy speaks TLS: list it as https://")
		b.trip = tripTime
		return b
	// Two independent ways show the same bad certificate, so it is the target's, and no retry helps.
	case untrusted(f.err) && f.refusedThrough > 1:
		b := blameTarget("tls", "the target's certificate "+certificateText(f.err)+", through two proxies")
		b.end = jobs.ErrPermanent
		return b
	case untrusted(f.err):
		b := blameUnclearWithFailover("tls", "the target's certificate "+certificateText(f.err)+", or the proxy put in its own")
		b.kind = rotation.Neutral // the comparison of several sites' certificates decides
		return b
	case f.outOfTime():
		return judgeTimeout(f)
	case f.phase == tunnelling && hungUp(f.err):
		return blameUnclearWithFailover("proxy_protocol", "the proxy hung up instead of opening a tunnel"+f.tryOther())
	case f.phase == tunnelling:
		return blameProxy("proxy_protocol", "the proxy did not answer as a proxy should: "+brief(f.err))
	}
	return judgeExchange(f)
}

// judgeExchange judges a failure after the proxy had taken the request, or had opened a tunnel for it. The bytes may be
// the proxy's or the target's, so nearly all of these are unclear. A failover follows only if the proxy closed the
// connection of a plain request without a response. In all other cases the target may be overloaded, so the next
// attempt waits.
func judgeExchange(f *facts) blame {
	switch words := brief(f.err); {
	case errors.Is(f.err, errDecode):
		return blameUnclear("decode", "the body cannot be decoded: "+words)
	case errors.Is(f.err, http1.ErrNoAnswer):
		return blameUnclear("proxy_protocol", words+": "+code(f.status))
	case f.phase == securing && hungUp(f.err):
		return blameUnclear("reset", "the TLS handshake with the target failed: "+words)
	case f.phase == securing:
		return blameUnclear("tls", "the TLS handshake with the target failed: "+words)
	case f.otherProtocol == otherTLS:
		return blameUnclear("malformed", "the answer is TLS, not HTTP"+f.tryTLS())
	// A response that ended early looks malformed, so the cut is reported rather than the syntax.
	case http1Text(f.err) != "" && f.ended:
		return blameUnclear("truncated", "the answer was cut off: connection closed")
	case http1Text(f.err) != "", isMalformedHTTP2(f.err):
		return blameUnclear("malformed", "the answer cannot be read: "+words)
	case f.phase == reading:
		return blameUnclear("truncated", "the answer was cut off: "+words)
	case f.plain && (f.phase == sending || f.phase == waiting):
		return blameUnclearWithFailover("reset", "the proxy closed the connection without an answer"+f.tryOther())
	default:
		b := blameUnclear("reset", "the connection broke in phase "+f.phase.String()+": "+words)
		b.unsent = f.host == "" && isUnprocessed(f.err)
		return b
	}
}

// tryTLS returns a hint for a proxy that may accept only TLS, as the end of an error text; empty for proxies of another
// scheme, and for one that works as it is listed.
func (f *facts) tryTLS() string {
	if f.proxyScheme == "http" && !f.works {
		return "; if the proxy speaks TLS, list it as https://"
	}
	return ""
}

// tryOther is tryTLS for a proxy that hung up: a SOCKS proxy does so, too, when it receives HTTP.
func (f *facts) tryOther() string {
	if hint := f.tryTLS(); hint != "" {
		return hint + ", and if it speaks SOCKS, as socks5://"
	}
	return ""
}

// judgeProxyTLS judges a failure of TLS with a proxy that is listed as https. A certificate or another protocol does
// not change by itself, so the breaker opens at once. An alert may be caused by load, so it does not open the breaker
// by itself.
func judgeProxyTLS(f *facts) blame {
	b := blameProxy("proxy_tls", "TLS with the proxy failed: ")
	switch certificate, text := certificateText(f.err), brief(f.err); {
	case certificate != "":
		b.text += "its certificate " + certificate
	case text == notTLS:
		b.text += text + "; list it as http://"
	case tlsText(f.err) == "":
		b.text += text + "; if it does not speak TLS, list it as http://"
		return b
	default:
		b.text += text
	}
	// An alert comes from a peer that speaks TLS and may accept the next handshake.
	if _, alerted := alert(f.err); !alerted {
		b.trip = tripTime
	}
	return b
}

// judgeSocks reads the reply of a SOCKS proxy (RFC 1928, 6) from the text of the error. x/net/proxy keeps nothing else of
// the reply.
func judgeSocks(f *facts, op *net.OpError) blame {
	switch words := brief(op.Err); words {
	case "network unreachable", "host unreachable", "connection refused", "TTL expired":
		return blameTargetByProxy("the SOCKS proxy says: " + words)
	case "connection not allowed by ruleset":
		return blameRefusal("proxy_refused", "the SOCKS proxy does not allow this target")
	case "general SOCKS server failure", "address type not supported", "an unknown reply":
		// A general failure is microsocks' word for a name that does not exist. Other proxies have codes of their own, such as Tor for
		// an onion service that is not there.
		return blameUnclearWithFailover("proxy_protocol", "the SOCKS proxy failed, or cannot reach the target: "+words)
	default:
		return judgeSocksFailure(f, op, words)
	}
}

// judgeSocksFailure judges a SOCKS proxy that failed before it said anything about the target.
func judgeSocksFailure(f *facts, op *net.OpError, words string) blame {
	switch {
	case f.outOfTime():
		return judgeTimeout(f)
	case strings.Contains(words, "credentials"):
		b := blameProxy("proxy_auth", "the SOCKS proxy failed: "+words)
		b.trip = tripTime
		return b
	case hungUp(op.Err):
		return blameUnclearWithFailover("proxy_protocol", "the SOCKS proxy failed, or cannot reach the target: "+words)
	}
	return blameProxy("proxy_protocol", "the SOCKS proxy failed: "+words)
}

// untrusted reports whether the target's certificate was refused.
func untrusted(err error) bool {
	var cert *tls.CertificateVerificationError
	var op *net.OpError
	// A certificate of the proxy itself is excluded: judgeProxyTLS judges it.
	return errors.As(err, &cert) && (!errors.As(err, &op) || op.Op != "proxyconnect")
}
