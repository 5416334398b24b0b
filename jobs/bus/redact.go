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

// redact removes everything before the last @ from each address, because a password may hold an @. It parses nothing, so it
// works on wrong addresses, too.
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

// withoutSecrets returns an error with the text of err, or only with its kind if the text holds a password or a token. To
// cut out a short secret, which may occur by chance, would show it.
func (d Dial) withoutSecrets(err error) error {
	if errors.Is(err, nats.ErrNoServers) {
		return syscall.ECONNREFUSED // nats.go turns it into ErrNoServers
	}
	// The text is searched for each secret in each spelling; one that is found makes the whole text unusable.
	for _, secret := range d.secrets() {
		if strings.Contains(err.Error(), secret) {
			return networkError(err)
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
		// A library may repeat a password in any spelling that a URL allows.
		out = append(out, secret, spelt, url.QueryEscape(secret), url.PathEscape(secret))
	}
	return slices.DeleteFunc(out, func(secret string) bool { return secret == "" })
}

// networkError returns the kind of an error, in a text that depends on neither address nor user.
func networkError(err error) error {
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
