package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gofer-mq/gofer/worker/fetch/http1"
)

// unknownFailure describes an error of which nothing else is known.
const unknownFailure = "the exchange broke off"

// brief describes an error in words of gofer's own. The text of a library is never used: it may hold a URL, a header, or
// bytes of the peer. The first function that knows the error decides.
func brief(err error) string {
	for _, words := range []func(error) string{bodyText, resolverText, certificateText, tlsText, http2Text, http1Text, hostText, socksText} {
		if text := words(err); text != "" {
			// Functions that know a family of errors come before hostText, which knows what may lie at the
			// bottom of any of them.
			return text
		}
	}
	return unknownFailure
}

// hasType reports whether err wraps an error of type T.
func hasType[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

// innermost returns the innermost error of a chain of single wraps. Errors that join several others end the chain.
func innermost(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// beginning pairs the beginning of a library's text with gofer's own words.
type beginning struct{ text, words string }

// wordsFor returns gofer's words for a text of a library; empty if the list has none. The beginnings are compared in
// the order of the list, so a longer one stands before a shorter one that it begins with.
func wordsFor(text string, list []beginning) string {
	for _, b := range list {
		if strings.HasPrefix(text, b.text) {
			return b.words
		}
	}
	return ""
}

// bodyText describes errors that this package made itself. Only their innermost text is used as it is.
func bodyText(err error) string {
	switch {
	case errors.Is(err, errChecksum):
		return "its checksum is wrong"
	case errors.Is(err, errDecode):
		return "it is not what its Content-Encoding says"
	case errors.Is(err, errMemory):
		return errMemory.Error()
	case errors.Is(err, errTooLarge), errors.Is(err, errRedirects), errors.Is(err, errInner), errors.Is(err, errFlooded):
		return innermost(err).Error()
	case errors.Is(err, errAttemptTimeout), errors.Is(err, errStalled), errors.Is(err, errExpired), errors.Is(err, errTimedOut):
		return "timeout"
	}
	return ""
}

// resolverText describes errors of a resolver, and invalid addresses. A resolver's error holds the name that was asked
// for, which is not repeated.
func resolverText(err error) string {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		switch {
		case dns.IsNotFound:
			return "its name does not exist"
		case dns.IsTimeout:
			return "its name was not resolved in time"
		}
		return "its name cannot be resolved"
	}
	switch {
	case hasType[*net.AddrError](err), hasType[*net.ParseError](err), hasType[net.InvalidAddrError](err), hasType[net.UnknownNetworkError](err):
		return "its address is not valid"
	case hasType[*net.DNSConfigError](err):
		return "the resolver of this worker is not configured"
	}
	return ""
}

// hostText describes errors of the operating system and of connections. Shortages come before timeouts, because EAGAIN
// is a shortage and also reports itself as a timeout.
func hostText(err error) string {
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.ECONNABORTED):
		return "connection reset"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTDOWN), errors.Is(err, syscall.ENETDOWN):
		return "no route to it"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return "this host does not permit the connection"
	case shortage(err) != 0:
		return shortage(err).Error()
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), isNet && timeout.Timeout():
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case hungUp(err):
		return "connection closed"
	}
	return ""
}

// hungUp reports whether the other end closed the connection, rather than sent what cannot be read.
func hungUp(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	return wordsFor(innermost(err).Error(), []beginning{
		// These errors have no exported type. Only whether the text is known counts, hence the dash.
		{"http: server closed idle connection", "-"}, {"http2: client conn", "-"}, {"http2: client connection lost", "-"}, {"http: unexpected EOF reading trailer", "-"},
	}) != ""
}

// certificateText describes why a certificate was refused. The text follows "the certificate". A self-signed one has an
// unknown issuer as well, so that case comes first.
func certificateText(err error) string {
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	issuer, isUnknown := errors.AsType[x509.UnknownAuthorityError](err)
	expired := isInvalid && invalid.Reason == x509.Expired
	switch {
	case expired && invalid.Cert != nil && time.Now().Before(invalid.Cert.NotBefore):
		return "is not valid yet"
	case expired:
		return "has expired"
	case hasType[x509.HostnameError](err), isInvalid && invalid.Reason == x509.NameMismatch:
		return "is for another name"
	case isUnknown && issuer.Cert != nil && slices.Equal(issuer.Cert.RawIssuer, issuer.Cert.RawSubject):
		return "is self-signed"
	case isUnknown:
		return "has an unknown issuer"
	case hasType[x509.SystemRootsError](err):
		return "cannot be checked: this host has no root certificates"
	case hasType[x509.InsecureAlgorithmError](err):
		return "is signed by an algorithm that is not secure"
	case isInvalid, hasType[x509.ConstraintViolationError](err), hasType[x509.UnhandledCriticalExtension](err):
		return "may not be used for this"
	case hasType[*tls.CertificateVerificationError](err):
		return "is not trusted"
	}
	return ""
}

// notTLS describes a peer that responds to a handshake in another protocol.
const notTLS = "it does not speak TLS"

