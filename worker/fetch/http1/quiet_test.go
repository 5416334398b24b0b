package http1_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/fetch/http1"
)

// pair is a Conn and its server's end, over a real socket.
func pair(t *testing.T) (conn *http1.Conn, server net.Conn) {
	t.Helper()
	client, server := sockets(t)
	return http1.New(client, client, new(http1.Buffers)), server
}

func sockets(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return client, server
}

// arrived waits until the other end of a loopback connection has what was written to it.
func arrived(t *testing.T, conn *http1.Conn, want bool) {
	t.Helper()
	for deadline := time.Now().Add(testenv.Patience); conn.IsQuiet() != want; {
		if time.Now().After(deadline) {
			t.Fatalf("the connection is still quiet: %v", !want)
		}
	}
}

func TestLateBytesEndAnIdleConnection(t *testing.T) {
	for name, late := range map[string]func(server net.Conn){
		"a byte":  func(server net.Conn) { _, _ = server.Write([]byte("H")) },
		"the end": func(server net.Conn) { _ = server.Close() },
	} {
		conn, server := pair(t)
		if _, err := io.WriteString(server, sound("")); err != nil {
			t.Fatal(err)
		}
		if got := exchange(conn, get()); got.err != nil || !got.Reusable() || !conn.IsQuiet() {
			t.Fatalf("%s: after a sound exchange: %v", name, got.err)
		}
		_ = conn.SetDeadline(time.Unix(1, 0)) // that of an attempt that ended long ago
		if !conn.IsQuiet() {
			t.Errorf("%s: a connection on which nothing came is not quiet", name)
		}
		late(server)
		arrived(t, conn, false)
	}
}

func TestALateTicketOfTLSIsNothing(t *testing.T) {
	client, server := sockets(t)
	// Or the ticket would come with the first flight.
	config := &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}, MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert}
	held := &holding{Conn: server}
	served := make(chan error, 1)
	secured := tls.Server(held, config)
	go func() { served <- secured.Handshake() }()
	trusted := tls.Client(client, &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1)}) //nolint:gosec // who it is does not matter here
	if err := errors.Join(trusted.Handshake(), <-served); err != nil {
		t.Fatal(err)
	}
	conn := http1.New(trusted, client, new(http1.Buffers))
	if !conn.IsQuiet() {
		t.Fatal("a new connection is not quiet")
	}
	if held.release(); len(held.kept) == 0 {
		t.Fatal("there was no ticket")
	}
	for range 3 {
		if !conn.IsQuiet() {
			t.Fatal("a ticket is taken for an answer")
		}
	}
	if _, err := io.WriteString(secured, sound("")+"late"); err != nil {
		t.Fatal(err)
	}
	defer http1.Bind(t.Context(), client)()
	if got := exchange(conn, get()); got.err != nil || got.body != "ok" || got.Reusable() {
		t.Errorf("after the ticket: %q (%v), reusable with bytes behind it", got.body, got.err)
	}
	arrived(t, conn, true) // what was read with the response is gone
	_, _ = io.WriteString(secured, "late")
	arrived(t, conn, false)
}

// holding keeps back what is written after the end of the client's part of a handshake: the tickets.
type holding struct {
	net.Conn
	wrote, hold bool
	kept        [][]byte
}

// Read notes that the client has answered the first flight of the server.
func (h *holding) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	h.hold = h.wrote
	return n, err
}

// Write keeps what is held back.
func (h *holding) Write(p []byte) (int, error) {
	h.wrote = true
	if h.hold {
		h.kept = append(h.kept, slices.Clone(p))
		return len(p), nil
	}
	return h.Conn.Write(p)
}

func (h *holding) release() {
	for _, p := range h.kept {
		_, _ = h.Conn.Write(p)
	}
	h.hold, h.wrote = false, false
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
