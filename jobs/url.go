package jobs

import (
	"cmp"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// URL is an absolute http or https URL in its normal form: the one that is requested. The host is as the WHATWG URL standard
// has it, path and query keep every byte that a request target may hold, and there is no fragment, no user information and
// no default port. The zero value is no URL; make one with ParseURL or Resolve. It is comparable and immutable,
// so it may be shared and used as a map key.
type URL struct {
	scheme string // "http" or "https"
	host   string // as parseHost returns it
	port   string // decimal; empty for the default port of the scheme
	target string // path and query: begins with a slash, every byte is between '!' and '~'
	// authority and hostPort are what Authority and HostPort return. Each attempt asks for them several times.
	authority, hostPort string
	class               HostClass
}

// URLError says why a text is no URL that a job or a redirect may name. Its text never repeats the URL: a query often holds
// a key.
type URLError struct {
	// Reason is a sentence without a capital, such as "the port is not a number".
	Reason string
	// Malformed means that no URL can be read at all. Otherwise there is one, but gofer requests none of its kind.
	Malformed bool
}

func (e *URLError) Error() string { return e.Reason }

// malformed is the error of a text that is no URL at all; unsupported is that of a URL that gofer does not request.
func malformed(reason string) error   { return &URLError{Reason: reason, Malformed: true} }
func unsupported(reason string) error { return &URLError{Reason: reason} }

// ParseURL reads and normalises the URL of a job. It is strict: what a browser repairs without a word (backslashes, tabs, line
// breaks, missing or extra slashes before the host) is an error, and dot segments stay. The error is a *URLError.
func ParseURL(text string) (URL, error) {
	if err := checkLength(text); err != nil {
		return URL{}, err
	}
	if strings.ContainsAny(text, "\\\t\r\n") {
		return URL{}, malformed("a backslash, a tab or a line break is in it: percent-encode it, or write a slash")
	}
	// A fragment is never sent (RFC 9110, 4.2.5).
	text, _, _ = strings.Cut(text, "#")
	scheme, rest := cutScheme(text)
	rest, found := strings.CutPrefix(rest, "//")
	if !found || !isWeb(scheme) {
		return URL{}, noWebURL(text)
	}
	authority, path, query := splitURL(rest)
	return newURL(scheme, authority, encodePath(path)+encodeQuery(query))
}

// Resolve reads a Location header of an answer to u, as browsers do: relative to u, without surrounding blanks, tabs and line
// breaks, with backslashes taken for slashes and without dot segments. The error is a *URLError.
func (u URL) Resolve(location string) (URL, error) {
	if err := checkLength(location); err != nil {
		return URL{}, err
	}
	// WHATWG strips these from a Location, too.
	location = strings.TrimFunc(location, func(r rune) bool { return r <= ' ' })
	location = strings.NewReplacer("\t", "", "\r", "", "\n", "").Replace(location)
	location, _, _ = strings.Cut(location, "#")
	scheme, rest := cutScheme(location)
	hierarchy, query := cutQuery(rest)
	hierarchy = strings.ReplaceAll(hierarchy, `\`, "/")
	next, err := u, error(nil)
	switch {
	case scheme != "" && !isWeb(scheme):
		return URL{}, unsupported("not an absolute http or https URL")
	// A scheme that differs from that of u makes the reference absolute, even without the slashes.
	case strings.HasPrefix(hierarchy, "//"), scheme != "" && scheme != u.scheme:
		authority, path, _ := splitURL(strings.TrimLeft(hierarchy, "/"))
		if empty, after, found := strings.Cut(authority, "@"); found && (empty == "" || empty == ":") {
			authority = after // no user information
		}
		next, err = newURL(cmp.Or(scheme, u.scheme), authority, encodePath(removeDots(path))+encodeQuery(query))
	default: // "http:page" is relative to an http URL
		next.target = u.resolveTarget(hierarchy, query)
	}
	if err == nil {
		// The resolved URL may be longer than both of its parts.
		err = checkLength(next.String())
	}
	if err != nil {
		return URL{}, err
	}
	return next, nil
}

// resolveTarget is the path and query of a relative reference. query is with its question mark, or empty without one.
func (u URL) resolveTarget(path, query string) string {
	base, baseQuery := cutQuery(u.target)
	switch {
	case path == "" && query == "":
		path, query = base, baseQuery
	case path == "":
		path = base
	case path[0] != '/':
		// Everything behind the last slash of the base is replaced (RFC 3986, 5.2.3).
		path = base[:strings.LastIndexByte(base, '/')+1] + path
	}
	return encodePath(removeDots(path)) + encodeQuery(query)
}

// newURL reads the authority, host and port, of a URL.
func newURL(scheme, authority, target string) (URL, error) {
	if strings.Contains(authority, "@") {
		return URL{}, unsupported("user information is not allowed in it: send an Authorization header")
	}
	// In brackets there are colons that begin no port.
	end := strings.LastIndexByte(authority, ']') + 1
	name, port, _ := strings.Cut(authority[end:], ":")
	host, class, err := parseHost(authority[:end] + name)
	if err != nil {
		return URL{}, err
	}
	if port, err = parsePort(scheme, port); err != nil {
		return URL{}, err
	}
	u := URL{scheme: scheme, host: host, port: port, target: target, class: class}
	// Both are computed once: attempts ask for them in every exchange.
	u.hostPort = net.JoinHostPort(host, cmp.Or(port, defaultPort(scheme)))
	u.authority = u.hostPort
	if port == "" {
		u.authority = u.hostPort[:strings.LastIndexByte(u.hostPort, ':')]
	}
	return u, nil
}

// parsePort returns the port in its shortest spelling, and nothing for the default port of the scheme.
func parsePort(scheme, text string) (string, error) {
	if strings.Trim(text, "0123456789") != "" {
		return "", malformed("the port is not a number")
	}
	// A port may have leading zeros; 0080 is the default port of http as well.
	number := strings.TrimLeft(text, "0")
	switch _, err := strconv.ParseUint(number, 10, 16); {
	case text == "" || number == defaultPort(scheme):
		return "", nil
	case number == "":
		return "", unsupported("the port is not between 1 and 65535")
	case err != nil:
		return "", malformed("the port is not between 1 and 65535")
	}
	return number, nil
}

// defaultPort is the port that a URL of the scheme leaves out.
func defaultPort(scheme string) string {
	if scheme == "https" {
		return "443"
	}
	return "80"
}

// checkLength refuses a URL longer than MaxURLBytes.
func checkLength(text string) error {
	if len(text) > MaxURLBytes {
		return unsupported(fmt.Sprintf("longer than %d bytes", MaxURLBytes))
	}
	return nil
}

// IsZero reports whether u is no URL.
func (u URL) IsZero() bool { return u.scheme == "" }

// Scheme is "http" or "https".
func (u URL) Scheme() string { return u.scheme }

// Hostname is the host: a name in lower-case ASCII, an IPv4 address of four decimals, or an IPv6 address without brackets. A
// name keeps its final dot.
func (u URL) Hostname() string { return u.host }

// HostClass says what kind of host the URL names, however the host was spelled.
func (u URL) HostClass() HostClass { return u.class }

// Port is the port in decimal, empty for the default port of the scheme.
func (u URL) Port() string { return u.port }

// HostPort is the address to connect to, always with a port.
func (u URL) HostPort() string { return u.hostPort }

// Authority is the value of the Host header.
func (u URL) Authority() string { return u.authority }

// RequestTarget is path and query as they stand in the request line of an origin server (RFC 9112, 3.2.1).
func (u URL) RequestTarget() string { return u.target }

// Path is the path, with its escapes.
func (u URL) Path() string {
	path, _ := cutQuery(u.target)
	return path
}

// String is the URL. ParseURL reads it back, unless it is too long or its query has a backslash from a redirect.
func (u URL) String() string {
	if u.IsZero() {
		return ""
	}
	return u.scheme + "://" + u.Authority() + u.target
}

// SameOrigin reports whether two URLs have scheme, host and port in common (RFC 6454). Ports are compared
// without their default, so an explicit 443 is the same origin.
func (u URL) SameOrigin(v URL) bool {
	return u.scheme == v.scheme && u.host == v.host && u.port == v.port
}

// isWeb reports whether gofer requests URLs of the scheme.
func isWeb(scheme string) bool { return scheme == "http" || scheme == "https" }

// cutScheme cuts off the scheme and its colon. The scheme is in lower case, and empty if there is none (RFC 3986, 3.1).
func cutScheme(text string) (scheme, rest string) {
	scheme, rest, found := strings.Cut(text, ":")
	// The bit makes the letter lower case.
	letter := func(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
	if !found || scheme == "" || !letter(scheme[0]) {
		return "", text
	}
	for i := range len(scheme) {
		if c := scheme[i]; !letter(c) && (c < '0' || c > '9') && c != '+' && c != '-' && c != '.' {
			return "", text
		}
	}
	return strings.ToLower(scheme), rest
}

// splitURL splits what follows the slashes of "http://". The query is with its question mark, or empty without one.
func splitURL(text string) (authority, path, query string) {
	text, query = cutQuery(text)
	if i := strings.IndexByte(text, '/'); i >= 0 {
		return text[:i], text[i:], query
	}
	return text, "", query
}

// cutQuery splits a text before its first question mark.
func cutQuery(text string) (before, query string) {
	if i := strings.IndexByte(text, '?'); i >= 0 {
		return text[:i], text[i:]
	}
	return text, ""
}

// removeDots resolves the dot segments of a path that is empty or begins with a slash. %2e is a dot too.
func removeDots(path string) string {
	if path == "" {
		return "/"
	}
	var kept []string
	segments := strings.Split(path[1:], "/")
	for i, segment := range segments {
		// An escaped dot counts, because servers decode it before they resolve the path.
		dots := strings.ReplaceAll(strings.ToLower(segment), "%2e", ".")
		if dots != "." && dots != ".." {
			kept = append(kept, segment)
			continue
		}
		if dots == ".." && len(kept) > 0 {
			kept = kept[:len(kept)-1]
		}
		// A dot segment at the end leaves the folder, so the path ends in a slash.
		if i == len(segments)-1 {
			kept = append(kept, "")
		}
	}
	return "/" + strings.Join(kept, "/")
}

// encodePath percent-encodes the path percent-encode set of the WHATWG URL standard and nothing else: existing escapes and a
// lone percent sign stay.
func encodePath(path string) string {
	return encode(cmp.Or(path, "/"), "\"#<>?^`{}")
}

// encodeQuery percent-encodes the query percent-encode set of http and https URLs. query is empty, or begins with its
// question mark.
func encodeQuery(query string) string {
	return encode(query, "\"#<>'")
}

// encode works byte by byte, so that a text that is no UTF-8 reaches the target as it came.
func encode(text, set string) string {
	odd := func(c byte) bool { return c <= ' ' || c >= 0x7f || strings.IndexByte(set, c) >= 0 }
	first := 0
	for first < len(text) && !odd(text[first]) {
		first++
	}
	// An allocation is saved for URLs that are normal already.
	if first == len(text) {
		return text // most of them
	}
	var out strings.Builder
	out.WriteString(text[:first])
	for i := first; i < len(text); i++ {
		if odd(text[i]) {
			fmt.Fprintf(&out, "%%%02X", text[i])
			continue
		}
		out.WriteByte(text[i])
	}
	return out.String()
}
