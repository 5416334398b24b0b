package bus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs/text"
)

// Dial configures a connection. Only URL is required. Printing a Dial shows no secret.
type Dial struct {
	// URL has one server or more, comma separated, each perhaps with user information.
	URL string
	// Creds is the path of a credentials file. Nkey is a seed, or the path of a file that holds one.
	Creds, Nkey           string
	User, Password, Token string
	// CA, Cert and Key are paths of PEM files: the authority that the server's certificate is checked against, and a
	// client certificate with its key.
	CA, Cert, Key string
	// TLSFirst makes the TLS handshake before the server's greeting, as a server with handshake_first expects it.
	TLSFirst bool
	// InboxPrefix separates the replies to this user from those to others; empty means _INBOX.
	InboxPrefix string
	// Name is the connection's name at the server.
	Name string
	// Reconnected is called when a connection that broke is back, and Failed when NATS reports an error outside a call, with
	// its kind: "permission", "slow_consumer" or "other". Nil is allowed.
	Reconnected func()
	Failed      func(kind string)
	// Closed is called once if the connection ends for good and not by its owner's Close: after some errors of the
	// server nats.go never reconnects, such as a message above a limit that was lowered. The reason wraps
	// ErrUnreachable and holds no secret. Refused credentials do not end a connection. Nil is allowed.
	Closed func(reason error)
	// Patient makes Connect repeat and log its attempts until a server answers or ctx ends. Without it, Connect makes one
	// attempt. Waiting is called with the reason after each failed attempt; nil is allowed.
	Patient bool
	Waiting func(reason error)
}

// Connect connects and stays connected: a connection that breaks is restored, however long that takes, even while the
// server refuses the user. Only the cases of Dial.Closed end it. A publish on a broken connection fails at once: a
// buffered ack would look done and arrive when another worker has the job. Events of the connection are logged, unless
// log is nil; neither an error nor a log line holds a secret. The caller closes the connection.
//
// Errors: ErrUnreachable, ErrCredentials, ErrPermission if the user may not subscribe to its inbox, or one that names
// the wrong field and wraps ErrConfig.
func Connect(ctx context.Context, d Dial, log *slog.Logger) (*nats.Conn, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	// The URLs are checked before nats.go sees them, because its errors repeat them.
	if _, err := d.servers(); err != nil {
		return nil, err
	}
	opts, err := d.options(log)
	if err != nil {
		return nil, err
	}
	// Reasons may alternate, or differ by a port each time, so a new one is not logged at once either.
	var loggedAt time.Time
	var loggedReason string
	for {
		nc, err := d.connectOnce(ctx, opts)
		// Only a server that cannot be reached may come back by itself.
		if err == nil || !d.Patient || !errors.Is(err, ErrUnreachable) {
			return nc, err
		}
		if d.Waiting != nil {
			d.Waiting(err)
		}
		if why := err.Error(); why != loggedReason && time.Since(loggedAt) > 30*time.Second {
			log.Warn("NATS cannot be reached, waiting for it", "url", d.String(), "error", why)
			loggedAt, loggedReason = time.Now(), why
		}
		select {
		// The reason of the last failed attempt says more than the end of ctx.
		case <-ctx.Done():
			return nil, err
		case <-time.After(time.Second):
		}
	}
}

// dial connects once, and gives each server limit to answer. The error holds no secret. It wraps ErrCredentials, ErrUnreachable
// or ErrPermission.
func (d Dial) dial(limit time.Duration, opts []nats.Option) (*nats.Conn, error) {
	servers, err := d.servers()
	if err != nil {
		return nil, err
	}
	nc, err := nats.Connect(servers, append(opts, nats.Timeout(limit))...)
	switch {
	case err == nil:
		return checkInbox(nc, limit)
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked),
		errors.Is(err, nats.ErrAccountAuthExpired):
		return nil, ErrCredentials
	}
	if hint := d.tlsFirstHint(err); hint != nil {
		return nil, fmt.Errorf("%w at %s: %w (%w)", ErrUnreachable, redact(servers), d.withoutSecrets(err), hint)
	}
	return nil, fmt.Errorf("%w at %s: %w", ErrUnreachable, redact(servers), d.withoutSecrets(err))
}

// tlsFirstHint names TLSFirst if an error may come from the order of greeting and TLS handshake, which client and server must
// agree on; it returns nil for other errors.
func (d Dial) tlsFirstHint(err error) error {
	netErr, _ := errors.AsType[net.Error](err)
	switch {
	// A client that begins with TLS receives the greeting of the server in its place. A client that does not waits for the
	// greeting while the server waits for the handshake.
	case d.TLSFirst && (netErr != nil && netErr.Timeout() || strings.Contains(err.Error(), "first record does not look like a TLS handshake")):
		return &FieldError{"TLSFirst", errors.New("it is set, and the server may have no handshake_first")}
	case !d.TLSFirst && (errors.Is(err, io.EOF) || errors.Is(err, nats.ErrTimeout) || netErr != nil && netErr.Timeout()):
		return &FieldError{"TLSFirst", errors.New("to be set if the server has handshake_first in its tls block")}
	}
	return nil
}

// checkInbox refuses a connection whose user may not subscribe to its inbox. Each request would time out, and a job that
// was stored would look refused.
func checkInbox(nc *nats.Conn, limit time.Duration) (*nats.Conn, error) {
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return nc, nil // the connection broke already, and nats.go restores it
	}
	defer func() { _ = sub.Unsubscribe() }()
	_ = nc.FlushTimeout(limit) // a refusal of the subscription arrives before the answer to the flush
	if last := nc.LastError(); errors.Is(last, nats.ErrPermissionViolation) && strings.Contains(last.Error(), inbox) {
		nc.Close()
		own := &FieldError{"InboxPrefix", errors.New("it has to be the user's own")}
		return nil, fmt.Errorf("%w subscribe to %q, where answers arrive: %w", ErrPermission, inbox, own)
	}
	return nc, nil
}

