package fetch

import (
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/gofer-mq/gofer/jobs"
)

// refuses says why a URL may not be fetched, or "". It is asked before the first attempt and at every redirect.
func (f *Fetcher) refuses(u jobs.URL) string {
	switch {
	case slices.ContainsFunc(jobs.HostAliases(u.Hostname()), f.cfg.Denied):
		return "the host is on the fleet's deny list"
	case !f.cfg.AllowPrivateTargets && u.HostClass() == jobs.HostRefused:
		return "private, loopback and link-local targets are not allowed here"
	}
	return ""
}

// hostPort names the target of a URL. It always has a port, and a name is without its final dot.
func hostPort(u jobs.URL) string {
	_, port, _ := net.SplitHostPort(u.HostPort())
	return net.JoinHostPort(strings.TrimSuffix(u.Hostname(), "."), port)
}

// wireURL is the URL for net/http to request u by, in such a way that it writes path and query as they stand: it would
// re-encode them if they were fields of their own. absolute tells that a proxy takes the request (RFC 9112, 3.2.2).
func wireURL(u jobs.URL, absolute bool) *url.URL {
	w := &url.URL{Scheme: u.Scheme(), Host: u.Authority()}
	slashes := strings.HasPrefix(u.RequestTarget(), "//")
	if slashes && !absolute {
		// net/http takes two slashes in Opaque for the beginning of an authority. It leaves this path as it is unless that has
		// a lone percent sign or a bar.
		if parsed, err := url.ParseRequestURI(u.RequestTarget()); err == nil && parsed.RequestURI() == u.RequestTarget() {
			w.Path, w.RawPath, w.RawQuery, w.ForceQuery = parsed.Path, parsed.RawPath, parsed.RawQuery, parsed.ForceQuery
			return w
		}
	}
	if slashes || absolute {
		w.Opaque = "//" + u.Authority() + u.RequestTarget()
		return w
	}
	w.Opaque = u.RequestTarget()
	return w
}
