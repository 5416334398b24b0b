package testenv

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// manyBytes is what an answer without an end sends at most. Nobody should read as much.
const manyBytes = 256 << 20

// hostileQuick are the answers that a text cannot hold.
func hostileQuick() map[string]hostileAnswer {
	out := map[string]hostileAnswer{"mutant": mutant, "denied": denied, "loop": redirects("loop"), "ping": redirects("pong"), "pong": redirects("ping")}
	// Each begins by head and goes on by part.
	for name, c := range map[string]struct{ head, part string }{
		"endless-body":      {"HTTP/1.1 200 OK\r\n\r\n", strings.Repeat("x", 64<<10)},
		"endless-chunks":    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", fmt.Sprintf("%x\r\n%s\r\n", 64<<10, strings.Repeat("x", 64<<10))},
		"endless-extension": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", strings.Repeat("x", 64<<10)},
		"endless-size":      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", strings.Repeat("0", 64<<10)},
		"endless-trailer":   {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", strings.Repeat("X-T: a\r\n", 4096)},
		"endless-status":    {"HTTP/1.1 200 ", strings.Repeat("x", 64<<10)},
		"endless-heads":     {"HTTP/1.1 200 OK\r\n", strings.Repeat("X-H: a\r\n", 4096)},
		"endless-name":      {"HTTP/1.1 200 OK\r\n", strings.Repeat("n", 64<<10)},
		"endless-value":     {"HTTP/1.1 200 OK\r\nX: ", strings.Repeat("v", 64<<10)},
		"endless-fold":      {"HTTP/1.1 200 OK\r\nX: a\r\n", strings.Repeat(" b\r\n", 4096)},
		"endless-redirect":  {"HTTP/1.1 302 Found\r\nLocation: /moved\r\n\r\n", strings.Repeat("x", 64<<10)},
	} {
		out[name] = func(h *Hostile, conn net.Conn, _ *http.Request, _ string) bool {
			if send(conn, c.head) {
				h.repeat(conn, c.part, manyBytes, 0)
			}
			return false
		}
	}
	interims := strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n", 1000)
	out["many-interims"] = func(_ *Hostile, c net.Conn, _ *http.Request, id string) bool {
		return send(c, interims+whole("", Token(id)))
	}
	out["large-interims"] = func(_ *Hostile, c net.Conn, _ *http.Request, id string) bool {
		one := "HTTP/1.1 103 Early Hints\r\n" + strings.Repeat("X-H: "+strings.Repeat("a", 1000)+"\r\n", 100) + "\r\n"
		return send(c, strings.Repeat(one, 100)+whole("", Token(id)))
	}
	return out
}

// hostileSlow hold their reader for as long as it has time.
func hostileSlow() map[string]hostileAnswer {
	out := map[string]hostileAnswer{}
	for name, c := range map[string]struct {
		head, part string
		between    time.Duration
	}{
		"silent":         {"", "", time.Hour},
		"silent-head":    {"HTTP/1.1 200 OK\r\nX: ", "", time.Hour},
		"silent-body":    {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", "", time.Hour},
		"slow-head":      {"HTTP/1.1 200 OK\r\n", "X-H: a\r\n", 50 * time.Millisecond},
		"slow-body":      {"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", ".", 50 * time.Millisecond},
		"slow-redirect":  {"HTTP/1.1 302 Found\r\nLocation: /moved\r\nContent-Length: 5000\r\n\r\n", ".", 50 * time.Millisecond},
		"endless-hints":  {"", strings.Repeat("HTTP/1.1 103 Early Hints\r\nX: a\r\n\r\n", 100), time.Millisecond},
		"endless-waits":  {"", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 100), time.Millisecond},
		"empty-gzips":    {"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", strings.Repeat(string(compressed("gzip", nil)), 100), time.Millisecond},
		"skipped-frames": {"HTTP/1.1 200 OK\r\nContent-Encoding: zstd\r\n\r\n", strings.Repeat("\x50\x2a\x4d\x18\x00\x00\x00\x00", 400), time.Millisecond},
	} {
		out[name] = func(h *Hostile, conn net.Conn, _ *http.Request, _ string) bool {
			if !send(conn, c.head) {
				return false
			}
			if c.part == "" {
				h.hold(conn)
				return false
			}
			h.repeat(conn, c.part, manyBytes, c.between)
			return false
		}
	}
	return out
}

// hold says nothing until the peer is gone.
func (h *Hostile) hold(c net.Conn) {
	_, _ = c.Read(make([]byte, 1))
}

// mutant is an answer of which a few bytes of the head are others. Bodies stay as they are, so that their tokens do.
func mutant(_ *Hostile, c net.Conn, _ *http.Request, id string) bool {
	draw := drawn(id)
	packed := string(compressed("gzip", []byte(Token(id))))
	texts := []string{
		whole("Content-Type: text/html\r\nX-Powered-By: PHP\r\n", Token(id)),
		"HTTP/1.1 302 Found\r\nLocation: /moved\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nMoved",
		fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n%x\r\n%s\r\n0\r\nX: a\r\n\r\n", len(Token(id)), Token(id)),
		whole("Content-Encoding: gzip\r\nVary: Accept-Encoding\r\n", packed),
		"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
	}
	head, body, _ := strings.Cut(texts[draw.IntN(len(texts))], "\r\n\r\n")
	changed := []byte(head + "\r\n\r\n")
	for range 1 + draw.IntN(4) {
		changed[draw.IntN(len(changed))] = byte(draw.IntN(256))
	}
	send(c, string(changed)+body)
	return false
}

// denied redirects to where nobody may go.
func denied(h *Hostile, c net.Conn, _ *http.Request, id string) bool {
	if len(h.Denied) == 0 {
		return false
	}
	return send(c, "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: "+h.Denied[drawn(id).IntN(len(h.Denied))]+"\r\n\r\n")
}

// redirects leads to another answer for the same request.
func redirects(to string) hostileAnswer {
	return func(_ *Hostile, c net.Conn, _ *http.Request, id string) bool {
		return send(c, "HTTP/1.1 302 Found\r\nSet-Cookie: a="+strings.Repeat("c", 4000)+"\r\nContent-Length: 0\r\nLocation: /"+to+"/"+id+"\r\n\r\n")
	}
}
