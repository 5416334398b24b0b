package fetch

import (
	"cmp"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/gofer-mq/gofer/jobs"
)

// The bounds of what one attempt remembers.
const (
	maxCookies     = 50
	maxCookieBytes = 4 << 10 // name and value (RFC 6265bis, 5.7)
)

// cookies are those that the redirects of one attempt set. They end with the attempt: jobs share nothing. The
// zero value has none. The jar knows the rules of domains and paths; only the bounds are our own.
type cookies struct {
	jar  *cookiejar.Jar
	kept map[cookieID]bool // at most maxCookies; whether a cookie is for https only
}

// cookieID distinguishes cookies (RFC 6265, 5.3).
type cookieID struct{ name, domain, path string }

// store takes the cookies of a response to u that are within the bounds. When the jar is full, the cookies that came
// first stay and new ones are dropped. A cookie that the response deletes frees its place.
func (c *cookies) store(u jobs.URL, resp *http.Response) {
	for _, line := range resp.Header["Set-Cookie"] {
		cookie := parseCookie(line)
		if cookie == nil {
			continue
		}
		id := identify(cookie, u)
		if !mayCover(id.domain, u.Hostname()) {
			continue // the jar would refuse it, so it must not take a place
		}
		if !keepsPromise(cookie) || u.Scheme() != "https" && (cookie.Secure || c.hidesSecure(id)) {
			continue
		}
		// Replacing a cookie that is known needs no new place, so it is admitted when the jar is full.
		_, known := c.kept[id]
		if len(cookie.Name)+len(cookie.Value) > maxCookieBytes || !known && len(c.kept) >= maxCookies {
			continue
		}
		// The jar is made for the first cookie: most attempts see none.
		if c.jar == nil {
			c.jar, _ = cookiejar.New(&cookiejar.Options{PublicSuffixList: publicsuffix.List}) // it never fails
			c.kept = map[cookieID]bool{}
		}
		c.jar.SetCookies(cookieURL(u), []*http.Cookie{cookie})
		c.kept[id] = cookie.Secure
		// Max-Age wins over Expires (RFC 6265, 5.3). The jar deletes by itself, and the count must follow.
		if cookie.MaxAge < 0 || cookie.MaxAge == 0 && !cookie.Expires.IsZero() && cookie.Expires.Before(time.Now()) {
			delete(c.kept, id)
		}
	}
}

// keepsPromise reports whether a cookie is what the prefix of its name says, in any case (RFC 6265bis, 5.7).
func keepsPromise(cookie *http.Cookie) bool {
	switch name := strings.ToLower(cookie.Name); {
	case strings.HasPrefix(name, "__host-"):
		return cookie.Secure && cookie.Path == "/" && cookie.Domain == ""
	case strings.HasPrefix(name, "__secure-"):
		return cookie.Secure
	}
	return true
}

// hidesSecure reports whether a cookie would be sent in place of one that is for https only. Whoever can forge an answer by http
// must not replace what a site has set by https (RFC 6265bis, 5.7).
func (c *cookies) hidesSecure(id cookieID) bool {
	for kept, secure := range c.kept {
		sameHosts := kept.domain == id.domain || strings.HasSuffix(kept.domain, "."+id.domain) || strings.HasSuffix(id.domain, "."+kept.domain)
		if secure && kept.name == id.name && sameHosts && isBelow(id.path, kept.path) {
			return true
		}
	}
	return false
}

// isBelow reports whether a path is another one or lies below it (RFC 6265, 5.1.4).
func isBelow(path, above string) bool {
	return path == above || strings.HasPrefix(path, strings.TrimSuffix(above, "/")+"/")
}

// parseCookie reads a Set-Cookie field as browsers and curl do, or returns nil. net/http drops names, values and attributes that
// they read, such as those with letters beyond ASCII.
func parseCookie(line string) *http.Cookie {
	pair, attributes, _ := strings.Cut(line, ";")
	name, value, found := strings.Cut(pair, "=")
	name, value = strings.Trim(name, " \t"), strings.Trim(value, " \t")
	if !found || name == "" || strings.ContainsFunc(name+value, isControl) {
		return nil
	}
	cookie := &http.Cookie{Name: name, Value: value}
	readAttributes(cookie, attributes)
	return cookie
}

// isControl reports whether no cookie has the character.
func isControl(c rune) bool { return c < ' ' || c == 0x7f }

// identify is the identity of a cookie that a response to u sets. The default path is the directory (RFC 6265, 5.1.4).
func identify(cookie *http.Cookie, u jobs.URL) cookieID {
	path := cookie.Path
	if !strings.HasPrefix(path, "/") {
		path = u.Path()[:max(1, strings.LastIndexByte(u.Path(), '/'))]
	}
	domain := strings.TrimPrefix(strings.ToLower(cookie.Domain), ".")
	return cookieID{cookie.Name, cmp.Or(domain, u.Hostname()), path}
}

// mayCover reports whether a host may set cookies for a domain (RFC 6265, 5.3): for itself, or for one above it that is no public
// suffix. Above an address there is none.
func mayCover(domain, host string) bool {
	if domain == host {
		return true
	}
	suffix, _ := publicsuffix.PublicSuffix(domain)
	_, err := netip.ParseAddr(host)
	return suffix != domain && err != nil && strings.HasSuffix(host, "."+domain)
}

// values are the values of the Cookie header of a request for u, if own are those that the job gives it. A cookie of a
// redirect replaces the job's of the same name. Without one the job's values stay as they are.
func (c *cookies) values(u jobs.URL, own []string) []string {
	if c.jar == nil {
		return own
	}
	stored := c.jar.Cookies(cookieURL(u))
	if len(stored) == 0 {
		return own
	}
	var pairs []string
	// The job's own header may hold several cookies in several fields; they are taken apart by the semicolon
	// (RFC 6265, 4.2.1).
	for pair := range strings.SplitSeq(strings.Join(own, ";"), ";") {
		name, _, _ := strings.Cut(pair, "=")
		replaced := slices.ContainsFunc(stored, func(cookie *http.Cookie) bool { return cookie.Name == strings.TrimSpace(name) })
		if pair = strings.TrimSpace(pair); pair != "" && !replaced {
			pairs = append(pairs, pair)
		}
	}
	for _, cookie := range stored {
		// Cookie.String would put quotes around some values, which a site would take for a part of the value.
		pairs = append(pairs, cookie.Name+"="+cookie.Value)
	}
	// One field only, as RFC 6265, 5.4 demands of a client.
	return []string{strings.Join(pairs, "; ")}
}

// cookieURL is what the jar has to know of a URL.
func cookieURL(u jobs.URL) *url.URL {
	return &url.URL{Scheme: u.Scheme(), Host: u.Authority(), Path: u.Path()}
}
