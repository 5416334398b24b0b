package http1_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/worker/fetch/http1"
)

// canned is a connection on which a text comes, in pieces, and then its end. It keeps what is sent.
type canned struct {
	net.Conn // nil: nothing else is called
	in       io.Reader
	out      bytes.Buffer
	piece    int   // the most that one read gives; 0 sets no bound
	sendErr  error // of every write
	open     bool  // after the text nothing comes, until the deadline
}

func (c *canned) Read(p []byte) (int, error) {
	if c.piece > 0 {
		p = p[:min(len(p), c.piece)]
	}
	n, err := c.in.Read(p)
	if err == io.EOF && c.open {
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

func (c *canned) Write(p []byte) (int, error) {
	if c.sendErr != nil {
		return 0, c.sendErr
	}
	return c.out.Write(p)
}

func (c *canned) SetDeadline(time.Time) error      { return nil }
func (c *canned) SetReadDeadline(time.Time) error  { return nil }
func (c *canned) SetWriteDeadline(time.Time) error { return nil }

// talk is a connection on which texts come, each the answer to one exchange.
func talk(text string) (*http1.Conn, *canned) {
	c := &canned{in: strings.NewReader(text)}
	return http1.New(c, c, new(http1.Buffers)), c
}

func get() *http1.Request {
	return &http1.Request{Method: "GET", Target: "/", Host: "a.test"}
}

// read is a response as a whole.
type read struct {
	*http1.Response
	body string
	err  error // of Do, or of the body
}

// exchange does one exchange to its end.
func exchange(c *http1.Conn, req *http1.Request) read {
	resp, err := c.Do(req, http1.Watch{})
	if err != nil {
		return read{Response: resp, err: err}
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	return read{resp, string(body), err}
}

// fetch is the response to a GET whose answer is a text.
func fetch(text string) read {
	c, _ := talk(text)
	return exchange(c, get())
}

// sound is a response in which everything is as it should be, but for some more lines of its head.
func sound(more string) string {
	return "HTTP/1.1 200 OK\r\n" + more + "Content-Length: 2\r\n\r\nok"
}

func wantRead(t *testing.T, name string, got read, status int, body string, reusable bool) {
	t.Helper()
	if got.err != nil || got.StatusCode != status || got.body != body || got.Reusable() != reusable {
		if got.err != nil {
			t.Errorf("%s: %v, want %d %q", name, got.err, status, body)
			return
		}
		t.Errorf("%s: %d %q, reusable %v; want %d %q, %v", name, got.StatusCode, got.body, got.Reusable(), status, body, reusable)
	}
}

func TestAHeadHasABoundedNumberOfFields(t *testing.T) {
	if got := fetch(sound(strings.Repeat("a:\r\n", 5000))); !errors.Is(got.err, http1.ErrHeadTooLarge) {
		t.Errorf("one field too many: %v, want %v", got.err, http1.ErrHeadTooLarge)
	}
}

// The time is that of the test itself: a cost that grew with the square of the size would not end.
func TestALargeHeadCostsItsSize(t *testing.T) {
	for name, lines := range map[string]string{
		"one name": strings.Repeat("a:\r\n", 4999), "folds": "a: b\r\n" + strings.Repeat(" \r\n", 80<<10), "dropped": strings.Repeat("a\n", 120<<10),
	} {
		bytes := testing.AllocsPerRun(1, func() { wantRead(t, name, fetch(sound(lines)), http.StatusOK, "ok", name == "one name") })
		if bytes > 500 {
			t.Errorf("%s: %v allocations", name, bytes)
		}
	}
}
