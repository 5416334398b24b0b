package bus

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"github.com/nats-io/nats.go"
)

// String is the servers without user information.
func (d Dial) String() string { return redact(d.URL) }

// Format prints String under every verb, so that no %+v and no %#v shows a secret.
func (d Dial) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, d.String()) }

// LogValue is String.
func (d Dial) LogValue() slog.Value { return slog.StringValue(d.String()) }

// MarshalText is String.
func (d Dial) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// redact removes everything before the last @ from each address. It does not parse, so it also works on addresses that
// are wrong.
func redact(servers string) string {
	var out []string
	for text := range strings.SplitSeq(servers, ",") {
		scheme, rest, ok := strings.Cut(strings.TrimSpace(text), "://")
		if !ok {
			scheme, rest = "nats", scheme
		}
		// Everything before the last @ goes, since a password may hold an @ as well.
		out = append(out, scheme+"://"+rest[strings.LastIndex(rest, "@")+1:])
	}
	return strings.Join(out, ",")
}

// withoutSecrets keeps the error's text unless a password or a token is in it. A short secret may occur by chance, and
// cutting it out would show it: then only the kind of the error is named.
func (d Dial) withoutSecrets(err error) error {
	if errors.Is(err, nats.ErrNoServers) {
		return syscall.ECONNREFUSED // nats.go turns it into ErrNoServers
	}
	// The text is searched for each secret in each spelling; one that is found makes the whole text unusable.
	for _, secret := range d.secrets() {
		if strings.Contains(err.Error(), secret) {
			return kindOfFailure(err)
		}
	}
	return errors.New(strings.TrimPrefix(err.Error(), "nats: "))
}

// secrets returns the passwords and tokens, as they are and in each spelling that a URL may have. A user without a
// password is a token.
func (d Dial) secrets() (out []string) {
	out = append(out, d.Password, d.Token)
	servers, _ := d.servers() // with schemes
	for server := range strings.SplitSeq(servers, ",") {
		u, err := url.Parse(server)
		if err != nil || u.User == nil {
			continue
		}
		secret, given := u.User.Password()
		if !given {
			secret = u.User.Username()
		}
		_, spelt, _ := strings.Cut(u.User.String(), ":")
		// A URL can spell the same password in several ways, and a library may repeat it in any of them.
		out = append(out, secret, spelt, url.QueryEscape(secret), url.PathEscape(secret))
	}
	return slices.DeleteFunc(out, func(secret string) bool { return secret == "" })
}

// kindOfFailure names an error of the network in words that are the same whatever the address and the user.
func kindOfFailure(err error) error {
	if code, ok := errors.AsType[syscall.Errno](err); ok {
		return code
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return errors.New("no such host")
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return errors.New("no answer in time")
	}
	return errors.New("the server did not take the connection")
}
