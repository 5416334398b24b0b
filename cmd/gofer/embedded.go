package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// embedded is a JetStream server in this process, for a first try and for a fleet of one machine. Other workers and
// the other verbs reach it at its loopback address.
type embedded struct{ srv *server.Server }

// startEmbedded starts it with its streams in dir. A taken port or a folder that cannot be written is the owner's to mend
// and comes as a *configError that says how.
func startEmbedded(ctx context.Context, addr, dir string, log *slog.Logger) (*embedded, error) {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if err := free(ctx, addr); err != nil {
		return nil, &configError{reasons: []string{fmt.Sprintf(
			"GOFER_EMBEDDED_ADDR: %s is taken: set GOFER_NATS_URL=nats://%s to join the server there, or choose another address", addr, addr)}}
	}
	port, _ := strconv.Atoi(portText)
	if port == 0 {
		port = server.RANDOM_PORT
	}
	srv, err := server.NewServer(&server.Options{
		ServerName: "gofer-embedded", Host: host, Port: port, JetStream: true, StoreDir: dir, NoSigs: true,
		NoSystemAccount: false, DontListen: false,
	})
	if err != nil {
		return nil, &configError{reasons: []string{fmt.Sprintf("GOFER_DATA_DIR: the embedded server cannot use %s: %v", dir, err)}}
	}
	srv.SetLoggerV2(serverLog{log}, false, false, false)
	srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		srv.Shutdown()
		return nil, &configError{reasons: []string{fmt.Sprintf("GOFER_DATA_DIR, GOFER_EMBEDDED_ADDR: the embedded server did not start on %s with its data in %s", addr, dir)}}
	}
	return &embedded{srv: srv}, nil
}

func (e *embedded) url() string { return e.srv.ClientURL() }

// close writes what is left to disk and waits for it.
func (e *embedded) close() {
	e.srv.Shutdown()
	e.srv.WaitForShutdown()
}

// free reports whether addr can be listened on.
func free(ctx context.Context, addr string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
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
