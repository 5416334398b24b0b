package proxylist

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/jobs/text"
)

// keys are what may follow the URL of a line.
const keys = "id, tags, region, weight, max_inflight, rate, gateway, session_ttl"

// ParseLine reads "URL [key=value …]" with the keys id, tags, region, weight, max_inflight, rate, gateway and session_ttl. Its
// error never repeats the line, which may hold a password.
func ParseLine(line string) (Proxy, error) {
	fields := strings.Fields(line)
	switch {
	case len(fields) == 0:
		return Proxy{}, errors.New("no proxy URL")
	// A list that was copied from a page may hold invisible characters, which no proxy would accept in a password.
	case text.Printable(strings.Join(fields, " ")) != strings.Join(fields, " "):
		return Proxy{}, errors.New("it has invisible characters, or is not UTF-8: type it again")
	}
	u, err := parseURL(fields[0])
	if err != nil {
		return Proxy{}, err
	}
	// A key id replaces it below.
	p := Proxy{URL: u, ID: defaultID(u)}
	seen := map[string]bool{}
	for _, field := range fields[1:] {
		key, value, found := strings.Cut(field, "=")
		if !found || seen[key] {
			return Proxy{}, errors.New("what follows the URL must be key=value, each key once: " + keys)
		}
		seen[key] = true
		if err := p.set(key, value); err != nil {
			return Proxy{}, err
		}
	}
	if err := p.checkGateway(); err != nil {
		return Proxy{}, err
	}
	return p, nil
}

// parseURL reads the URL of a proxy, with its host in lower case and its port without leading zeros, so that one proxy
// has one spelling. Errors hold nothing of the text.
func parseURL(text string) (*url.URL, error) {
	escaped, err := escapePlaceholders(text)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(escaped)
	// The parser's error repeats the text, and of user:secret@host it takes the user for the scheme. This text has no at sign,
	// because text.HideUserInfo would take what stands before it for a password.
	if err != nil || u.Opaque != "" || u.Scheme == "" {
		return nil, errors.New("not a proxy URL: write scheme://host:port, with user:password and an at sign before the host if it needs them, reserved characters percent-encoded")
	}
	u.Scheme = strings.ToLower(u.Scheme)
	switch {
	case !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme):
		return nil, errors.New("the scheme is none of http, https, socks5, socks5h")
	case u.Hostname() == "":
		return nil, errors.New("the URL has no host")
	// For some schemes Go reads the last of several colons as the one before the port.
	case strings.Contains(u.Hostname(), ":") && !isIPv6(u):
		return nil, errors.New("the host has a colon: write an IPv6 address in brackets")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("the URL has a path, a query or a fragment")
	}
	if u.Port() == "" {
		return nil, errors.New("the URL has no port: a forward proxy has no usual one")
	}
	n, err := strconv.Atoi(u.Port())
	if err != nil || n < 1 || n > 65535 {
		return nil, errors.New("the port is not between 1 and 65535")
	}
	port := strconv.Itoa(n) // 080 is the same port, and the same proxy
	return &url.URL{Scheme: u.Scheme, User: u.User, Host: net.JoinHostPort(strings.ToLower(u.Hostname()), port)}, nil
}

// isIPv6 reports whether the host of a URL is an IPv6 address in brackets.
func isIPv6(u *url.URL) bool {
	addr, err := netip.ParseAddr(u.Hostname())
	return err == nil && addr.Is6() && strings.HasPrefix(u.Host, "[")
}

// defaultID is "p" and 12 hex digits of SHA-256 over scheme, user (placeholders as they stand), host and port, so that a password
// may change without the proxy becoming another.
func defaultID(u *url.URL) string {
	sum := sha256.Sum256([]byte(u.Scheme + "\x00" + u.User.Username() + "\x00" + u.Hostname() + "\x00" + u.Port()))
	return "p" + hex.EncodeToString(sum[:6])
}

