package fetch_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// act is what becomes of one attempt, whichever proxy it goes through.
type act struct {
	do         deed
	after      time.Duration // from the request to the answer
	retryAfter string
}

type deed string

const (
	refuses  deed = "no connection"
	hangsUp  deed = "no answer"
	silent   deed = "nothing until the attempt's time is over"
	banned   deed = "403 Forbidden" // which the job's ban rule knows
	notFound deed = "404 Not Found"
	timedOut deed = "408 Request Timeout"
	tooMany  deed = "429 Too Many Requests"
	broken   deed = "500 Internal Server Error"
	noAnswer deed = "502 Bad Gateway"
	busy     deed = "503 Service Unavailable"
	good     deed = "200 OK"
	around   deed = "302 Found" // to itself
	large    deed = "200 Large"
)

// again reports whether another attempt may follow.
func (a act) again() bool {
	switch a.do {
	case refuses, hangsUp, silent, banned, timedOut, tooMany, noAnswer, busy:
		return true
	default:
		return false
	}
}

// failover reports whether another proxy may be tried at once.
func (a act) failover() bool { return a.do == refuses || a.do == hangsUp || a.do == banned }

// hint is the least wait that the target asks for.
func (a act) hint() time.Duration {
	if a.do != tooMany && a.do != busy {
		return 0
	}
	return map[string]time.Duration{"1": time.Second, "2": 2 * time.Second, "3": 3 * time.Second, "120": 2 * time.Minute, "86400": 15 * time.Minute}[a.retryAfter]
}

// rest is how long the proxy rests for the host afterwards.
func (a act) rest() time.Duration {
	if a.do == banned {
		return 5 * time.Minute
	}
	return a.hint()
}

// script is a network in memory that plays one act for each attempt, and what was seen of them.
type script struct {
	acts []act

	mu       sync.Mutex
	attempts []jobs.Attempt
	events   []jobs.RetryEvent
	onRetry  func(jobs.RetryEvent) // nil does nothing
	posts    atomic.Int64          // requests
	wg       sync.WaitGroup
}

// now is the act of the attempt that is under way.
func (s *script) now() act {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acts[len(s.attempts)]
}

func (s *script) dial(context.Context, string, string) (net.Conn, error) {
	if s.now().do == refuses {
		return nil, errors.New("refused")
	}
	client, server := net.Pipe()
	s.wg.Go(func() {
		defer func() { _ = server.Close() }()
		in := bufio.NewReader(server)
		for more := true; more; {
			more = s.serve(server, in)
		}
	})
	return client, nil
}

// serve answers one request and reports whether another may follow.
func (s *script) serve(c net.Conn, in *bufio.Reader) bool {
	req, err := http.ReadRequest(in)
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, req.Body)
	a := s.now()
	if req.Method == http.MethodPost {
		s.posts.Add(1)
	}
	length, more := 0, ""
	switch a.do {
	case refuses, hangsUp: // the connection was idle, and dies
		return false
	case silent:
		_, _ = io.Copy(io.Discard, in)
		return false
	case around:
		a.after, more = 0, "Location: /\r\n" // or so many of them would take too long
	case large:
		length = 1 << 40
	default:
	}
	if a.retryAfter != "" {
		more += "Retry-After: " + a.retryAfter + "\r\n"
	}
	time.Sleep(a.after)
	_, err = fmt.Fprintf(c, "HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n", a.do, length, more)
	return err == nil
}

// fetcher runs jobs in the script, through n proxies whose breakers never open by what they count.
func (s *script) fetcher(n int, strategy rotation.Strategy, policy jobs.Policy) (*fetch.Fetcher, *rotation.Pool) {
	pool := rotation.New(rotation.Config{Strategy: strategy, Breaker: breaker.Config{FailureThreshold: 1000}})
	var list []proxylist.Proxy
	for i := range n {
		list = append(list, proxylist.Proxy{ID: fmt.Sprint("p", i), URL: &url.URL{Scheme: "http", Host: fmt.Sprintf("p%d.test:80", i)}})
	}
	pool.Replace(list)
	return fetch.New(fetch.Config{
		Pool: pool, Policy: func() jobs.Policy { return policy }, Dial: s.dial, RetryBudget: -1, Worker: "w",
		Observer: fetch.Observer{
			RetryPlanned: func(e jobs.RetryEvent) {
				s.mu.Lock()
				s.events = append(s.events, e)
				s.mu.Unlock()
				if s.onRetry != nil {
					s.onRetry(e)
				}
			},
			AttemptEnded: func(a *jobs.Attempt, _ int64, _ string) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.attempts = append(s.attempts, *a)
			},
		},
	}), pool
}

// drawPolicy draws from everything that a policy may be.
func drawPolicy(t *rapid.T, most int) jobs.Policy {
	seconds := func(name string, of ...float64) jobs.Duration {
		return jobs.Duration(rapid.SampledFrom(of).Draw(t, name) * float64(time.Second))
	}
	p := jobs.DefaultPolicy()
	p.MaxAttempts = rapid.IntRange(1, most).Draw(t, "max attempts")
	p.BackoffStrategy = rapid.SampledFrom([]string{jobs.Exponential, jobs.Linear, jobs.Fixed}).Draw(t, "backoff")
	p.BaseDelay = seconds("base delay", 0.1, 0.5, 1, 2, 60)
	p.Multiplier = rapid.SampledFrom([]float64{1.1, 2, 10}).Draw(t, "multiplier")
	p.MaxBackoffDelay = seconds("cap", 1, 5, 30, 300)
	p.Jitter = rapid.Bool().Draw(t, "jitter")
	p.RetryNonIdempotent = rapid.Bool().Draw(t, "retry non-idempotent")
	if rapid.IntRange(0, 3).Draw(t, "bounded") == 0 {
		p.Timeout = seconds("timeout", 0.1, 1, 3, 10, 100, 1000) + oddly
	}
	return p
}

// oddly keeps the ends of bounds apart from the moments at which something else happens.
const oddly = 333
