// Package natsserver runs a NATS server with JetStream in this process, for a first try and for a fleet of one machine. Other
// processes of the machine reach it at its loopback address. It is a package of its own so that a program that embeds a worker
// does not link a server unless it wants one. Close ends the server.
package natsserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// The reasons on which a caller may decide. They come wrapped in an *Error.
var (
	// ErrAddrTaken means that another process listens on Config.Addr, most likely another worker's server.
	ErrAddrTaken = errors.New("another process listens on the address")
	// ErrDirInUse means that another server holds Config.Dir.
	ErrDirInUse = errors.New("another server uses the folder")
	// ErrNotStarted means that the server did not accept connections within 10 s.
	ErrNotStarted = errors.New("the server did not start in time")
)

// Config says where the server listens and where it keeps its data. Addr, Dir and Log are required.
type Config struct {
	// Addr is a host and a port. Port 0 takes a free one.
	Addr string
	// Dir is the folder of the streams. Start creates it.
	Dir string
	// MaxConns bounds the connections that clients hold at once; zero means the bound of nats-server, 65,536.
	MaxConns int
	Log      *slog.Logger
}

// Error is an error that another value of a field of Config cures. Field is "Addr" or "Dir", or empty if either may be to
// blame.
type Error struct {
	Field string
	Err   error
}

// Error is the field and the reason.
func (e *Error) Error() string {
	if e.Field == "" {
		return e.Err.Error()
	}
	return e.Field + ": " + e.Err.Error()
}

// Unwrap is the reason.
func (e *Error) Unwrap() error { return e.Err }

// Server is a running server. Clients connect to URL. The caller ends it with Close.
type Server struct {
	srv  *server.Server
	lock *os.File // held until the server is closed
}

// Start starts a server and returns once it accepts connections. Its error is an *Error if another value of a field cures it.
func Start(ctx context.Context, c Config) (*Server, error) {
	host, port, err := split(c.Addr)
	if err != nil {
		return nil, &Error{"Addr", err}
	}
	if err := CheckAddr(ctx, c.Addr); err != nil {
		return nil, err
	}
	// Locked before the server reads the folder.
	lock, err := lockDir(c.Dir)
	if err != nil {
		return nil, &Error{"Dir", err}
	}
	srv, err := server.NewServer(&server.Options{
		ServerName: "gofer-embedded", Host: host, Port: port, JetStream: true, StoreDir: c.Dir, NoSigs: true,
		NoSystemAccount: false, DontListen: false,
		MaxConn: c.MaxConns, PingInterval: 10 * time.Second, // idle sockets neither use up descriptors nor stay for minutes
	})
	if err != nil {
		_ = lock.Close()
		return nil, &Error{"Dir", err}
	}
	s := &Server{srv: srv, lock: lock}
	srv.SetLoggerV2(serverLog{c.Log}, false, false, false)
	srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		s.Close()
		return nil, &Error{"", ErrNotStarted}
	}
	return s, nil
}

// split reads an address for nats-server, whose port numbers have a value of their own for a free port.
func split(addr string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	if port, err = strconv.Atoi(text); err != nil {
		return "", 0, fmt.Errorf("port %q: not a number", text)
	}
	if port == 0 {
		port = server.RANDOM_PORT // to nats-server, zero means 4222
	}
	return host, port, nil
}

// lockDir keeps other servers out of dir: two that write to one folder destroy each other's streams. The lock is the
// process's, so it is gone when that is killed; the file stays.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	_ = f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, ErrDirInUse
	}
	return nil, fmt.Errorf("lock it: %w", err)
}

// CheckAddr returns an *Error if nobody can listen on addr now. The address may be taken between this call and
// another one.
func CheckAddr(ctx context.Context, addr string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	switch {
	case err == nil:
		return l.Close()
	case errors.Is(err, syscall.EADDRINUSE):
		return &Error{"Addr", ErrAddrTaken}
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err // without the address, which the caller knows
	}
	return &Error{"Addr", err}
}

// URL is where clients connect.
func (s *Server) URL() string { return s.srv.ClientURL() }

// Close writes what is left to disk, waits for it, and lets others have the folder.
func (s *Server) Close() {
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
	_ = s.lock.Close()
}

// serverLog passes on what the server complains about. Its notices are of no use to who runs a worker.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Noticef(string, ...any) {}
func (l serverLog) Debugf(string, ...any)  {}
func (l serverLog) Tracef(string, ...any)  {}

func (l serverLog) Warnf(format string, v ...any) {
	l.log.Warn("embedded NATS server warns", "text", fmt.Sprintf(format, v...))
}

func (l serverLog) Errorf(format string, v ...any) {
	l.log.Error("embedded NATS server reports an error", "text", fmt.Sprintf(format, v...))
}

// Fatalf is what the server calls before it ends a process of its own; here the process goes on without a server.
func (l serverLog) Fatalf(format string, v ...any) { l.Errorf(format, v...) }
