package http1_test

import (
	"bufio"
	"bytes"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/worker/fetch/http1"
)

func seeds() []string {
	return []string{
		sound(""), sound("X-Powered-By : PHP\r\n"), sound("Just some words\r\n"), sound("X: a\r\n b\r\n"), sound("X-Esc: a\x1b[31mred\r\n"), sound("A: b\rC: d\r\n"), sound("X\x00: y\r\n"),
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n2;x=y\r\nok\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 200 OK\nTransfer-Encoding: identity\n\nuntil the end", "HTTP/1.0 200\r\nConnection: keep-alive\r\nContent-Length: 2, 2\r\n\r\nokHTTP",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + sound(""), "HTTP/1.1 101 Switch\r\n\r\n", "HTTP/1.1 204 No\r\nContent-Length: 4\r\n\r\nbody", "\x15\x03\x01\x00\x02\x02\x28",
		sound("Content-Length: 3\r\n"), sound("Content-Length: +2\r\n"), "HTTP/1.1 200 OK\r\nPragma: no-cache\r\nTrailer: X\r\nConnection: close\r\n\r\n",
	}
}

// strict is a head without anything odd in it: RFC 9112 without what it tells recipients to tolerate.
var strict = regexp.MustCompile("^HTTP/1\\.[01] +[0-9]{3}( [^\r\n\x00]*)?\r\n([!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\x00]*\r\n)*\r\n")

// FuzzResponse holds the reading of any bytes against net/http: what that accepts is read in the same way, and a connection
// that may be used again carried one message whose end nobody can dispute.
func FuzzResponse(f *testing.F) {
	for _, seed := range seeds() {
		for _, method := range []string{"GET", "HEAD", "POST"} {
			f.Add(method, seed, 3)
			f.Add(method, seed+seed, 0)
		}
	}
	f.Fuzz(func(t *testing.T, method, text string, piece int) {
		if method != "HEAD" && method != "POST" {
			method = "GET"
		}
		conn, wire := talk(text)
		wire.piece = max(piece, 0)
		got := exchange(conn, &http1.Request{Method: method, Target: "/", Host: "a.test"})
		late, _ := io.ReadAll(wire.in) // what has not been read is found before the next request
		reusable := got.err == nil && got.Reusable() && len(late) == 0
		if want, body, rest, err := reference(method, text); err == nil {
			compare(t, text, got, want, body)
			if reusable && len(rest) > 0 {
				t.Fatalf("%q: reusable with %q behind it", text, rest)
			}
		} else if reusable {
			t.Fatalf("%q: reusable, and net/http says %v", text, err)
		}
		if reusable {
			checkStrict(t, method, text, got)
		}
	})
}

// reference is what net/http reads: the final response, its body, and what lies behind it.
func reference(method, text string) (resp *http.Response, body, rest []byte, err error) {
	in := bufio.NewReader(strings.NewReader(text))
	for range 11 {
		if resp, err = http.ReadResponse(in, &http.Request{Method: method}); err != nil {
			return nil, nil, nil, err
		}
		if resp.StatusCode/100 != 1 || resp.StatusCode == http.StatusSwitchingProtocols {
			break
		}
	}
	if body, err = io.ReadAll(resp.Body); err != nil {
		return nil, nil, nil, err
	}
	rest, err = io.ReadAll(in)
	return resp, body, rest, err
}

