package proxylist

import (
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Proxy is a forward proxy. It prints without its user information.
type Proxy struct {
	// ID names the proxy wherever people see it: [A-Za-z0-9_-]{1,64}.
	ID string
	// URL is where it is and how it is spoken to: http, https, socks5 or socks5h, with user information if it asks for it.
	URL *url.URL
	// Tags are what a job may ask for; all of those that it asks for must be here.
	Tags []string
	// Region is where the proxy is, in words of the owner's choice.
	Region string
	// Weight is the part that the weighted strategy gives it; zero means 1.
	Weight int
	// MaxInflight is how many attempts may be under way through it; zero and more than 65,535 mean that many.
	MaxInflight int
	// Rate is how many attempts a second may start through it, evenly apart; zero means no limit.
	Rate float64
	// Gateway says that each connection has another exit. A proxy whose user information holds {session} is a gateway without it.
	Gateway bool
	// SessionTTL is how long the word of a session may be idle, in a gateway with {session}; zero means DefaultSessionTTL.
	SessionTTL time.Duration
}

// Addr is scheme, host and port, without user information.
func (p Proxy) Addr() string { return p.URL.Scheme + "://" + p.URL.Host }

// String is Addr.
func (p Proxy) String() string { return p.Addr() }

// GoString is Addr, so that no %#v shows a password.
func (p Proxy) GoString() string { return p.Addr() }

// LogValue is Addr.
func (p Proxy) LogValue() slog.Value { return slog.StringValue(p.Addr()) }

// Line is the proxy as a line of a proxies file. It holds the password. ParseLine reads it back to an equal proxy.
// Fields without a value are left out.
func (p Proxy) Line() string {
	parts := []string{showPlaceholders(p.URL.String()), "id=" + p.ID}
	if len(p.Tags) > 0 {
		parts = append(parts, "tags="+strings.Join(p.Tags, ","))
	}
	if p.Region != "" {
		parts = append(parts, "region="+p.Region)
	}
	if p.Weight > 0 {
		parts = append(parts, "weight="+strconv.Itoa(p.Weight))
	}
	if p.MaxInflight > 0 {
		parts = append(parts, "max_inflight="+strconv.Itoa(p.MaxInflight))
	}
	if p.Rate > 0 {
		parts = append(parts, "rate="+strconv.FormatFloat(p.Rate, 'g', -1, 64))
	}
	if p.Gateway {
		parts = append(parts, "gateway=yes")
	}
	if p.SessionTTL > 0 {
		parts = append(parts, "session_ttl="+p.SessionTTL.String())
	}
	return strings.Join(parts, " ")
}

// Equal reports whether nothing about the two proxies differs, passwords included. Of tags the order counts.
func (p *Proxy) Equal(q *Proxy) bool {
	if p.ID != q.ID || p.Region != q.Region || p.Weight != q.Weight || p.MaxInflight != q.MaxInflight || p.Rate != q.Rate {
		return false
	}
	if p.Gateway != q.Gateway || p.SessionTTL != q.SessionTTL {
		return false
	}
	if p.URL.Scheme != q.URL.Scheme || p.URL.Host != q.URL.Host || !slices.Equal(p.Tags, q.Tags) {
		return false
	}
	// An empty password differs from none: the first one is sent.
	password, set := p.URL.User.Password()
	other, alsoSet := q.URL.User.Password()
	return p.URL.User.Username() == q.URL.User.Username() && password == other && set == alsoSet
}
