// Package network is a small internet in memory or on loopback, for experiments in virtual time: proxies and sites that answer or
// not, and workers with their slots and the jobs that wait.
package network

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Web is proxies that work, and sites that answer, log-normal with σ 0.5, or do not. The sites that are silent bear names that
// begin so. Set the fields before a worker joins.
type Web struct {
	// Proxies is how many there are; Dead tells which of them, p00 and so on, answer nothing. Nil means none.
	Proxies int
	Dead    func(proxy string) bool
	// Median is of the time that an answer takes. Quick tells which sites answer at once; nil means none.
	Median time.Duration
	Quick  func(host string) bool
	// Says is the status of an answer by proxy, host and number of the connection, from 1 on; nil means 200.
	Says func(proxy, host string, connection int) int
	// Gateways tells that a word in its user chooses the exit of a proxy.
	Gateways bool

	seed   uint64
	dialed atomic.Int64
	began  time.Time
	silent func(host string, at time.Duration) bool
	wg     sync.WaitGroup
	mu     sync.Mutex
	asked  map[string][]time.Duration // when, by host
	socket string                     // of all proxies; empty: they are in memory
}

// NewWeb makes a network of twenty proxies, and answers with a median of half a second. silent tells which sites do not answer at
// a time since now.
func NewWeb(seed uint64, silent func(host string, at time.Duration) bool) *Web {
	return &Web{Proxies: 20, Median: 500 * time.Millisecond, seed: seed, began: time.Now(), silent: silent, asked: map[string][]time.Duration{}}
}

// Go runs something that belongs to the network: Play waits for its end.
func (w *Web) Go(f func()) { w.wg.Go(f) }

// Asked is when a silent site was asked. Call it when no worker runs any more.
func (w *Web) Asked(host string) []time.Duration { return w.asked[host] }

// Listen lets workers dial the proxies at a socket of this machine until the test ends.
func (w *Web) Listen(tb testing.TB) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Error(err)
		return
	}
	tb.Cleanup(func() {
		_ = l.Close()
		w.wg.Wait()
	})
	w.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			w.wg.Go(func() { w.serve("", c, nil) }) // which of the proxies was dialled is not known here
		}
	})
	w.socket = l.Addr().String()
}

// dial connects to a proxy. An uplink that is cut carries no answers.
func (w *Web) dial(ctx context.Context, network, proxy string, cut func(at time.Duration) bool) (net.Conn, error) {
	if w.socket != "" {
		return new(net.Dialer).DialContext(ctx, network, w.socket)
	}
	client, server := net.Pipe()
	name, _, _ := strings.Cut(proxy, ".")
	w.wg.Go(func() { w.serve(name, server, cut) })
	return client, nil
}

func (w *Web) serve(proxy string, c net.Conn, cut func(at time.Duration) bool) {
	defer func() { _ = c.Close() }()
	in, connection := bufio.NewReader(c), int(w.dialed.Add(1))
	for more := true; more; {
		more = w.answer(proxy, connection, c, in, cut)
	}
}

// answer answers one request and reports whether another may follow.
func (w *Web) answer(proxy string, connection int, c net.Conn, in *bufio.Reader, cut func(at time.Duration) bool) bool {
	req, err := http.ReadRequest(in)
	if err != nil {
		return false
	}
	host, at := req.URL.Host, time.Since(w.began)
	w.mu.Lock()
	if strings.HasPrefix(host, "silent") {
		w.asked[host] = append(w.asked[host], at)
	}
	w.mu.Unlock()
	silent := w.silent(host, at) || w.Dead != nil && w.Dead(proxy)
	if !silent && (w.Quick == nil || !w.Quick(host)) {
		time.Sleep(w.takes(req.URL.String()))
	}
	if silent || w.silent(host, at) || cut != nil && cut(time.Since(w.began)) {
		_, _ = io.Copy(io.Discard, in)
		return false
	}
	status := http.StatusOK
	if w.Says != nil {
		status = w.Says(proxy, host, connection)
	}
	_, err = fmt.Fprintf(c, "HTTP/1.1 %d %s\r\nContent-Length: 0\r\n\r\n", status, http.StatusText(status))
	return err == nil
}

// takes is how long a site takes for a request.
func (w *Web) takes(u string) time.Duration {
	r := rand.New(rand.NewPCG(w.seed, Hash(u)))
	return time.Duration(math.Exp(0.5*r.NormFloat64()) * float64(w.Median))
}

// Hash is the FNV-1a hash of a text.
func Hash(text string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(text) {
		h = (h ^ uint64(text[i])) * 1099511628211
	}
	return h
}
