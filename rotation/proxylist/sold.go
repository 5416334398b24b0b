package proxylist

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/url"
	"strings"
	"unicode"

	"github.com/gofer-mq/gofer/jobs/text"
)

// SoldLine is one line of a list as sellers write them: a proxy, or why the line is refused.
type SoldLine struct {
	Number int // of the line, from 1 on
	Proxy  Proxy
	Err    error // never holds the text of the line, which may be a password
}

// ParseSold reads a list as SoldLines does, as a whole.
func ParseSold(r io.Reader, scheme string) (list []SoldLine, err error) {
	for line, err := range SoldLines(r, scheme) {
		if err != nil {
			return list, err
		}
		list = append(list, line)
	}
	return list, nil
}

// SoldLines reads a list as sellers of proxies write them, line by line. A line is a proxy line as ParseLine reads it, or one of
// these, to which options may be added:
//
//	host:port
//	host:port:user:password
//	user:password@host:port
//
// Scheme is that of lines without one. A line that cannot be read, or that names the proxy of an earlier line, has an error; the
// other lines stand. An error beside a line comes last: one of r, or that of a line longer than 64 KiB. The
// sequence can be used once, since it reads r.
func SoldLines(r io.Reader, scheme string) iter.Seq2[SoldLine, error] {
	return func(yield func(SoldLine, error) bool) {
		first := map[string]int{} // the line of each id
		for line, err := range text.Lines(r, maxLine) {
			if err != nil {
				yield(SoldLine{}, err)
				return
			}
			sold := SoldLine{Number: line.Number}
			sold.Proxy, sold.Err = parseSold(string(line.Text), scheme)
			if other, twice := first[sold.Proxy.ID]; sold.Err == nil && twice {
				sold.Err = fmt.Errorf("the same proxy as in line %d", other)
			}
			if sold.Err == nil {
				first[sold.Proxy.ID] = line.Number
			}
			if !yield(sold, nil) {
				return
			}
		}
	}
}

// parseSold reads one line. A line with a scheme is an ordinary one. Errors hold nothing of the line.
func parseSold(line, scheme string) (Proxy, error) {
	address, options := strings.TrimSpace(line), ""
	if end := strings.IndexFunc(address, unicode.IsSpace); end >= 0 {
		address, options = address[:end], address[end:]
	}
	// What stands before the :// of a password is no scheme.
	if before, _, found := strings.Cut(address, "://"); found && !strings.ContainsAny(before, ":@") {
		return ParseLine(line)
	}
	u, err := soldURL(address)
	if err != nil {
		return Proxy{}, err
	}
	u.Scheme = scheme
	return ParseLine(u.String() + " " + options)
}

// soldURL reads an address without a scheme. Reserved characters of user and password are not percent-encoded
// there. The error is errNotSold.
func soldURL(address string) (*url.URL, error) {
	// A dot in the first field makes it a host, before an @ in the password could be read as the end of user
	// information.
	if u := hostFirst(address); u != nil && strings.Contains(u.Hostname(), ".") {
		return u, nil // whatever the password holds
	}
	if at := strings.LastIndexByte(address, '@'); at >= 0 && checkHostPort(address[at+1:]) == nil {
		user, password, hasPassword := strings.Cut(address[:at], ":")
		u := &url.URL{Host: address[at+1:], User: url.User(user)}
		if hasPassword {
			u.User = url.UserPassword(user, password)
		}
		return u, nil
	}
	if checkHostPort(address) == nil {
		return &url.URL{Host: address}, nil
	}
	if u := hostFirst(address); u != nil {
		return u, nil
	}
	return nil, errNotSold
}

// hostFirst reads host:port:user:password, or returns nil. A password may hold a colon or an @. Host, port and user hold none,
// and an IPv6 address stands in brackets.
func hostFirst(address string) *url.URL {
	var host, rest string
	if end := strings.Index(address, "]:"); strings.HasPrefix(address, "[") && end > 0 {
		host, rest = address[:end+1], address[end+2:]
	} else {
		host, rest, _ = strings.Cut(address, ":")
	}
	parts := strings.SplitN(rest, ":", 3)
	// A number in the place of the host means that the user comes first.
	if len(parts) < 3 || !isNumber(parts[0]) || isNumber(host) || strings.Contains(host, "@") {
		return nil
	}
	return &url.URL{Host: host + ":" + parts[0], User: url.UserPassword(parts[1], parts[2])}
}

// isNumber reports whether a text is a number as a port is.
func isNumber(text string) bool { return text != "" && strings.Trim(text, "0123456789") == "" }

// errNotSold is the error of a line in none of the known forms. It holds nothing of the line.
var errNotSold = errors.New("neither a URL nor host:port, host:port:user:password or user:password@host:port")

// checkHostPort reports whether a text is a host and a port, which is a number.
func checkHostPort(s string) error {
	if host, port, err := net.SplitHostPort(s); err != nil || host == "" || !isNumber(port) {
		return errNotSold
	}
	return nil
}
