package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"github.com/gofer-mq/gofer/jobs"
)

// encode puts a body into content codings, one over the other, with the largest windows.
func encode(t *testing.T, body []byte, codings ...string) []byte {
	t.Helper()
	for _, coding := range codings {
		var out bytes.Buffer
		var w io.WriteCloser
		switch coding {
		case "gzip":
			w = gzip.NewWriter(&out)
		case "deflate":
			w = zlib.NewWriter(&out)
		case "br":
			w = brotli.NewWriterOptions(&out, brotli.WriterOptions{Quality: 5, LGWin: 24})
		case "zstd":
			w, _ = zstd.NewWriter(&out, zstd.WithWindowSize(8<<20)) // fails for unknown options only
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		body = out.Bytes()
	}
	return body
}

// floods are answers that ask for much memory, by the name of each, and what becomes of a job that gets one.
func floods(t *testing.T) (answers, want map[string]string) {
	t.Helper()
	const maxBody = 8 << 20
	answers, want = map[string]string{}, map[string]string{}
	for _, codings := range [][]string{{"gzip"}, {"deflate"}, {"br"}, {"zstd"}, {"gzip", "gzip", "gzip"}, {"br", "br", "br", "br", "br"}, {"zstd", "zstd", "zstd", "zstd"}, {"zstd", "gzip", "br"}} {
		name := strings.Join(codings, ", ")
		body := encode(t, make([]byte, 48<<20), codings...)
		answers[name] = fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n%s", name, len(body), body)
		want[name] = jobs.ErrBodyTooLarge
	}
	answers["a large head"] = "HTTP/1.1 200 OK\r\n" + strings.Repeat("a:"+strings.Repeat("b", 60)+"\r\n", 4000) + "Content-Length: 2\r\n\r\nok"
	answers["many fields"] = "HTTP/1.1 200 OK\r\n" + strings.Repeat("a:b\r\n", 40000) + "\r\n"
	want["many fields"] = jobs.ErrAttemptsExhausted
	answers["too long"] = fmt.Sprintf("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%s", make([]byte, maxBody+1))
	want["too long"] = jobs.ErrBodyTooLarge
	if !testing.Short() {
		answers["a length"] = fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", maxBody, make([]byte, maxBody))
		answers["no length"] = fmt.Sprintf("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%s", make([]byte, maxBody))
	}
	return answers, want
}

// flood is a proxy that answers a path's requests when all of a number have come, so that the answers come at once.
type flood struct {
	answers map[string]string
	number  int

	mu    sync.Mutex // guards asked and ready
	asked map[string]int
	ready map[string]chan struct{}
}

// all counts a request for a path and waits for the others, but not for ever.
func (f *flood) all(path string) {
	f.mu.Lock()
	if f.ready[path] == nil {
		f.ready[path] = make(chan struct{})
	}
	ready := f.ready[path]
	if f.asked[path]++; f.asked[path] == f.number {
		close(ready)
	}
	f.mu.Unlock()
	select {
	case <-ready:
	case <-time.After(20 * time.Second):
	}
}

func (f *flood) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	for in := bufio.NewReader(c); ; {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		f.all(req.URL.Path)
		answer := f.answers[strings.TrimPrefix(req.URL.Path, "/")]
		if _, err := io.WriteString(c, answer); err != nil || strings.Contains(answer, "Connection: close") {
			return
		}
	}
}

// TestAWorkerStaysUnderHalfAGibibyteWhateverItIsSent has 64 answers at once of each kind that takes much memory.
func TestAWorkerStaysUnderHalfAGibibyteWhateverItIsSent(t *testing.T) {
	if raced {
		t.Skip("skipped: the race detector takes several times the memory; 'make test-all' measures without it, too")
	}
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("skipped: the kernel does not tell the memory of a process")
	}
	const slots, limit = 64, 512 << 10 // KiB
	w := newWorld(t, nil)
	answers, want := floods(t)
	f := &flood{answers: answers, number: slots, asked: map[string]int{}, ready: map[string]chan struct{}{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go f.serve(c)
		}
	}()
	setenv(t, "GOFER_PROXIES", "http://"+l.Addr().String())
	setenv(t, "GOFER_ATTEMPT_TIMEOUT", "2m")
	setenv(t, "GOFER_STALL_TIMEOUT", "2m")
	p := launch(t, command(t, "", "worker"), nil)
	// The kind that opens the proxy's breaker comes last.
	const last = "many fields"
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(answers)), func(name string) bool { return name == last })
	for _, name := range append(names, last) {
		for i := range slots {
			id := fmt.Sprintf("%x-%d", name, i)
			url := fmt.Sprintf("http://shop%d.test/%s", i, strings.ReplaceAll(name, " ", "%20")) // a new site has few slots
			w.publish(id, job("", map[string]any{"url": url, "retry": map[string]any{"max_attempts": 1}}))
		}
		for i := range slots {
			if r := w.result(fmt.Sprintf("%x-%d", name, i)); r.Error != want[name] {
				t.Fatalf("%s: %s %q (%s), want %q", name, r.Outcome, r.Error, r.Detail, want[name])
			}
		}
		peak := peakMemory(t, p.cmd.Process.Pid)
		t.Logf("%s: %d MiB at most until now", name, peak>>10)
		if peak > limit {
			t.Errorf("%s: the worker took %d MiB, want at most %d", name, peak>>10, limit>>10)
		}
	}
}

// peakMemory is the most memory that a process has held, in KiB.
func peakMemory(t *testing.T, pid int) (kib int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(status), "VmHWM:")
	_, _ = fmt.Sscan(line, &kib)
	return kib
}
