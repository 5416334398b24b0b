package testenv

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"github.com/gofer-mq/gofer/cmd/gofer/playground"
)

// Answers after which a body that nobody asked for comes late.
const (
	lateAfterHead    = "late-after-head"
	lateAfterGetBody = "late-after-get-body"
	lateAfter204     = "late-after-204"
	lateAfter304     = "late-after-304"
)

// HostileMethod is the method and the body with which an answer is asked for.
func HostileMethod(name string) (method, body string) {
	switch name {
	case lateAfterHead:
		return http.MethodHead, ""
	case lateAfterGetBody:
		return http.MethodGet, "GET /forged HTTP/1.1\r\nHost: forged.test\r\n\r\n"
	}
	return http.MethodGet, ""
}

func hostileSound() map[string]hostileAnswer {
	return map[string]hostileAnswer{
		"sound": plainAnswer,
		"sound-chunked": func(_ *Hostile, c net.Conn, _ *http.Request, id string) bool {
			return send(c, fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(Token(id)), Token(id)))
		},
		"sound-gzip": func(_ *Hostile, c net.Conn, _ *http.Request, id string) bool {
			return send(c, whole("Content-Encoding: gzip\r\n", string(compressed("gzip", []byte(Token(id))))))
		},
	}
}

// forged sends, after a while, an answer that nobody asked for.
func forged(h *Hostile, c net.Conn, _ *http.Request, id string) bool {
	h.pause(time.Duration(drawn(id).IntN(60)) * time.Millisecond)
	return send(c, whole("", Forged))
}

func hostileStray() map[string]hostileAnswer {
	// late sends the answer and, before it reads a next request, a forged one.
	late := func(answer string) hostileAnswer {
		return func(h *Hostile, c net.Conn, r *http.Request, id string) bool {
			return send(c, answer) && forged(h, c, r, id)
		}
	}
	return map[string]hostileAnswer{
		lateAfterHead: late("HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n"),
		lateAfter204:  late("HTTP/1.1 204 No Content\r\nContent-Length: 10\r\n\r\n"),
		lateAfter304:  late("HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n"),
		// The unread body of the request is answered as a request of its own.
		lateAfterGetBody: func(_ *Hostile, c net.Conn, _ *http.Request, id string) bool { return send(c, whole("", Token(id))) },
		"stray-with-answer": func(_ *Hostile, c net.Conn, _ *http.Request, id string) bool {
			return send(c, whole("", Token(id))+whole("", Forged))
		},
		"stray-line-ends": func(_ *Hostile, c net.Conn, _ *http.Request, id string) bool {
			return send(c, whole("", Token(id))+"\r\n\r\n")
		},
	}
}

// hostileHeads are sound answers with lines in their heads that no answer should have.
func hostileHeads() map[string]hostileAnswer {
	many := func(line func(n int) string, n int) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(line(i))
		}
		return b.String()
	}
	out := map[string]hostileAnswer{}
	for name, head := range map[string]string{
		"blank-before-colon": "X-Powered-By : PHP\r\n", "blank-in-name": "X B: a\r\n", "tab-in-name": "X\tB: a\r\n", "no-colon": "Just some words\r\n",
		"empty-name": ": a\r\n", "odd-name": "X(a)<b>@c: a\r\n", "raw-name": "X-\xff\xc3: a\r\n", "long-name": strings.Repeat("n", 10_000) + ": a\r\n",
		"nul-value": "X-Nul: a\x00b\r\n", "escape-value": "X-Esc: a\x1b[31mred\r\n", "lone-cr": "X-Cr: a\rX-Forged: b\r\n", "bare-lf": "X-Lf: a\nX-Other: b\n",
		"raw-value": "X-Raw: \xff\xfe\x80\r\n", "folded": "X-Folded: a\r\n b\r\n\tc\r\n", "folded-first": " folded before any field\r\n",
		"nats-names":      "Nats-Msg-Id: a\r\nNats-Expected-Last-Subject-Sequence: 77\r\nNats-Rollup: all\r\nNats-TTL: 1s\r\nStatus: 503\r\nDescription: no\r\n",
		"own-names":       "Gofer-Outcome: failed\r\nGofer-Job-Id: victim\r\nGofer-Object: gofer-bodies/x\r\nGofer-Meta-a: b\r\n",
		"huge-connection": "Connection: " + strings.Repeat("a,", 60_000) + "a\r\n" + many(func(n int) string { return fmt.Sprintf("b%04d:\r\n", n) }, 10_000),
		"many-names":      many(func(n int) string { return fmt.Sprintf("X-%d: %d\r\n", n, n) }, 15_000),
		"many-values":     many(func(n int) string { return fmt.Sprintf("Set-Cookie: c%d=%s\r\n", n, strings.Repeat("v", 200)) }, 1000),
		"many-trailers":   "Trailer: " + strings.Repeat("t,", 20_000) + "t\r\n",
		"keep-alive":      "Keep-Alive: timeout=-1, max=99999999999999999999\r\n",
		"dates":           "Date: 99999\r\nExpires: -1\r\nLast-Modified: Fri, 32 Foo 10000 99:99:99 GMT\r\nRetry-After: -5\r\n",
		"unknown-coding":  "Content-Encoding: x-unknown\r\n", "many-codings": "Content-Encoding: " + strings.Repeat("gzip, ", 5000) + "gzip\r\n",
		"false-gzip": "Content-Encoding: gzip\r\n", "false-br": "Content-Encoding: br\r\n", "false-zstd": "Content-Encoding: zstd\r\n",
	} {
		out[name] = func(_ *Hostile, c net.Conn, _ *http.Request, id string) bool { return send(c, whole(head, Token(id))) }
	}
	return out
}

