package http1_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/worker/fetch/http1"
)

func TestAnOddHeadIsReadAndCostsTheConnection(t *testing.T) {
	for name, c := range map[string]struct {
		text  string
		field string // that is read
		value string
	}{
		"a line that is no field":          {sound("Just some words\r\nX: y\r\n"), "X", "y"},
		"a blank before the colon":         {sound("X-Powered-By : PHP\r\n"), "X-Powered-By", "PHP"},
		"a blank within the name":          {sound("X B: a\r\n"), "X B", "a"},
		"no name":                          {sound(": a\r\nX: y\r\n"), "X", "y"},
		"a name that is no token":          {sound("X(1): y\r\n"), "X(1)", "y"},
		"an escape in a value":             {sound("X: a\x1b[31mred\r\n"), "X", "a\x1b[31mred"},
		"a folded value":                   {sound("X: a\r\n \tb \r\n c\r\n"), "X", "a b c"},
		"a fold before any field":          {sound(" a: b\r\nX: y\r\n"), "X", "y"},
		"a CR within a line":               {sound("X: a\rContent-Length: 1\r\n"), "X", "a\rContent-Length: 1"},
		"a line that ends with LF":         {sound("X: y\n"), "X", "y"},
		"a length with a sign":             {"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: +1\r\n\r\nok", "X", "y"},
		"a length with words":              {"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 1 byte\r\n\r\nok", "X", "y"},
		"a length beyond all numbers":      {"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 9223372036854775808\r\n\r\nok", "X", "y"},
		"equal lengths in one line":        {"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 2, 2\r\n\r\nok", "Content-Length", "2"},
		"equal lengths":                    {sound("Content-Length: 2\r\nX: y\r\n"), "Content-Length", "2"},
		"a length with a blank":            {"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", "Content-Length", "2"},
		"identity":                         {sound("Transfer-Encoding: identity\r\nX: y\r\n"), "X", "y"},
		"identity, to the end":             {"HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: identity\r\n\r\nok", "X", "y"},
		"no coding":                        {sound("Transfer-Encoding:\r\nX: y\r\n"), "X", "y"},
		"a coding that is none":            {sound("Transfer-Encoding: None\r\nX: y\r\n"), "X", "y"},
		"chunks twice":                     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n2\r\nok\r\n0\r\n\r\n", "X", "y"},
		"chunks twice in one line":         {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, Chunked\r\nX: y\r\n\r\n2\r\nok\r\n0\r\n\r\n", "X", "y"},
		"chunks beside identity":           {"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity, chunked\r\nX: y\r\n\r\n2\r\nok\r\n0\r\n\r\n", "X", "y"},
		"chunks and a length":              {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n2\r\nok\r\n0\r\n\r\n", "X", "y"},
		"chunks in HTTP/1.0":               {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\nok", "X", "y"},
		"chunks that end with LF":          {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n2\r\nok\r\n0\r\n\n", "X", "y"},
		"chunks with lines of LF":          {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n2\nok\n0\n\n", "X", "y"},
		"chunks with blanks":               {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n2 ;a=b\r\nok\r\n0  \r\n\r\n", "X", "y"},
		"chunks with a trailer":            {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n", "X", "y"},
		"chunks with words for a trailer":  {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n2\r\nok\r\n0\r\nsome words\r\n\r\n", "X", "y"},
		"a CR in a chunk's extension":      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n2;a\r=b\r\nok\r\n0\r\n\r\n", "X", "y"},
		"lengths that differ, and chunks":  {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n2\r\nok\r\n0\r\n\r\n", "X", "y"},
		"small letters":                    {"http/1.1 200 OK\r\nX: y\r\nContent-Length: 2\r\n\r\nok", "X", "y"},
		"HTTP/2 in text":                   {"HTTP/2 200\r\nX: y\r\nContent-Length: 2\r\n\r\nok", "X", "y"},
		"http/2 in text":                   {"http/2 200 OK\r\nX: y\r\nContent-Length: 2\r\n\r\nok", "X", "y"},
		"a reason without a blank":         {"HTTP/1.1 200OK\r\nX: y\r\nContent-Length: 2\r\n\r\nok", "X", "y"},
		"a reason behind a tab":            {"HTTP/1.1 200\tOK\r\nX: y\r\nContent-Length: 2\r\n\r\nok", "X", "y"},
		"a reason behind a dash":           {"HTTP/1.1 200-OK\r\nX: y\r\nContent-Length: 2\r\n\r\nok", "X", "y"},
		"bytes behind it":                  {sound("X: y\r\n") + "H", "X", "y"},
		"the server closes":                {sound("X: y\r\nConnection: keep-alive, close\r\n"), "X", "y"},
		"HTTP/1.0":                         {"HTTP/1.0 200 OK\r\nX: y\r\nContent-Length: 2\r\n\r\nok", "X", "y"},
		"HTTP/2.0 in text":                 {"HTTP/2.0 200 OK\r\nX: y\r\nContent-Length: 2\r\n\r\nok", "X", "y"},
		"no length":                        {"HTTP/1.1 200 OK\r\nX: y\r\n\r\nok", "X", "y"},
		"an informational with a length":   {"HTTP/1.1 103 Early\r\nContent-Length: 2\r\n\r\n" + sound("X: y\r\n"), "X", "y"},
		"an informational with some words": {"HTTP/1.1 103 Early\r\nsome words\r\n\r\n" + sound("X: y\r\n"), "X", "y"},
	} {
		got := fetch(c.text)
		wantRead(t, name, got, http.StatusOK, "ok", false)
		if got.err == nil && got.Header.Get(c.field) != c.value && got.Header[c.field] == nil {
			t.Errorf("%s: header %q, want %s: %q", name, got.Header, c.field, c.value)
		}
	}
}

func TestAResponseWithoutABodyThatAnnouncesOneIsReadAndCostsTheConnection(t *testing.T) {
	for _, c := range []struct{ method, status string }{{"GET", "204 No Content"}, {"GET", "304 Not Modified"}, {"HEAD", "200 OK"}} {
		for _, field := range []string{
			"Content-Length: 6", "Transfer-Encoding: chunked", "Content-Length: -1", "Content-Length: none", "Content-Length: 1, 2", "Transfer-Encoding: gzip, chunked",
		} {
			conn, _ := talk("HTTP/1.1 " + c.status + "\r\n" + field + "\r\n\r\n")
			got := exchange(conn, &http1.Request{Method: c.method, Target: "/", Host: "a.test"})
			if got.err != nil || got.body != "" || got.Reusable() {
				t.Errorf("%s, %s, %s: %q (%v), reusable %v", c.method, c.status, field, got.body, got.err, got.Reusable())
			}
		}
	}
}

func TestTheHeadOfAResponseInAnUnknownCodingIsRead(t *testing.T) {
	conn, _ := talk("HTTP/1.1 302 Found\r\nLocation: /next\r\nTransfer-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok")
	resp, err := conn.Do(get(), http1.Watch{})
	if err != nil || resp.Header.Get("Location") != "/next" {
		t.Fatalf("%v, want the head", err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if !errors.Is(err, http1.ErrCoding) || len(body) > 0 || resp.Reusable() || resp.ContentLength >= 0 {
		t.Errorf("%q (%v), reusable %v, length %d", body, err, resp.Reusable(), resp.ContentLength)
	}
}

func TestASoundResponseKeepsItsConnection(t *testing.T) {
	for name, c := range map[string]struct {
		text   string
		status int
		body   string
	}{
		"a length":              {sound(""), 200, "ok"},
		"no reason":             {"HTTP/1.1 404\r\nContent-Length: 2\r\n\r\nok", 404, "ok"},
		"an empty body":         {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, ""},
		"a long extension":      {chunk("2;" + strings.Repeat("x", 15<<10)), 200, "ok"},
		"chunks":                {"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\no\r\n1;a=b\r\nk\r\n0\r\n\r\n", 200, "ok"},
		"204":                   {"HTTP/1.1 204 No Content\r\n\r\n", 204, ""},
		"204 with a length":     {"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 204, ""},
		"304":                   {"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", 304, ""},
		"HTTP/1.0 that is kept": {"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok", 200, "ok"},
		"after informationals":  {strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 100) + sound(""), 200, "ok"},
		"status 999":            {"HTTP/1.1 999 Denied\r\nContent-Length: 2\r\n\r\nok", 999, "ok"},
	} {
		for piece := range 4 {
			conn, wire := talk(c.text)
			wire.piece = piece
			wantRead(t, name, exchange(conn, get()), c.status, c.body, true)
		}
	}
}

// chunk is a body of one chunk whose size has any text.
func chunk(size string) string {
	return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + size + "\r\nok\r\n0\r\n\r\n"
}

func TestWhatIsNoResponseHasWords(t *testing.T) {
	long := strings.Repeat("x", 300<<10)
	for text, want := range map[string]error{
		"ICY 200 OK\r\n\r\n": http1.ErrNotHTTP, "\r\nHTTP/1.1 200 OK\r\n\r\n": http1.ErrNotHTTP, "HTTP/1.1\r\n\r\n": http1.ErrNotHTTP, "HTTP/x 200 OK\r\n\r\n": http1.ErrNotHTTP, "hello": http1.ErrNotHTTP,
		"\x15\x03\x01\x00\x02\x02\x28": http1.ErrTLS, "\x16\x03\x03": http1.ErrTLS,
		"HTTP/1.1 20 OK\r\n\r\n": http1.ErrStatus, "HTTP/1.1 2000\r\n\r\n": http1.ErrStatus, "HTTP/1.1 2\r\n\r\n": http1.ErrStatus, "HTTP/1.1 \r\n\r\n": http1.ErrStatus, "HTTP/3 200 OK\r\n\r\n": http1.ErrNotHTTP,
		"http/1.x 200 OK\r\n\r\n": http1.ErrNotHTTP, "HTTP/1.1 +20 OK\r\n\r\n": http1.ErrStatus,
		sound("X: a\x00\r\n"): http1.ErrHead, sound("X: " + long + "\r\n"): http1.ErrHeadTooLarge, sound(strings.Repeat("X: y\r\n", 50<<10)): http1.ErrHeadTooLarge,
		strings.Repeat("HTTP/1.1 102 Wait\r\nX: "+long[:50<<10]+"\r\n\r\n", 6) + sound(""): http1.ErrHeadTooLarge,
		strings.Repeat("HTTP/1.1 102 Wait\r\n\r\n", 20<<10) + sound(""):                    http1.ErrHeadTooLarge,
		sound("Content-Length: 3\r\n"):                                                     http1.ErrLengths, "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok": http1.ErrLengths,
		"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nok": http1.ErrLength, "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok": http1.ErrLength, "HTTP/1.1 200 OK\r\nContent-Length: x2\r\n\r\nok": http1.ErrLength,
		sound("Transfer-Encoding: gzip, chunked\r\n"): http1.ErrCoding, sound("Transfer-Encoding: \"chunked\"\r\n"): http1.ErrCoding,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nok\r\n": http1.ErrChunks, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\noks0\r\n\r\n": http1.ErrChunks,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n": http1.ErrChunks,
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n":                     http1.ErrNoAnswer, "HTTP/1.1 099 Odd\r\nContent-Length: 2\r\n\r\nok": http1.ErrNoAnswer,
		chunk("0x2"): http1.ErrChunks, chunk("+2"): http1.ErrChunks, chunk("0_2"): http1.ErrChunks, chunk("2 2"): http1.ErrChunks, chunk(""): http1.ErrChunks, chunk("00000000000000002"): http1.ErrChunks,
		chunk("2\r;x"): http1.ErrChunks, chunk("2;" + long): http1.ErrChunks, chunk("2;" + long[:4000] + "\r\nok\r\n1;" + long[:4000] + "\r\nx\r\n1;" + long[:4000] + "\r\nx\r\n1;" + long[:4000] + "\r\nx\r\n2;" + long[:4000]): http1.ErrChunks,
		"": io.EOF, "H": io.ErrUnexpectedEOF, "HTTP/1.1 200 OK\r\nContent-Le": io.ErrUnexpectedEOF, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok": io.ErrUnexpectedEOF,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n": io.ErrUnexpectedEOF, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n": io.ErrUnexpectedEOF,
	} {
		if got := fetch(text); !errors.Is(got.err, want) || got.Response != nil && got.Reusable() {
			t.Errorf("%.80q: %v, want %v", text, got.err, want)
		}
	}
	if got := fetch("HTTP/1.1 101 Switching Protocols\r\n\r\n"); got.Response == nil || got.StatusCode != 101 {
		t.Error("the status that is no answer is not told")
	}
}

func TestFieldsKeepTheirOrderAndSpelling(t *testing.T) {
	got := fetch("HTTP/1.1 200 OK\r\nset-cookie: b\r\nX-One: 1\r\nSET-COOKIE:  a \r\nTransfer-Encoding: chunked\r\nx y: z\r\n\r\n0\r\n\r\n")
	want := []http1.Field{{Name: "set-cookie", Value: "b"}, {Name: "X-One", Value: "1"}, {Name: "SET-COOKIE", Value: "a"}, {Name: "Transfer-Encoding", Value: "chunked"}, {Name: "x y", Value: "z"}}
	if got.err != nil || !slices.Equal(got.Fields, want) {
		t.Errorf("fields %q (%v), want %q", got.Fields, got.err, want)
	}
	if cookies := got.Header["Set-Cookie"]; !slices.Equal(cookies, []string{"b", "a"}) || got.Header["X-One"][0] != "1" {
		t.Errorf("header %q", got.Header)
	}
}

func TestARequestGoesOutAsItIs(t *testing.T) {
	for _, c := range []struct {
		req  http1.Request
		want string
	}{
		{http1.Request{Method: "GET", Target: "//a%2Fb|c%?'", Host: "a.test"}, "GET //a%2Fb|c%?' HTTP/1.1\r\nHost: a.test\r\n\r\n"},
		{http1.Request{Method: "POST", Target: "/", Host: "a.test"}, "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n"},
		{http1.Request{Method: "DELETE", Target: "/", Host: "a.test", Body: []byte("x")}, "DELETE / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\n\r\nx"},
		{
			http1.Request{Method: "purge", Target: "http://a.test/", Host: "a.test", Header: map[string][]string{"x-z": {"2", "1"}, "User-Agent": {"u"}, "X-A": {""}, "aCCept": {"*/*"}}},
			"purge http://a.test/ HTTP/1.1\r\nHost: a.test\r\nUser-Agent: u\r\nX-A: \r\naCCept: */*\r\nx-z: 2\r\nx-z: 1\r\n\r\n",
		},
	} {
		conn, wire := talk(sound(""))
		exchange(conn, &c.req)
		if got := wire.out.String(); got != c.want {
			t.Errorf("sent %q, want %q", got, c.want)
		}
	}
}

// What was sent is as much a reason as what came: a server may take a body for the next request, or send one where there is none.
func TestOnlyARequestThatSurelyEndedKeepsTheConnection(t *testing.T) {
	for method, want := range map[string][2]bool{ // without and with a body
		"GET": {true, false}, "HEAD": {false, false}, "DELETE": {true, false}, "OPTIONS": {true, false}, "FIND": {true, false}, "POST": {true, true}, "PUT": {true, true}, "PATCH": {true, true},
	} {
		for i, body := range []string{"", "x"} {
			conn, _ := talk(sound("")[:len(sound(""))-2*btoi(method == "HEAD")])
			if got := exchange(conn, &http1.Request{Method: method, Target: "/", Host: "a.test", Body: []byte(body)}); got.err != nil || got.Reusable() != want[i] {
				t.Errorf("%s with %q: reusable %v (%v), want %v", method, body, got.Reusable(), got.err, want[i])
			}
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestABodyThatIsNotReadCostsTheConnection(t *testing.T) {
	conn, _ := talk(sound(""))
	resp, err := conn.Do(get(), http1.Watch{})
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.Reusable() {
		t.Errorf("reusable %v (%v)", resp.Reusable(), err)
	}
	if n, err := resp.Body.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("a closed body gives %d bytes (%v)", n, err)
	}
}

func TestAKeptConnectionThatEndedIsTold(t *testing.T) {
	for _, odd := range []struct {
		text string
		send error
		want bool
	}{{"", nil, true}, {"", syscall.EPIPE, true}, {"H", nil, false}, {"ICY", nil, false}} {
		conn, wire := talk(sound(""))
		if first := exchange(conn, get()); !first.Reusable() {
			t.Fatal("the first exchange is not sound")
		}
		wire.in, wire.sendErr = strings.NewReader(odd.text), odd.send
		if got := exchange(conn, get()); errors.Is(got.err, http1.ErrEnded) != odd.want {
			t.Errorf("%q: %v, want that it ended before an answer: %v", odd.text, got.err, odd.want)
		}
	}
	if got := fetch(""); errors.Is(got.err, http1.ErrEnded) {
		t.Error("a new connection is taken for one that was kept")
	}
	conn, wire := talk(sound(""))
	exchange(conn, get())
	if wire.open = true; errors.Is(exchange(conn, get()).err, http1.ErrEnded) {
		t.Error("a server that is silent until the deadline is taken for one that hung up")
	}
}

func TestAnAnswerIsReadThoughTheRequestWasNotTaken(t *testing.T) {
	conn, wire := talk(sound(""))
	wire.sendErr = syscall.EPIPE
	wantRead(t, "an answer beside a broken pipe", exchange(conn, get()), http.StatusOK, "ok", false)
	conn, wire = talk("")
	wire.sendErr = syscall.EPIPE
	if got := exchange(conn, get()); !errors.Is(got.err, syscall.EPIPE) {
		t.Errorf("%v, want why the request was not sent", got.err)
	}
}

func TestALargeBodyIsSentWhileTheAnswerIsAwaited(t *testing.T) {
	body := make([]byte, 32<<20) // more than the buffers of a socket take
	for name, whole := range map[string]bool{"the server reads all of it": true, "the server reads none of it": false} {
		conn, server := pair(t)
		go func() {
			if req, err := http.ReadRequest(bufio.NewReader(server)); err == nil && whole {
				_, _ = io.Copy(io.Discard, req.Body)
			}
			_, _ = io.WriteString(server, sound(""))
		}()
		sent := make(chan struct{}, 1)
		resp, err := conn.Do(&http1.Request{Method: "PUT", Target: "/", Host: "a.test", Body: body}, http1.Watch{Sent: func() { sent <- struct{}{} }})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if whole {
			<-sent
		}
		data, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || string(data) != "ok" || resp.Reusable() != whole {
			t.Errorf("%s: %q (%v), reusable %v, want %v", name, data, err, resp.Reusable(), whole)
		}
	}
}

func TestAContextEndsWhatItsConnectionDoes(t *testing.T) {
	for name, c := range map[string]struct {
		cancelled bool
		body      int
	}{"the deadline": {}, "cancelled": {cancelled: true}, "while a body is sent": {cancelled: true, body: 1 << 20}} {
		synctest.Test(t, func(t *testing.T) {
			client, server := net.Pipe()
			defer func() { _ = client.Close(); _ = server.Close() }()
			if c.body == 0 {
				go func() { _, _ = io.Copy(io.Discard, server) }()
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if c.cancelled {
				time.AfterFunc(time.Second, cancel)
			}
			conn := http1.New(client, client, new(http1.Buffers))
			release := http1.Bind(ctx, client)
			_, err := conn.Do(&http1.Request{Method: "PUT", Target: "/", Host: "a.test", Body: make([]byte, c.body)}, http1.Watch{})
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %v, want that time ran out", name, err)
			}
			<-ctx.Done()
			synctest.Wait()
			if release() {
				t.Errorf("%s: the connection is still of use", name)
			}
		})
	}
}

func TestAConnectionOutlivesTheContextOfAnExchange(t *testing.T) {
	conn, server := pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	release := http1.Bind(ctx, conn)
	_, _ = io.WriteString(server, sound(""))
	wantRead(t, "within it", exchange(conn, get()), http.StatusOK, "ok", true)
	if !release() {
		t.Error("a context that has not ended does not let go of the connection")
	}
	cancel()
	defer http1.Bind(t.Context(), conn)()
	_, _ = io.WriteString(server, sound(""))
	wantRead(t, "after it", exchange(conn, get()), http.StatusOK, "ok", true)
}

func TestTheFirstByteIsTold(t *testing.T) {
	var told []string
	watch := http1.Watch{Sent: func() { told = append(told, "sent") }, FirstByte: func() { told = append(told, "first byte") }}
	conn, _ := talk("H")
	if _, err := conn.Do(get(), watch); err == nil || fmt.Sprint(told) != "[sent first byte]" {
		t.Errorf("%v (%v), want sent, and then the first byte", told, err)
	}
}

func TestWhatComesBehindATunnelBelongsToIt(t *testing.T) {
	conn, _ := talk("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nearly")
	resp, err := conn.Do(&http1.Request{Method: "CONNECT", Target: "a.test:443", Host: "a.test:443"}, http1.Watch{})
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn.Detach()); err != nil || string(got) != "early" {
		t.Errorf("through the tunnel came %q (%v)", got, err)
	}
	conn, _ = talk("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
	if resp, err := conn.Do(&http1.Request{Method: "CONNECT", Target: "a.test:443", Host: "a.test:443"}, http1.Watch{}); err != nil || resp.StatusCode != 103 {
		t.Errorf("an informational answer to CONNECT is passed over (%v)", err)
	}
}
