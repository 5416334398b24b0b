package fetch_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// piece is a part of a response and the pause before it.
type piece struct {
	pause time.Duration
	data  string
}

// pieces repeats a piece.
func pieces(n int, pause time.Duration, data string) (list []piece) {
	for range n {
		list = append(list, piece{pause, data})
	}
	return list
}

const answerHead = "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"

// TestAnAnswerThatStallsEndsItsAttempt has responses that come in pieces, in virtual time. The stall timeout is 30 s, the
// timeout of an attempt 10 min.
func TestAnAnswerThatStallsEndsItsAttempt(t *testing.T) {
	big := strings.Repeat("x", 2000)
	for name, c := range map[string]struct {
		stall    time.Duration
		response []piece
		earliest time.Duration // end of the attempt
		latest   time.Duration
		succeeds bool
	}{
		"a byte a second":         {response: append([]piece{{0, fmt.Sprintf(answerHead, 900)}}, pieces(900, time.Second, "x")...), earliest: 30 * time.Second, latest: 34 * time.Second},
		"a head, a byte a second": {response: append([]piece{{0, "HTTP/1.1 200 OK\r\nX-Long: "}}, pieces(500, time.Second, "x")...), earliest: 30 * time.Second, latest: 35 * time.Second},
		"nothing after the first 10 KiB": {
			response: append(pieces(1, 0, fmt.Sprintf(answerHead, 20000)), append(pieces(5, time.Second, big), piece{9 * time.Minute, big})...),
			earliest: 35 * time.Second, latest: 40 * time.Second,
		},
		"2,000 bytes in 29 s":      {response: append([]piece{{0, fmt.Sprintf(answerHead, 20000)}}, pieces(10, 29*time.Second, big)...), earliest: 290 * time.Second, latest: 290 * time.Second, succeeds: true},
		"a first byte after 5 min": {response: []piece{{5 * time.Minute, fmt.Sprintf(answerHead, 2000) + big}}, earliest: 5 * time.Minute, latest: 5 * time.Minute, succeeds: true},
		"no bound":                 {stall: -1, response: append([]piece{{0, fmt.Sprintf(answerHead, 100)}}, pieces(100, 5*time.Second, "x")...), earliest: 500 * time.Second, latest: 500 * time.Second, succeeds: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, took := playPieces(t, c.stall, c.response, nil)
				if succeeded := a.Fault == jobs.FaultNone; succeeded != c.succeeds || took < c.earliest || took > c.latest {
					t.Errorf("the attempt ended after %s, %q; want it between %s and %s, success: %v", took, a.Error, c.earliest, c.latest, c.succeeds)
				}
				if !c.succeeds && !strings.Contains(a.Error, "stalled") {
					t.Errorf("error %q, want one that says that the answer stalled", a.Error)
				}
			})
		})
	}
}

// TestTheWaitForTheNextHopIsNoStall has a redirect whose target takes 5 min to answer on the same connection.
func TestTheWaitForTheNextHopIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		redirect := []piece{{0, "HTTP/1.1 302 Found\r\nLocation: /slow\r\nContent-Length: 0\r\n\r\n"}}
		slow := []piece{{5 * time.Minute, fmt.Sprintf(answerHead, 2) + "ok"}}
		if a, took := playPieces(t, 30*time.Second, redirect, slow); a.Fault != jobs.FaultNone || took != 5*time.Minute {
			t.Errorf("the attempt ended after %s, %q; want a success after 5 min", took, a.Error)
		}
	})
}

// TestAnInformationalAnswerIsNoBeginning has a target that sends early hints at once, and the answer 5 min later.
func TestAnInformationalAnswerIsNoBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		response := []piece{{0, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"}, {5 * time.Minute, fmt.Sprintf(answerHead, 2) + "ok"}}
		if a, took := playPieces(t, 30*time.Second, response); a.Fault != jobs.FaultNone || took != 5*time.Minute {
			t.Errorf("the attempt ended after %s, %q; want a success after 5 min", took, a.Error)
		}
	})
}

// playPieces fetches a page through a proxy that answers each request of a connection in pieces, and returns the attempt and how
// long it took. A nil response is none.
func playPieces(t *testing.T, stall time.Duration, responses ...[]piece) (a jobs.Attempt, took time.Duration) {
	t.Helper()
	var serving sync.WaitGroup
	pool := rotation.New(rotation.Config{})
	p, err := proxylist.ParseLine("http://proxy.test:3128 id=p")
	if err != nil {
		t.Fatal(err)
	}
	pool.Replace([]proxylist.Proxy{p})
	policy := jobs.DefaultPolicy()
	policy.MaxAttempts = 1
	f := fetch.New(fetch.Config{
		Pool: pool, Policy: func() jobs.Policy { return policy }, AttemptTimeout: 10 * time.Minute, StallTimeout: stall,
		Observer: fetch.Observer{AttemptEnded: func(attempt *jobs.Attempt, _ int64, _ string) { a = *attempt }},
		Dial: func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			serving.Go(func() { servePieces(server, responses) })
			return client, nil
		},
	})
	job, err := jobs.Decode("default", "j", []byte(`{"url":"http://example.com/","timeout":"10m"}`))
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	f.Do(t.Context(), &job, &jobs.Progress{})
	took = time.Since(begin)
	f.Close()
	serving.Wait()
	return a, took
}

// servePieces answers one request after the other.
func servePieces(conn net.Conn, responses [][]piece) {
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	for _, response := range responses {
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		for _, p := range response {
			time.Sleep(p.pause)
			if _, err := conn.Write([]byte(p.data)); err != nil {
				return
			}
		}
	}
}