// hostileTexts are answers after which the site hangs up. @ stands for the request's token.
func hostileTexts() map[string]hostileAnswer {
	out := map[string]hostileAnswer{}
	for name, text := range map[string]string{
		"no-answer": "", "cut-status": "HTTP/1.", "cut-head": "HTTP/1.1 200 OK\r\nConte", "cut-body": "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n@",
		"cut-chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n@", "cut-chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
		"cut-interim": "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n", "old-http": "@", "not-http": "ICY 200 OK\r\nContent-Type: audio/mpeg\r\n\r\n@",
		"http-0-9": "HTTP/0.9 200 OK\r\n\r\n@", "http-1-0": "HTTP/1.0 200 OK\r\n\r\n@", "http-2-in-text": "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"http-2-preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "status-000": "HTTP/1.1 000 Odd\r\nContent-Length: 0\r\n\r\n", "status-999": "HTTP/1.1 999 Odd\r\n\r\n@",
		"status-text": "HTTP/1.1 OK 200\r\n\r\n@", "status-huge": "HTTP/1.1 2000 OK\r\n\r\n@", "no-reason": "HTTP/1.1 200\r\n\r\n@",
		"switching":   "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n@",
		"long-length": "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n@", "short-length": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n@",
		"negative-length": "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n@", "signed-length": "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n@",
		"huge-length": "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n@", "endless-length": "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n@",
		"two-lengths": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n@", "equal-lengths": "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
		"length-and-chunks": "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"chunked-twice":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"negative-chunk":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n",
		"huge-chunk":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff0\r\nok\r\n0\r\n\r\n",
		"no-location":       "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", "bad-location": "HTTP/1.1 302 Found\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n",
		"long-location":  "HTTP/1.1 302 Found\r\nLocation: /" + strings.Repeat("a", 100_000) + "\r\nContent-Length: 0\r\n\r\n",
		"raw-location":   "HTTP/1.1 302 Found\r\nLocation: /a b\x01\xff?q=\"<>|\r\nContent-Length: 0\r\n\r\n",
		"other-location": "HTTP/1.1 302 Found\r\nLocation: ftp://evil.test/\r\nContent-Length: 0\r\n\r\n",
		"user-location":  "HTTP/1.1 302 Found\r\nLocation: http://user:secret@evil.test/\r\nContent-Length: 0\r\n\r\n",
	} {
		out[name] = func(_ *Hostile, c net.Conn, _ *http.Request, id string) bool {
			send(c, strings.ReplaceAll(text, "@", Token(id)))
			return false
		}
		if strings.HasPrefix(name, "cut-") || name == "no-answer" {
			out["reset-"+strings.TrimPrefix(name, "cut-")] = func(h *Hostile, c net.Conn, _ *http.Request, id string) bool {
				send(c, strings.ReplaceAll(text, "@", Token(id)))
				h.pause(time.Millisecond) // so that the bytes arrive before the reset overtakes them
				playground.Reset(c)
				return false
			}
		}
	}
	return out
}

// compressed is body in a content coding.
func compressed(coding string, body []byte) []byte {
	var out bytes.Buffer
	var enc io.WriteCloser
	switch coding {
	case "gzip":
		enc = gzip.NewWriter(&out)
	case "deflate":
		enc = zlib.NewWriter(&out)
	case "br":
		enc = brotli.NewWriterOptions(&out, brotli.WriterOptions{Quality: 5, LGWin: 24}) // the largest window
	case "zstd":
		enc, _ = zstd.NewWriter(&out, zstd.WithWindowSize(8<<20)) // fails for unknown options only
	}
	_, _ = enc.Write(body)
	_ = enc.Close()
	return out.Bytes()
}

// hostileBombs decode to 64 MiB.
func hostileBombs() map[string]hostileAnswer {
	out := map[string]hostileAnswer{}
	for _, coding := range []string{"gzip", "deflate", "br", "zstd"} {
		bomb := sync.OnceValue(func() string {
			return whole("Content-Encoding: "+coding+"\r\n", string(compressed(coding, make([]byte, 64<<20))))
		})
		out["bomb-"+coding] = func(_ *Hostile, c net.Conn, _ *http.Request, _ string) bool { return send(c, bomb()) }
	}
	nested := sync.OnceValue(func() string {
		body := make([]byte, 64<<20)
		for range 4 {
			body = compressed("gzip", body)
		}
		return whole("Content-Encoding: gzip, gzip, gzip, gzip\r\n", string(body))
	})
	out["bomb-nested"] = func(_ *Hostile, c net.Conn, _ *http.Request, _ string) bool { return send(c, nested()) }
	return out
}
