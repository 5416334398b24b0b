package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// access is the right that a route demands. The zero value admits everybody, so each route names its access.
type access int

const (
	anyone  access = iota // probes and scrapes carry no token
	reader                // needs the token, but not on a loopback listener under a loopback host name
	changer               // needs the token, or without one a request that certainly comes from this machine
)

// ErrNoToken is in the error chain of CheckBind if a token would remove the error.
var ErrNoToken = errors.New("can be reached from other machines, which needs a token")

// CheckBind refuses an address that other machines can reach if there is no token. The error wraps ErrNoToken, or says
// that addr is no address.
func CheckBind(addr, token string) error {
	// It checks the form only: a host name is not resolved here. A name other than localhost counts as
	// reachable, because what it resolves to may change.
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return fmt.Errorf("%q is not a host and a port, such as 127.0.0.1:9090", addr)
	}
	if token == "" && !loopbackAddr(addr) {
		return fmt.Errorf("%s %w", addr, ErrNoToken)
	}
	return nil
}

// allow returns why a request may not be served; nil if it may. It runs before the body is read, so a refused request
// costs little.
func (a *admin) allow(r *http.Request, needs access) error {
	switch {
	case needs == anyone, needs == reader && !a.remote && loopbackHost(r.Host):
		return nil
	case needs == reader:
		return a.allowRead(r)
	}
	return a.allowChange(r)
}

// allowRead also accepts the token as the password of Basic authentication: a browser asks the user for it, and then
// sends it with the page, its parts and its live stream. Without a token the listener is on loopback, and a request under
// another host name may come from another site whose name points here (DNS rebinding).
func (a *admin) allowRead(r *http.Request) error {
	// The listener is on loopback, or CheckBind would have refused it. Only the Host header can tell a page of
	// another site from the owner's.
	if a.Token == "" {
		return forbidden("without a token, reads are answered only under a loopback host name, such as 127.0.0.1; give the worker an admin token to read under another")
	}
	if _, password, ok := r.BasicAuth(); ok && a.isToken(password) || a.isToken(bearer(r)) {
		return nil
	}
	// Only a browser that asks for a page gets the challenge. A script would otherwise open a dialog in the
	// middle of the page.
	return unauthorized(strings.Contains(r.Header.Get("Accept"), "text/html"))
}

// allowChange never accepts Basic credentials. A browser sends those by itself, also for a page of another site
// (cross-site request forgery).
func (a *admin) allowChange(r *http.Request) error {
	// Two tests, because neither suffices: CrossOriginProtection knows the methods that change something, and
	// fromElsewhere also refuses a GET of a profile.
	if err := http.NewCrossOriginProtection().Check(r); err != nil || fromElsewhere(r) {
		return forbidden("the request comes from another site's page")
	}
	if a.Token != "" {
		// With a token, the peer and the Host header no longer matter: only a client that knows the token can send it,
		// and a browser never adds it by itself.
		if a.isToken(bearer(r)) {
			return nil
		}
		return unauthorized(false)
	}
	if reason := notLocal(r); reason != "" {
		return forbidden(reason + "; give the worker an admin token and send it as a Bearer token")
	}
	return nil
}

// fromElsewhere reports whether the page of another site sent the request. CrossOriginProtection lets every GET pass, and
// a page can make a browser send one by an image.
func fromElsewhere(r *http.Request) bool {
	// Browsers set the header, and no script can forge it. Programs other than browsers leave it out, so an
	// empty one is accepted.
	site := r.Header.Get("Sec-Fetch-Site")
	return site != "" && site != "none" && site != "same-origin"
}

// isToken compares digests, so its duration reveals neither the content nor the length of the token.
func (a *admin) isToken(given string) bool {
	want, got := sha256.Sum256([]byte(a.Token)), sha256.Sum256([]byte(given))
	// An empty token never matches. Otherwise a request without credentials would pass on a worker without a token.
	return a.Token != "" && subtle.ConstantTimeCompare(want[:], got[:]) == 1
}

// bearer returns the token of an Authorization header (RFC 6750, 2.1); empty if there is none.
func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// notLocal returns why a request may come from outside this machine, or "". The Host header counts because any owner of
// a domain can point a name to 127.0.0.1 (DNS rebinding). The forwarding headers count because behind a reverse proxy
// on this machine every peer is local.
func notLocal(r *http.Request) string {
	if !loopbackAddr(r.RemoteAddr) {
		return "without a token, changes are taken only from this machine"
	}
	if !loopbackHost(r.Host) {
		return "without a token, changes are taken only under a loopback host name"
	}
	// Header names are in canonical form here, so an exact comparison suffices.
	for name := range r.Header {
		if name == "Forwarded" || strings.HasPrefix(name, "X-Forwarded-") {
			return "without a token, changes are not taken through a proxy"
		}
	}
	return ""
}

// loopbackAddr reports whether an address to listen on can be reached from this host only.
func loopbackAddr(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && loopbackName(host)
}

// loopbackHost reads a Host header, whose port may be missing.
func loopbackHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return loopbackName(name)
	}
	// An IPv6 address without a port is in brackets, which are no part of the address.
	return loopbackName(strings.Trim(host, "[]"))
}

// loopbackName reports whether a host name or an address is this machine's own.
func loopbackName(name string) bool {
	if strings.EqualFold(name, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	// An IPv4 address may be written in IPv6 form, such as ::ffff:127.0.0.1.
	return err == nil && ip.Unmap().IsLoopback()
}

// unauthorized is 401. browser adds a challenge that makes a browser ask for the token.
func unauthorized(browser bool) error {
	return failure{
		status: http.StatusUnauthorized, code: "unauthorized", basic: browser,
		message: "this needs the header Authorization: Bearer with the worker's admin token",
	}
}

// forbidden is 403: no credentials would help.
func forbidden(reason string) error {
	return failure{status: http.StatusForbidden, code: "forbidden", message: reason}
}

// tooLarge reports whether a body exceeded its bound. net/http has answered nothing by then, so the caller chooses the
// answer.
func tooLarge(err error) bool {
	_, ok := errors.AsType[*http.MaxBytesError](err)
	return ok
}
