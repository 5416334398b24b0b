package main

import (
	"encoding/pem"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv"
)

// secure is the same site behind TLS. It writes its certificate to a file that workers can be told to trust.
func (o *origin) secure(certificate string) (*httptest.Server, error) {
	s := httptest.NewUnstartedServer(o)
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of workers that die in a handshake
	s.StartTLS()
	return s, os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600)
}

// origin is a site that takes 20 to 60 ms for an answer and counts the requests of each path.
type origin struct {
	server   *http.Server
	listener net.Listener
	done     sync.WaitGroup
	mu       sync.Mutex
	counts   map[string]int
}

func startOrigin() (*origin, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	o := &origin{listener: l, counts: map[string]int{}}
	o.server = &http.Server{Handler: o, ReadHeaderTimeout: time.Minute}
	o.done.Go(func() { _ = o.server.Serve(l) })
	return o, nil
}

func (o *origin) close() {
	_ = o.server.Close()
	o.done.Wait()
}

func (o *origin) url(id string) string { return "http://" + soundSite + "/" + id }

// ServeHTTP answers with the token of the job, or as its kind asks for.
func (o *origin) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.counts[r.URL.Path]++
	first := o.counts[r.URL.Path] == 1
	o.mu.Unlock()
	time.Sleep(20*time.Millisecond + rand.N(40*time.Millisecond))
	token := testenv.Token(strings.TrimPrefix(r.URL.Path, "/"))
	switch path := r.URL.Path; {
	case isKind(path, kindFails), isKind(path, kindFlaky) && first:
		rw.WriteHeader(http.StatusServiceUnavailable)
	case isKind(path, kindLarge):
		_, _ = io.WriteString(rw, strings.Repeat(token, jobs.MaxInlineBody/len(token)+1))
	default:
		_, _ = io.WriteString(rw, token)
	}
}

// askedFor is how often the page of a job was asked for.
func (o *origin) askedFor(id string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.counts["/"+id]
}

// asked is how many paths were asked for.
func (o *origin) asked() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.counts)
}

// refetched is how many paths were asked for more often than their jobs tried.
func (o *origin) refetched() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for path, c := range o.counts {
		planned := 1
		if isKind(path, kindFlaky) || isKind(path, kindFails) {
			planned = 2
		}
		if c > planned {
			n++
		}
	}
	return n
}
