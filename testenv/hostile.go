package testenv

import (
	"bufio"
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Token marks what is sent for one request, named by id. A result that holds another request's token holds foreign bytes.
func Token(id string) string { return "<<" + id + ">>" }

// Forged marks answers that belong to no request.
const Forged = "<<forged>>"

// Hostile is a site that attacks whoever reads its answers: malformed heads, bodies without an end, torn answers, bombs, bytes
// after the answer. The answer to /NAME/ID is the one of that name, and what it carries is marked by Token(ID). A client that
// speaks TLS gets no handshake. Bytes are sent as they are, so a proxy between the site and its reader has to copy bytes, not
// messages: see Proxy.Raw.
type Hostile struct {
	// Denied are the URLs to which the answer "denied" redirects.
	Denied []string

	listener   net.Listener
	answers    map[string]hostileAnswer
	handshakes atomic.Int64
	ctx        context.Context
	cancel     context.CancelFunc
	wg         sync.WaitGroup
}

// hostileAnswer sends one answer and reports whether the connection goes on.
type hostileAnswer func(h *Hostile, c net.Conn, r *http.Request, id string) (goesOn bool)

// Groups of hostile answers.
const (
	// HostileSound answers are whole and valid.
	HostileSound = "sound"
	// HostileStray answers are sound, but more bytes follow, at once or late.
	HostileStray = "stray"
	// HostileQuick answers are hostile and come at once.
	HostileQuick = "quick"
	// HostileSlow answers hold their reader until its time is over.
	HostileSlow = "slow"
)

// HostileNames are the names of the answers of one group, sorted. A stray answer is asked for as HostileMethod says.
func HostileNames(group string) []string { return slices.Sorted(maps.Keys(hostileGroups()[group])) }

func hostileGroups() map[string]map[string]hostileAnswer {
	quick := hostileQuick()
	maps.Copy(quick, hostileHeads())
	maps.Copy(quick, hostileTexts())
	maps.Copy(quick, hostileBombs())
	return map[string]map[string]hostileAnswer{HostileSound: hostileSound(), HostileStray: hostileStray(), HostileQuick: quick, HostileSlow: hostileSlow()}
}

// Start listens on addr ("127.0.0.1:0" for a free port) until Close.
func (h *Hostile) Start(addr string) (err error) {
	if h.listener, err = net.Listen("tcp", addr); err != nil {
		return fmt.Errorf("start hostile site: %w", err)
	}
	h.answers = map[string]hostileAnswer{"forged": forged}
	for _, group := range hostileGroups() {
		maps.Copy(h.answers, group)
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.wg.Go(h.accept)
	return nil
}

// Addr is where it listens.
func (h *Hostile) Addr() string { return h.listener.Addr().String() }

// Close ends every connection and waits for all of them.
func (h *Hostile) Close() {
	h.cancel()
	_ = h.listener.Close()
	h.wg.Wait()
}

func (h *Hostile) accept() {
	for {
		c, err := h.listener.Accept()
		if err != nil {
			return
		}
		h.wg.Go(func() {
			defer context.AfterFunc(h.ctx, func() { _ = c.Close() })()
			defer func() { _ = c.Close() }()
			h.serve(c)
		})
	}
}

func (h *Hostile) serve(c net.Conn) {
	in := bufio.NewReader(c)
	if first, err := in.Peek(1); err == nil && first[0] == 22 {
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		h.spoilTLS(c)
		return
	}
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		name, id, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
		answer, known := h.answers[name]
		if !known {
			answer = plainAnswer
		}
		// A body that the answer's name says is ignored stays unread, and is read as the next request.
		if name != lateAfterGetBody {
			_, _ = io.Copy(io.Discard, req.Body)
		}
		_ = c.SetWriteDeadline(time.Now().Add(30 * time.Second))
		if !answer(h, c, req, id) {
			return
		}
	}
}

// pause waits, or less if the site is closed.
func (h *Hostile) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-h.ctx.Done():
	}
}

// repeat writes part again and again, with a pause before each, until the peer is gone or has most bytes.
func (h *Hostile) repeat(c net.Conn, part string, most int, between time.Duration) {
	for sent := 0; sent < most && h.ctx.Err() == nil; sent += len(part) {
		if between > 0 {
			h.pause(between)
		}
		if _, err := io.WriteString(c, part); err != nil {
			return
		}
	}
}

// whole is a valid answer with a body.
func whole(extraHead, body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s", extraHead, len(body), body)
}

func plainAnswer(_ *Hostile, c net.Conn, _ *http.Request, id string) bool {
	return send(c, whole("", Token(id)))
}

func send(c net.Conn, text string) bool {
	_, err := io.WriteString(c, text)
	return err == nil
}

// drawn are random numbers that depend on the id alone.
func drawn(id string) *rand.Rand {
	h := fnv.New64a()
	_, _ = io.WriteString(h, id)
	return rand.New(rand.NewPCG(h.Sum64(), 1))
}