// set sets the field of a key. Errors hold nothing of the value.
func (p *Proxy) set(key, value string) (err error) {
	switch key {
	case "id":
		p.ID = value
		if !validName(value) {
			return errors.New("id does not match [A-Za-z0-9_-]{1,64}")
		}
		if value == "metrics" {
			return errors.New("id metrics is taken: /api/v1/circuit-breakers/metrics is the breakers' history, choose another")
		}
	case "tags":
		p.Tags = text.Items(value)
	case "region":
		p.Region = value
	case "weight":
		p.Weight, err = number(key, value, 1, 1000)
	case "max_inflight":
		p.MaxInflight, err = number(key, value, 1, 1000000)
	case "rate":
		p.Rate, err = text.Float(value)
		if err != nil || !(p.Rate >= 0.001 && p.Rate <= 1e6) {
			return errors.New("rate is not a number of attempts a second between 0.001 and 1000000")
		}
	case "gateway":
		if p.Gateway = value == "yes"; !p.Gateway {
			return errors.New("gateway is not yes: leave it out for a proxy with one exit")
		}
	case "session_ttl":
		p.SessionTTL, err = time.ParseDuration(value)
		if err != nil || p.SessionTTL <= 0 {
			return errors.New(`session_ttl is not a time above 0: write "10m" or "90s"`)
		}
	default:
		// Only a known key is named: the text may be part of a password with a blank in it.
		if near := text.Nearest(key, text.Items(keys), 2); near != "" {
			return errors.New("a key is none of " + keys + ", did you mean " + near + "?")
		}
		return errors.New("a key is none of " + keys)
	}
	return err
}

// number reads a whole number within bounds.
func number(key, value string, low, high int) (int, error) {
	n, err := text.Int(value)
	if err != nil || n < int64(low) || n > int64(high) {
		return 0, fmt.Errorf("%s is not a whole number between %d and %d", key, low, high)
	}
	return int(n), nil
}

// validName reports whether a text can be the id of a proxy. The rule is that of a token in subjects and paths.
func validName(name string) bool {
	return name != "" && len(name) <= 64 && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") == ""
}

// maxLine bounds a line of a proxies file, in bytes.
const maxLine = 64 << 10

// ParseList reads a proxy a line, as text.Lines finds them. The error names every broken line by its number, an error each
// (errors.Join), and never holds a line's text; the list is empty then. An empty list is no error.
func ParseList(r io.Reader) ([]Proxy, error) {
	var l list
	for line, err := range text.Lines(r, maxLine) {
		if err != nil {
			// An error of reading ends the list: lines after it are not known.
			l.errs = append(l.errs, err)
			break
		}
		l.add(fmt.Sprintf("line %d", line.Number), string(line.Text))
	}
	return l.all()
}

// ParseEntries is ParseList for lines that stand in an enumeration; its errors count the entries from 1. An entry
// is a line without its line end.
func ParseEntries(entries []string) ([]Proxy, error) {
	var l list
	for i, entry := range entries {
		l.add(fmt.Sprintf("entry %d", i+1), entry)
	}
	return l.all()
}

// list is what was read so far. The zero value is empty.
type list struct {
	proxies []Proxy
	place   map[string]string // where each id stands
	errs    []error
}

// add reads a line of the list. A line that names the proxy of an earlier one is an error, since one of the two would be
// ignored.
func (l *list) add(place, line string) {
	p, err := ParseLine(line)
	// A line with an error has no id, so it never counts as a duplicate.
	if first, twice := l.place[p.ID]; err == nil && twice {
		err = fmt.Errorf("the same proxy as in %s: give one of them another id", first)
	}
	if err != nil {
		l.errs = append(l.errs, fmt.Errorf("%s: %w", place, err))
		return
	}
	if l.place == nil {
		l.place = map[string]string{}
	}
	l.place[p.ID] = place
	l.proxies = append(l.proxies, p)
}

// all returns the proxies, or all errors if there is one. No half of a list is returned: its pool would look
// complete.
func (l *list) all() ([]Proxy, error) {
	if len(l.errs) > 0 {
		return nil, errors.Join(l.errs...)
	}
	return l.proxies, nil
}

// Join returns the proxies of a, followed by what b adds. A proxy whose ID is in both has the place of a and the settings of b.
// Neither list is changed.
func Join(a, b []Proxy) []Proxy {
	out := make([]Proxy, 0, len(a)+len(b))
	at := make(map[string]int, len(a)+len(b))
	for _, list := range [][]Proxy{a, b} {
		for _, p := range list {
			if i, known := at[p.ID]; known {
				out[i] = p
				continue
			}
			at[p.ID] = len(out)
			out = append(out, p)
		}
	}
	return out
}