// Check returns all errors of d that can be found without a server, joined. Each wraps ErrConfig and a *FieldError.
func (d Dial) Check() error {
	_, err := d.servers()
	_, credentialsErr := d.credentials()
	return errors.Join(err, credentialsErr)
}

// servers returns the URLs, comma separated, each with a scheme. They are parsed here because the error of nats.go would
// repeat them, passwords included.
func (d Dial) servers() (string, error) {
	var out []string
	anyScheme, anyUser := false, false // whether an earlier URL has one
	webSockets := 0
	// A comma in a password splits a URL in two. The second half has no scheme and an @, which is how it is
	// recognised.
	for _, server := range text.Items(d.URL) {
		if strings.Contains(server, "://") {
			anyScheme, anyUser = true, anyUser || strings.Contains(server, "@")
		} else if server = "nats://" + server; anyScheme && !anyUser && strings.Contains(server, "@") {
			return "", errURL // a comma in a password splits its URL: the second half has an @ and no scheme
		}
		u, err := url.Parse(server)
		// An @ behind the host shows that a character of the password, such as /, ended the host.
		if err != nil || u.Hostname() == "" || strings.Contains(u.Path+u.RawQuery+u.Fragment, "@") {
			return "", errURL
		}
		if err := checkServer(u); err != nil {
			return "", err
		}
		if isWebSocket(u) {
			webSockets++
		}
		out = append(out, server)
	}
	switch {
	case len(out) == 0:
		return "", errURL
	case webSockets != 0 && webSockets != len(out):
		return "", wrongField("URL", errors.New("ws or wss URLs stand beside others: nats.go takes one kind or the other"))
	}
	return strings.Join(out, ","), nil
}

// checkServer refuses a URL that can never work but that nats.go would retry for ever: nats.go takes any scheme for
// nats.
func checkServer(u *url.URL) error {
	if !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
		return wrongField("URL", errors.New("a scheme is none of nats, tls, ws, wss"))
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return wrongField("URL", errors.New("a port is not between 1 and 65535"))
		}
	}
	return nil
}

func isWebSocket(u *url.URL) bool { return u.Scheme == "ws" || u.Scheme == "wss" }

// errURL describes a list of URLs. A more exact error could repeat a part of a password.
var errURL = wrongField("URL", errors.New("not a list of URLs such as nats://127.0.0.1:4222; in a user name or password write commas and "+
	"other special characters percent-encoded, such as %2C for a comma and %23 for #, or keep both apart from the URL"))

// options returns the options of nats.go for a connection.
func (d Dial) options(log *slog.Logger) ([]nats.Option, error) {
	opts := []nats.Option{
		// No bound on reconnecting, and no buffer: see Connect. The jitter keeps a fleet from reconnecting all at
		// once. A connection counts as dead after two pings without an answer, about 9 s.
		nats.Name(d.Name), nats.MaxReconnects(-1), nats.ReconnectBufSize(-1), nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, time.Second), nats.PingInterval(3 * time.Second), nats.MaxPingsOutstanding(2),
		// A server that takes no bytes blocks every call. Its connection is closed after the same time.
		nats.FlusherTimeout(9 * time.Second),
		// A server whose users are being changed refuses for a while; that must not end a worker.
		nats.IgnoreAuthErrorAbort(),
		nats.NoCallbacksAfterClientClose(), // the owner that closes the connection needs no call
	}
	if d.InboxPrefix != "" {
		opts = append(opts, nats.CustomInboxPrefix(d.InboxPrefix))
	}
	if d.TLSFirst {
		opts = append(opts, nats.Secure(), nats.TLSHandshakeFirst())
	}
	credentials, err := d.credentials()
	if err != nil {
		return nil, err
	}
	opts = append(append(opts, credentials...), d.handlers(log)...)
	return append(opts, d.closedHandler(log)), nil
}

// credentials returns the options that authenticate the user, and all mistakes in the fields, joined.
func (d Dial) credentials() (opts []nats.Option, err error) {
	// All mistakes are gathered, so that one run names them all.
	wrong := d.wrongFiles()
	if d.Password != "" && d.User == "" {
		wrong = append(wrong, wrongField("Password", errors.New("given without a user name")))
	}
	if d.Token != "" && d.User != "" {
		wrong = append(wrong, wrongField("Token", errors.New("given beside a user name, keep one")))
	}
	if d.Creds != "" {
		opts = append(opts, nats.UserCredentials(d.Creds))
	}
	if d.User != "" {
		opts = append(opts, nats.UserInfo(d.User, d.Password))
	}
	if d.Token != "" {
		opts = append(opts, nats.Token(d.Token))
	}
	if d.CA != "" {
		opts = append(opts, nats.RootCAs(d.CA))
	}
	if d.Cert != "" {
		opts = append(opts, nats.ClientCert(d.Cert, d.Key))
	}
	// The key is checked here: nats.go would read it during the handshake, and report a wrong key as refused
	// credentials.
	if d.Nkey != "" {
		key, err := nkey(d.Nkey)
		if err != nil {
			wrong = append(wrong, err)
		}
		opts = append(opts, key)
	}
	return opts, errors.Join(wrong...)
}