func compare(t *testing.T, text string, got read, want *http.Response, body []byte) {
	t.Helper()
	head := text[:len(text)-len(body)] // or more, if the body is in chunks
	switch {
	case want.StatusCode < 200:
		return // no answer
	case strings.Contains(head, " :") || strings.Contains(head, "\t:"):
		return // net/http takes the blank for a part of the name
	case got.err != nil:
		t.Fatalf("%q: %v, and net/http reads %d %q", text, got.err, want.StatusCode, body)
	case got.StatusCode != want.StatusCode || got.body != string(body):
		t.Fatalf("%q: %d %q, and net/http reads %d %q", text, got.StatusCode, got.body, want.StatusCode, body)
	}
	for _, name := range []string{"Connection", "Trailer"} {
		got.Header.Del(name)
		want.Header.Del(name)
	}
	if got.Header.Get("Cache-Control") == "" && want.Header.Get("Pragma") == "no-cache" {
		want.Header.Del("Cache-Control") // net/http added it
	}
	same := func(a, b []string) bool {
		return slices.EqualFunc(a, b, func(a, b string) bool { return strings.TrimRight(a, " \t") == strings.TrimRight(b, " \t") })
	}
	if !maps.EqualFunc(got.Header, want.Header, same) {
		t.Fatalf("%q: header %q, and net/http reads %q", text, got.Header, want.Header)
	}
}

// checkStrict reads a message whose connection may be used again by other, narrower rules.
func checkStrict(t *testing.T, method, text string, got read) {
	t.Helper()
	rest, final := text, ""
	for final == "" || strings.HasPrefix(strings.TrimLeft(final[8:], " "), "1") {
		if final = strict.FindString(rest); final == "" {
			t.Fatalf("%q: reusable, and the head is odd", text)
		}
		rest = rest[len(final):]
	}
	lower := strings.ToLower(final)
	lengths, codings := strings.Count(lower, "\ncontent-length:"), strings.Count(lower, "\ntransfer-encoding:")
	bodiless := got.StatusCode == http.StatusNoContent || got.StatusCode == http.StatusNotModified
	switch {
	case method == http.MethodHead:
		t.Fatalf("%q: reusable after HEAD", text)
	case bodiless && codings == 0 && lengths <= 1:
		if rest != "" || lengths == 1 && got.Header.Get("Content-Length") != "0" && strings.Trim(got.Header.Get("Content-Length"), "0") != "" {
			t.Fatalf("%q: reusable after a status without a body that announces one", text)
		}
	case lengths+codings != 1:
		t.Fatalf("%q: reusable with %d lengths and %d codings", text, lengths, codings)
	case lengths == 1 && rest != got.body:
		t.Fatalf("%q: reusable after a body %q of the message %q", text, got.body, rest)
	case codings == 1 && !strings.HasSuffix(rest, "\r\n"):
		t.Fatalf("%q: reusable after %q", text, rest)
	}
}

// FuzzRequest holds what is sent against net/http's server.
func FuzzRequest(f *testing.F) {
	f.Add("GET", "/a%2Fb|c", "X-A", "b", []byte("body"))
	f.Fuzz(func(t *testing.T, method, target, name, value string, body []byte) {
		token := regexp.MustCompile(`^[A-Za-z0-9-]+$`)
		odd := func(r rune) bool { return r <= ' ' || r > '~' }
		if !token.MatchString(method) || !token.MatchString(name) || strings.ContainsFunc("/"+target, odd) || strings.ContainsFunc(value, odd) || method == "CONNECT" || name == "Host" {
			return
		}
		switch http.CanonicalHeaderKey(name) {
		case "Host", "Content-Length", "Transfer-Encoding", "Connection", "Trailer", "Pragma":
			return // no job may have them, or net/http takes them away
		}
		conn, wire := talk(sound(""))
		req := &http1.Request{Method: method, Target: "/" + target, Host: "a.test", Header: map[string][]string{name: {value, value}}, Body: body}
		if got := exchange(conn, req); got.err != nil {
			t.Fatal(got.err)
		}
		seen, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(wire.out.Bytes())))
		if err != nil && !strings.Contains(err.Error(), "parse") { // of the URL: a lone percent sign is sent as it is
			t.Fatalf("%q: %v", wire.out.Bytes(), err)
		}
		if err != nil {
			return
		}
		data, _ := io.ReadAll(seen.Body)
		if seen.Method != method || seen.RequestURI != "/"+target || seen.Host != "a.test" || !bytes.Equal(data, body) || !slices.Equal(seen.Header.Values(name), []string{value, value}) {
			t.Fatalf("%q: %+v with %q", wire.out.Bytes(), seen, data)
		}
	})
}
