package admin_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/worker/admin"
)

// limitedServer serves a worker on a listener that holds most connections, until the test ends, and returns its address.
func limitedServer(t *testing.T, most int) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := admin.NewServer(newWorker(t, func(c *admin.Config) { c.MaxStreams = most }), nil)
	served := make(chan error, 1)
	go func() { served <- server.Serve(admin.Limit(l, most)) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("server ended with %v", err)
		}
	})
	return l.Addr().String()
}

// dial connects until the test ends.
func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// isClosed waits for the end of a connection; one that stays open for a second is not closed.
func isClosed(t *testing.T, conn net.Conn) bool {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err := conn.Read(make([]byte, 1))
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

// ask sends a request and returns the reader of its response.
func ask(t *testing.T, conn net.Conn, path string) *bufio.Reader {
	t.Helper()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
	return bufio.NewReader(conn)
}

func TestIdleConnectionsGiveWayToNewOnes(t *testing.T) {
	const most = 4
	addr := limitedServer(t, most)
	used := dial(t, addr) // it becomes idle later than the first of the others
	var idle []net.Conn
	for range most {
		idle = append(idle, dial(t, addr))
	}
	if !isClosed(t, used) {
		t.Error("the connection that had been idle for longest was not closed")
	}
	response, err := http.ReadResponse(ask(t, idle[0], "/livez"), nil)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("request on a connection within the bound: got %v, %v", response, err)
	}
	_, _ = io.Copy(io.Discard, response.Body)
	dial(t, addr)
	if !isClosed(t, idle[1]) {
		t.Error("a connection that had no request outlived one that had")
	}
	if isClosed(t, idle[0]) {
		t.Error("the connection that had a request last was closed")
	}
}

func TestARequestIsNotClosedForANewConnection(t *testing.T) {
	const most = 2
	addr := limitedServer(t, most)
	var streams []*bufio.Reader
	for range most {
		stream := ask(t, dial(t, addr), "/api/v1/live")
		if _, err := stream.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		streams = append(streams, stream)
	}
	if !isClosed(t, dial(t, addr)) {
		t.Error("a connection beyond the bound was kept")
	}
	for i, stream := range streams {
		for range 20 { // the next event
			if _, err := stream.ReadString('\n'); err != nil {
				t.Fatalf("stream %d ended: %v", i, err)
			}
		}
	}
}

func TestAClosedConnectionMakesRoom(t *testing.T) {
	addr := limitedServer(t, 1)
	for i := range 10 {
		conn := dial(t, addr)
		response, err := http.ReadResponse(ask(t, conn, "/livez"), nil)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("connection %d: got %v, %v", i, response, err)
		}
		_ = conn.Close()
	}
}

func TestLiveStreamsAreBounded(t *testing.T) {
	server := httptest.NewServer(newWorker(t, func(c *admin.Config) { c.MaxStreams = 2 }))
	defer server.Close()
	for i, want := range []int{http.StatusOK, http.StatusOK, http.StatusServiceUnavailable} {
		response := fetch(t, http.DefaultClient, server.URL+"/api/v1/live")
		defer func() { _ = response.Body.Close() }()
		if response.StatusCode != want {
			t.Errorf("stream %d: got %d, want %d", i, response.StatusCode, want)
		}
	}
}

// full is a listener of a process that has no descriptor left.
type full struct {
	net.Listener
	asked atomic.Int32
}

func (f *full) Accept() (net.Conn, error) {
	f.asked.Add(1)
	return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
}
func (*full) Addr() net.Addr { return &net.TCPAddr{} }
func (*full) Close() error   { return nil }

func TestAcceptWithoutDescriptorsIsTriedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &full{}
		server := admin.NewServer(newWorker(t, nil), nil)
		served := make(chan error, 1)
		go func() { served <- server.Serve(admin.Limit(l, 8)) }()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if asked := l.asked.Load(); asked < 5 || asked > 30 {
			t.Errorf("tries in 10 s: got %d, want about 18", asked)
		}
		_ = server.Close()
		time.Sleep(2 * time.Second)
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("server ended with %v", err)
		}
	})
}
