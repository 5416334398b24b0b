package main

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

// embedded is a JetStream server in this process, for a first try and for a fleet of one machine. Other workers and
// the other verbs reach it at its loopback address.
type embedded struct {
	srv  *server.Server
	lock *os.File // held until it is closed
}

// startEmbedded starts it with its streams in dir. A taken port, and a folder that is in use or cannot be written, are the
// owner's to mend and come as a *configError that says how.
func startEmbedded(ctx context.Context, addr, dir string, log *slog.Logger) (*embedded, error) {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if err := free(ctx, addr); err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	port, _ := strconv.Atoi(portText)
	if port == 0 {
		port = server.RANDOM_PORT
	}
	srv, err := server.NewServer(&server.Options{
		ServerName: "gofer-embedded", Host: host, Port: port, JetStream: true, StoreDir: dir, NoSigs: true,
		NoSystemAccount: false, DontListen: false,
		MaxConn: connectionLimit(), PingInterval: 10 * time.Second, // idle sockets neither use up descriptors nor stay for minutes
	})
	if err != nil {
		_ = lock.Close()
		return nil, badDir(dir, err)
	}
	e := &embedded{srv: srv, lock: lock}
	srv.SetLoggerV2(serverLog{log}, false, false, false)
	srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		e.close()
		return nil, &configError{reasons: []string{fmt.Sprintf("GOFER_DATA_DIR, GOFER_EMBEDDED_ADDR: the embedded server did not start on %s with its data in %s", addr, dir)}}
	}
	return e, nil
}

// lockDir keeps other workers out of dir: two servers that write to one folder destroy each other's streams. The lock is the
// process's, so it is gone when that is killed; the file stays.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, badDir(dir, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, badDir(dir, err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	_ = f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, &configError{reasons: []string{fmt.Sprintf(
			"GOFER_DATA_DIR: %s is in use by another worker: set GOFER_NATS_URL to join that one's server, or choose another folder", dir)}}
	}
	return nil, badDir(dir, fmt.Errorf("lock it: %w", err))
}

func badDir(dir string, err error) error {
	return &configError{reasons: []string{fmt.Sprintf("GOFER_DATA_DIR: the embedded server cannot use %s: %v", dir, err)}}
}

func (e *embedded) url() string { return e.srv.ClientURL() }

// close writes what is left to disk, waits for it, and lets others have the folder.
func (e *embedded) close() {
	e.srv.Shutdown()
	e.srv.WaitForShutdown()
	_ = e.lock.Close()
}

// free refuses an address of the embedded server that cannot be listened on.
func free(ctx context.Context, addr string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	switch {
	case err == nil:
		return l.Close()
	case errors.Is(err, syscall.EADDRINUSE):
		return &configError{reasons: []string{fmt.Sprintf("GOFER_EMBEDDED_ADDR: %s is taken: set GOFER_NATS_URL=nats://%s to join the server there, "+
			"or choose another address and another GOFER_DATA_DIR", addr, addr)}}
	}
	return &configError{reasons: []string{fmt.Sprintf("GOFER_EMBEDDED_ADDR: cannot listen on %s (%v): choose another address, such as 127.0.0.1:0", addr, errors.Unwrap(err))}}
}

// serverLog passes on what the embedded server complains about. Its notices are of no use to who runs a worker.
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

// Fatalf is what the server calls before it ends a process of its own; here the worker goes on and is not ready.
func (l serverLog) Fatalf(format string, v ...any) { l.Errorf(format, v...) }
