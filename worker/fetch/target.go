package fetch

import (
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/gofer-mq/gofer/jobs"
)

// denyReason says why a URL may not be fetched, or "". It is asked before the first attempt and at every redirect. A host
// is denied under each of its spellings, so that no other way to write an address evades the list.
func (f *Fetcher) denyReason(u jobs.URL) string {
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
	if !strings.HasSuffix(u.Hostname(), ".") {
		return u.HostPort()
	}
	_, port, _ := net.SplitHostPort(u.HostPort())
	return net.JoinHostPort(strings.TrimSuffix(u.Hostname(), "."), port)
}

// http2URL returns a URL by which net/http requests u with path and query unchanged: net/http would encode them again
// if they stood in their own fields.
func http2URL(u jobs.URL) *url.URL {
	w := &url.URL{Scheme: u.Scheme(), Host: u.Authority(), Opaque: u.RequestTarget()}
	if strings.HasPrefix(u.RequestTarget(), "//") {
		// net/http takes two slashes in Opaque for the beginning of an authority.
		w.Opaque = "//" + u.Authority() + u.RequestTarget()
	}
	return w
}