// tlsText describes a failed handshake, and alerts by their names in RFC 8446, 6. Numbers stand for alerts for which
// crypto/tls has no constant.
func tlsText(err error) string {
	if hasType[tls.RecordHeaderError](err) {
		return notTLS
	}
	if code, ok := alert(err); ok {
		text := strings.TrimPrefix(code.Error(), "tls: ")
		if code == handshakeFailure && hasType[*uncertified](err) {
			return wantsCertificate(text)
		}
		switch code {
		case handshakeFailure, 71: // insufficient_security
			return "no common cipher (" + text + ")"
		case 70: // protocol_version
			return "no common version of TLS (" + text + ")"
		case 42, 43, 46, 48, 49, 116: // of a certificate
			return wantsCertificate(text)
		}
		return "TLS alert (" + text + ")"
	}
	if hasType[*tls.ECHRejectionError](err) {
		return "TLS failed"
	}
	return wordsFor(innermost(err).Error(), []beginning{
		{"tls: server selected unsupported protocol version", "no common version of TLS"}, {"tls: failed to parse certificate", "its certificate cannot be read"},
		{"tls: server's certificate", "its certificate cannot be used"}, {"x509: ", "its certificate cannot be read"}, {"tls: ", "TLS failed"}, {"net/http: TLS handshake timeout", "timeout"},
	})
}

// wantsCertificate describes a server that accepts only clients with a certificate. text names its alert.
func wantsCertificate(text string) string {
	return "a client certificate is wanted, or ours are not trusted (" + text + ")"
}

// handshakeFailure is the alert of a server that finds no common cipher.
const handshakeFailure tls.AlertError = 40

// alert returns the TLS alert that ended a connection. crypto/tls exports the type only for QUIC. For TCP the texts are
// compared, which are the same.
func alert(err error) (tls.AlertError, bool) {
	if own, ok := errors.AsType[tls.AlertError](err); ok {
		return own, true
	}
	text := innermost(err).Error()
	if !strings.HasPrefix(text, "tls: ") {
		return 0, false
	}
	// There are fewer than 256 alerts, and this runs only for a handshake that failed.
	for code := range 256 {
		if tls.AlertError(code).Error() == text {
			return tls.AlertError(code), true
		}
	}
	return 0, false
}

// http1Text describes a response that cannot be read (RFC 9112).
func http1Text(err error) string {
	if odd, ok := errors.AsType[http1.Error](err); ok && odd != http1.ErrEnded {
		return odd.Error()
	}
	return ""
}

// http2Text describes errors of HTTP/2 and their codes (RFC 9113, 7). net/http exports few types of them, so the
// beginnings of its texts are compared. A test compares them with the library that is built in.
func http2Text(err error) string {
	code, ok := http2Code(err)
	switch {
	case isMalformedHTTP2(err):
		return "malformed HTTP/2 answer (" + http2Name(code) + ")"
	case ok:
		return "HTTP/2 " + http2Name(code)
	}
	return wordsFor(innermost(err).Error(), []beginning{
		{"http2: Transport received Server's graceful shutdown GOAWAY", "HTTP/2 NO_ERROR"}, {"http2: response header list larger", "headers larger than 256 KiB"}, {"header list too large", "headers larger than 256 KiB"},
		{"malformed response from server", "malformed HTTP/2 answer"}, {"connection exceeded flow control", "HTTP/2 FLOW_CONTROL_ERROR"}, {"1xx informational response with END_STREAM", "malformed HTTP/2 answer"},
		{"http2: frame too large", "HTTP/2 FRAME_SIZE_ERROR"}, {"invalid pseudo-header", "malformed header"}, {"duplicate pseudo-header", "malformed header"}, {"invalid header field", "malformed header"},
		{"net/http: server replied with more than declared Content-Length", "more than its length"}, {"http2: could not negotiate protocol", "no common version of HTTP"},
		{"http2: no cached connection", "connection closed"},
	})
}

// socksText describes the replies of SOCKS proxies (RFC 1928, 6; RFC 1929). x/net/proxy keeps only their texts. Host
// and port of the reply are left out: they are the proxy's.
func socksText(err error) string {
	text := innermost(err).Error()
	if reply, ok := strings.CutPrefix(text, "unknown error "); ok {
		if slices.Contains([]string{
			"general SOCKS server failure", "connection not allowed by ruleset", "network unreachable", "host unreachable", "connection refused", "TTL expired", "command not supported", "address type not supported",
		}, reply) {
			return reply
		}
		return "an unknown reply"
	}
	return wordsFor(text, []beginning{
		{"unexpected protocol version", "it does not speak SOCKS 5"}, {"no acceptable authentication methods", "it wants credentials of another kind"},
		{"username/password authentication failed", "it wants other credentials"}, {"invalid username/password", "it wants other credentials"},
		{"unsupported authentication method", "it wants credentials of another kind"}, {"non-zero reserved field", "a malformed reply"}, {"unknown address type", "a malformed reply"},
		{"FQDN too long", "the host name is too long for SOCKS"},
	})
}

// offeredSchemes names the authentication schemes that a proxy offers, if Basic, the one that gofer uses, is not among
// them. Only names from the list are repeated, because the header is the proxy's text.
func offeredSchemes(h http.Header) string {
	var offered []string
	for _, value := range append(h["Proxy-Authenticate"], h["Www-Authenticate"]...) {
		for part := range strings.SplitSeq(value, ",") {
			word, _, _ := strings.Cut(strings.TrimSpace(part), " ")
			for _, known := range []string{"Basic", "Digest", "NTLM", "Negotiate", "Kerberos", "Bearer", "Mutual", "HOBA", "SCRAM-SHA-1", "SCRAM-SHA-256"} {
				if strings.EqualFold(word, known) && !slices.Contains(offered, known) {
					offered = append(offered, known)
				}
			}
		}
	}
	if len(offered) == 0 || slices.Contains(offered, "Basic") {
		return ""
	}
	return ": it offers " + strings.Join(offered, ", ") + ", and gofer sends Basic"
}
