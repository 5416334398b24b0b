package bus_test

import (
	"context"
	"encoding/pem"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/stream"
)

// nobody is an address where nothing listens.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// resetter is the address of a server that breaks off every connection.
func resetter(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var serving sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
		}
	})
	return l.Addr().String()
}

// failure is the error of a connection that must fail.
func failure(t *testing.T, d bus.Dial) string {
	t.Helper()
	nc, err := bus.Connect(soon(t), d, quiet())
	if err == nil {
		nc.Close()
		t.Fatal("connected, want an error")
	}
	return err.Error()
}

func TestUserNameHidesNoCause(t *testing.T) {
	t.Parallel()
	for _, user := range []string{"n", "tcp:password-1", "refused:password-1"} {
		got := failure(t, bus.Dial{URL: "nats://" + strings.Replace(user, "n", "n:password-1", 1) + "@" + nobody(t)})
		if !strings.Contains(got, "connection refused") || strings.Contains(got, "password-1") {
			t.Errorf("user %s: got %q, want that the connection was refused", user, got)
		}
	}
}

// TestSecretThatIsPartOfTheCauseIsNotPrinted has secrets that are words of the error: a text with a gap would show them.
func TestSecretThatIsPartOfTheCauseIsNotPrinted(t *testing.T) {
	t.Parallel()
	addr := resetter(t)
	for name, d := range map[string]bus.Dial{
		"password in the URL":         {URL: "nats://u:read@" + addr},
		"escaped password in the URL": {URL: "nats://u:%72ead@" + addr},
		"token in the URL":            {URL: "nats://read@" + addr},
		"password":                    {URL: addr, User: "u", Password: "read"},
		"token":                       {URL: addr, Token: "read"},
	} {
		if got := failure(t, d); strings.Contains(got, "read") || !strings.Contains(got, "connection reset") {
			t.Errorf("%s: got %q, want the kind of the failure and not the secret", name, got)
		}
	}
}

func TestSpecialCharacterInPasswordIsExplained(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"nats://u:p,w@127.0.0.1:4222", "nats://u:12,34@127.0.0.1:4222", "nats://u:12#34@127.0.0.1:4222", "nats://u:12/34@127.0.0.1:4222",
		"nats://u:12?34@127.0.0.1:4222", "nats://u:p%w@127.0.0.1:4222", "nats://u:p w@127.0.0.1:4222",
		"nats://n1:4222,nats://u:p,w@n2:4222",
	} {
		err := bus.Dial{URL: url}.Check()
		isError(t, err, bus.ErrConfig)
		if !strings.Contains(err.Error(), "percent-encoded") || strings.Contains(err.Error(), "34") || strings.Contains(err.Error(), "w@") {
			t.Errorf("%s: got %q, want how a special character is written, and nothing of the password", url, err)
		}
	}
	for _, url := range []string{
		"nats://u:p%2Cw@127.0.0.1:4222", "u:p@127.0.0.1:4222", "nats://u:p@n1:4222,n2:4222", "n1:4222,u:p@n2:4222", "nats://u:p@w@n1:4222",
		"nats://u:p@n1:4222,u:p@n2:4222", "ws://n1:80/path",
	} {
		must(t, bus.Dial{URL: url}.Check())
	}
}

func TestHandshakeFirstHasItsSettingAndHint(t *testing.T) {
	t.Parallel()
	tlsServer := httptest.NewTLSServer(nil)
	t.Cleanup(tlsServer.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tlsServer.Certificate().Raw}), 0o600))
	start := func(first bool) string {
		return testenv.StartNATS(t, func(o *server.Options) {
			o.TLSConfig, o.TLSHandshakeFirst, o.TLSTimeout = tlsServer.TLS.Clone(), first, 3
			o.TLSConfig.NextProtos = nil
		}).URL()
	}
	first, usual := start(true), start(false)
	connect(t, bus.Dial{URL: first, CA: ca, TLSFirst: true})
	connect(t, bus.Dial{URL: usual, CA: ca})
	if got := failure(t, bus.Dial{URL: first, CA: ca}); !strings.Contains(got, "TLSFirst: to be set") {
		t.Errorf("without the setting: got %q, want it named", got)
	}
	if got := failure(t, bus.Dial{URL: usual, CA: ca, TLSFirst: true}); !strings.Contains(got, "TLSFirst: it is set") {
		t.Errorf("with a setting too many: got %q, want it named", got)
	}
}

func TestLostConnectionIsSaidInPlainWords(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	_, err := in.client.Submit(soon(t), job("a"))
	must(t, err)
	consumer, err := in.EnsureJobConsumer(soon(t), "default", false)
	must(t, err)
	msg, err := consumer.Next()
	must(t, err)
	lost := in.nc.StatusChanged(nats.RECONNECTING)
	in.server.Stop()
	<-lost
	for what, err := range map[string]error{
		"heartbeat": stream.New(in.Client).Heartbeat(soon(t), msg), "hand back": in.HandBack(soon(t), msg),
		"events": stream.New(in.Client).PublishRetry(soon(t), jobs.RetryEvent{Queue: "default", JobID: "a"}), "streams": in.EnsureQueue(timeout(t), "other", bus.Settings{}),
	} {
		if text := err.Error(); !strings.Contains(text, "NATS is not connected") || strings.Contains(text, "buffer") {
			t.Errorf("%s: got %q, want that NATS is not connected", what, text)
		}
	}
}

// timeout bounds what tries again and again.
func timeout(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}
