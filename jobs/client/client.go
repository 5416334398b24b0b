package client

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// DefaultURL is the server of Open if Config names none. A worker without GOFER_NATS_URL starts its embedded server
// there.
const DefaultURL = "nats://127.0.0.1:4222"

// Config configures a Client. The zero value means DefaultURL without credentials, and the prefix "gofer".
type Config struct {
	// URL is one NATS server or more, comma separated; it may hold user information. Empty means DefaultURL.
	URL string
	// Prefix is the first token of the installation's subjects; empty means "gofer".
	Prefix string
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
	// Domain is that of JetStream, such as the hub's for a client on a leaf node; empty means the server's own.
	Domain string
	// Name is the connection's name at the server, and the worker of results of Cancel; empty means "gofer client".
	Name string
	// Log receives the events of the connection; nil logs nothing.
	Log *slog.Logger
}

// Client speaks to one gofer installation. Make one with Open. Any number of goroutines may share it. Every method of the
// zero Client returns an error.
type Client struct {
	bus *bus.Client
	own *nats.Conn // closed by Close; nil if the connection belongs to the caller of New
}

// Open connects. It makes one attempt for each server, of at most 5 s, and ends with ctx; a connection that breaks
// later is restored, however long that takes. It creates no streams: a worker does. The caller closes the client.
//
// Errors: ErrUnreachable, ErrCredentials, ErrPermission if the user may not subscribe to its inbox, or a *FieldError
// that names the wrong field of Config. None holds a secret.
func Open(ctx context.Context, c Config) (*Client, error) {
	// Prefix and domain are checked before anything is sent, since they become parts of subjects.
	names, err := jobs.NewNames(c.Prefix)
	if err != nil {
		return nil, &FieldError{Field: "Prefix", Err: err}
	}
	if strings.ContainsFunc(c.Domain, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(".*>", r) }) {
		return nil, &FieldError{Field: "Domain", Err: errors.New("not a single token of a subject, such as hub")}
	}
	nc, err := bus.Connect(ctx, bus.Dial{
		URL: cmp.Or(c.URL, DefaultURL), Creds: c.Creds, Nkey: c.Nkey, User: c.User, Password: c.Password, Token: c.Token,
		CA: c.CA, Cert: c.Cert, Key: c.Key, TLSFirst: c.TLSFirst, InboxPrefix: c.InboxPrefix, Name: cmp.Or(c.Name, defaultName),
	}, c.Log)
	if err != nil {
		return nil, err
	}
	b, err := bus.NewWithDomain(nc, names, c.Domain)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return &Client{bus: b, own: nc}, nil
}

const defaultName = "gofer client"

// New makes a client on an existing connection. Closing the client leaves the connection to its owner.
func New(b *bus.Client) *Client { return &Client{bus: b} }

// Close closes the connection of Open. Waiting calls return an error. Close of a closed or zero Client does nothing.
func (c *Client) Close() {
	// A nil client is allowed, so that Close can be deferred before the error of Open is checked.
	if c != nil && c.own != nil {
		c.own.Close()
	}
}

var errNotOpen = errors.New("the client is not open: make one with client.Open")

// ready returns errNotOpen for the zero client and for nil, so that every method reports the mistake instead of
// panicking.
func (c *Client) ready() error {
	if c == nil || c.bus == nil {
		return errNotOpen
	}
	return nil
}

// Key names a job: by queue and id together.
type Key = bus.Key

// FieldError is an error in a field of Config, or in two fields whose names a comma separates. Err holds no secret.
type FieldError = bus.FieldError

// The errors on which a caller may decide. They come wrapped: compare with errors.Is.
var (
	// ErrUnreachable: no NATS server answers, the connection is broken now, or it is closed for good.
	ErrUnreachable = bus.ErrUnreachable
	// ErrCredentials: the server refuses the user, the password, the token or the key.
	ErrCredentials error = bus.ErrCredentials
	// ErrPermission: this NATS user may not do that.
	ErrPermission error = bus.ErrPermission
	// ErrNotSetUp: the streams are not there. A worker creates them.
	ErrNotSetUp = bus.ErrNotSetUp
	// ErrNoLeader: too few servers of a cluster run for a stream, or for JetStream as a whole, to have a leader.
	ErrNoLeader = bus.ErrNoLeader
	// ErrQueued: the id is queued or running, so a second job of that name is refused.
	ErrQueued = errors.New("the id is queued or running")
	// ErrQueueFull: the job stream is full and takes no jobs now.
	ErrQueueFull = bus.ErrQueueFull
	// ErrFinished: a result of that id is kept, so another job of that name would store nothing.
	ErrFinished = errors.New("the id is finished and its result is still kept")
	// ErrNotFound: nothing of that name is there.
	ErrNotFound = bus.ErrNotFound
	// ErrReplayed: that dead letter was replayed before.
	ErrReplayed = errors.New("the dead letter was replayed already")
	// ErrTooLarge: the message is larger than the server takes.
	ErrTooLarge = bus.ErrTooLarge
	// ErrNoBody: the job has no response body, or it could not be stored with the result.
	ErrNoBody = errors.New("the job has no response body, or it could not be stored with the result")
	// ErrDigest: a body from the object store is not the one that was stored.
	ErrDigest = errors.New("the body does not match its digest")
)
