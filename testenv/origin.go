package testenv

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// Origin is a site that answers as it is asked to.
//
//	/ok /bytes/N /status/N /slow/MS?bytes= /echo /headers/KiB        plain answers
//	/gzip /deflate /br /zstd, each also as /bomb/…             encoded ones; a bomb is 16 MiB
//	/redirect/N /redirect-to?url= /loop                        redirects
//	/retry-after/V?status=                                     429, or the status, with that Retry-After
//	/flaky/N?key=                                              fails N times with 503, then answers
//	/cut /trickle                                              bodies that end badly
type Origin struct {
	*httptest.Server
	down   atomic.Bool
	mu     sync.Mutex // guards counts
	counts map[string]int
}

// StartOrigin starts a plain origin until the test ends; secure makes it speak TLS and HTTP/2.
func StartOrigin(tb testing.TB, secure bool) *Origin {
	tb.Helper()
	o := &Origin{counts: map[string]int{}}
	o.Server = httptest.NewUnstartedServer(o)
	if secure {
		o.EnableHTTP2 = true
		o.StartTLS()
	} else {
		o.Start()
	}
	tb.Cleanup(o.Close)
	return o
}

// Addr is host and port.
func (o *Origin) Addr() string { return o.Listener.Addr().String() }

// SetDown makes the origin answer each request with 502, until it is told otherwise.
func (o *Origin) SetDown(down bool) { o.down.Store(down) }

// Count is how many requests of a path came, without the query.
func (o *Origin) Count(path string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.counts[path]
}

// ServeHTTP answers.
func (o *Origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := o.count(r.URL.Path)
	if o.down.Load() {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	name, arg, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	number, _ := strconv.Atoi(arg)
	switch name {
	case "bytes":
		_, _ = w.Write(bytes.Repeat([]byte("x"), number))
	case "status":
		w.WriteHeader(number)
		_, _ = fmt.Fprintf(w, "status %d\n", number)
	case "slow":
		pause(r, time.Duration(number)*time.Millisecond)
		_, _ = io.WriteString(w, "slow\n"+strings.Repeat("x", or(r.URL.Query().Get("bytes"), 0)))
	case "echo":
		echo(w, r)
	case "headers":
		for i := range number {
			w.Header().Set(fmt.Sprintf("X-Filler-%d", i), strings.Repeat("h", 1000))
		}
	case "gzip", "deflate", "br", "zstd":
		encoded(w, name, []byte("encoded as "+name+"\n"))
	case "bomb":
		encoded(w, arg, make([]byte, 16<<20))
	case "redirect":
		redirect(w, r, number)
	case "redirect-to":
		http.Redirect(w, r, r.URL.Query().Get("url"), http.StatusFound)
	case "loop":
		http.Redirect(w, r, "/loop", http.StatusFound)
	case "retry-after":
		w.Header().Set("Retry-After", arg)
		w.WriteHeader(or(r.URL.Query().Get("status"), http.StatusTooManyRequests))
	case "flaky":
		if n <= number {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "at last\n")
	case "cut":
		w.Header().Set("Content-Length", "1000000")
		_, _ = io.WriteString(w, "only this")
	case "trickle":
		trickle(w, r)
	default:
		_, _ = io.WriteString(w, "hello from "+r.Host+r.URL.Path+"\n")
	}
}

// count counts the request under its path and returns how many there were.
func (o *Origin) count(path string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.counts[path]++
	return o.counts[path]
}

func pause(r *http.Request, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
	}
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	_ = json.NewEncoder(w).Encode(map[string]any{"method": r.Method, "proto": r.Proto, "host": r.Host, "headers": r.Header, "body": string(body)})
}

func redirect(w http.ResponseWriter, r *http.Request, left int) {
	if left == 0 {
		_, _ = io.WriteString(w, "the end\n")
		return
	}
	http.Redirect(w, r, fmt.Sprintf("/redirect/%d", left-1), http.StatusFound)
}

func or(text string, fallback int) int {
	if n, err := strconv.Atoi(text); err == nil {
		return n
	}
	return fallback
}

func encoded(w http.ResponseWriter, name string, body []byte) {
	w.Header().Set("Content-Encoding", name)
	var enc io.WriteCloser
	switch name {
	case "gzip":
		enc = gzip.NewWriter(w)
	case "deflate":
		enc = zlib.NewWriter(w)
	case "br":
		enc = brotli.NewWriterLevel(w, brotli.BestSpeed)
	case "zstd":
		enc, _ = zstd.NewWriter(w)
	}
	_, _ = enc.Write(body)
	_ = enc.Close()
}

func trickle(w http.ResponseWriter, r *http.Request) {
	for range 1000 {
		if _, err := io.WriteString(w, "."); err != nil || r.Context().Err() != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		pause(r, 50*time.Millisecond)
	}
}
