package fetch_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
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

// bulk is a proxy in memory that answers with large bodies, and a fetcher that has little memory for them.
type bulk struct {
	*testing.T
	f    *fetch.Fetcher
	pool *rotation.Pool
	wg   sync.WaitGroup
}

// newBulk makes one. answer writes the answer to a request, and tells whether the connection goes on.
func newBulk(t *testing.T, cfg fetch.Config, answer func(io.Writer, *http.Request) bool) *bulk {
	t.Helper()
	b := &bulk{T: t, pool: rotation.New(rotation.Config{})}
	p, err := proxylist.ParseLine("http://proxy.test:80 id=p")
	if err != nil {
		t.Fatal(err)
	}
	b.pool.Replace([]proxylist.Proxy{p})
	cfg.Pool, cfg.Policy = b.pool, jobs.DefaultPolicy
	cfg.Dial = func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		b.wg.Go(func() {
			defer func() { _ = server.Close() }()
			in := bufio.NewReader(server)
			for more := true; more; {
				req, err := http.ReadRequest(in)
				more = err == nil && answer(server, req)
			}
		})
		return client, nil
	}
	b.f = fetch.New(cfg)
	return b
}

func (b *bulk) close() {
	b.f.Close()
	b.wg.Wait()
}

// do runs a job to its end. The caller releases the outcome.
func (b *bulk) do(url string) *jobs.RunOutcome {
	b.Helper()
	return b.attempt(url, 1)
}

// twice is do with two attempts.
func (b *bulk) twice(url string) *jobs.RunOutcome {
	b.Helper()
	return b.attempt(url, 2)
}

func (b *bulk) attempt(url string, attempts int) *jobs.RunOutcome {
	b.Helper()
	job, err := jobs.Decode("default", "j", fmt.Appendf(nil, `{"url":%q,"retry":{"max_attempts":%d}}`, url, attempts))
	if err != nil {
		b.Fatal(err)
	}
	return b.f.Do(b.Context(), &job, &jobs.Progress{})
}

// plain answers with a body of the length that the query names, in zeros.
func plain(w io.Writer, req *http.Request) bool {
	var status, size int
	_, _ = fmt.Sscanf(req.URL.RawQuery, "%d,%d", &status, &size)
	_, err := fmt.Fprintf(w, "HTTP/1.1 %d Any\r\nContent-Length: %d\r\n\r\n%s", status, size, make([]byte, size))
	return err == nil
}

// TestRunsThatShareMemoryAllComeToTheirEnd has many answers at once that need more memory together than there is. Each comes in
// pieces, by one framing and coding or another, and its result is stored late. If runs blocked one another, they would run out
// of time; all of them one after the other take far less.
func TestRunsThatShareMemoryAllComeToTheirEnd(t *testing.T) {
	const n, maxBody, maxMemory = 16, 1 << 20, 3 << 20
	zeros := string(make([]byte, maxBody))
	encoded := map[string]string{}
	for _, c := range codings {
		encoded[c.header] = squeeze(t, zeros, c.by...)
	}
	for seed := range uint64(12) {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex // guards luck and held
			luck := rand.New(rand.NewPCG(seed, 14))
			random := func(n int) int { mu.Lock(); defer mu.Unlock(); return luck.IntN(n) }
			b := newBulk(t, fetch.Config{MaxBodyBytes: maxBody, MaxMemory: maxMemory, AttemptTimeout: time.Minute}, func(w io.Writer, _ *http.Request) bool {
				body, header := zeros, ""
				if c := codings[random(len(codings))]; random(2) == 0 {
					body, header = encoded[c.header], "Content-Encoding: "+c.header+"\r\n"
				}
				framing := []string{"length", "chunks", "close"}[random(3)]
				head, sent := framings[framing](body)
				answer := "HTTP/1.1 200 OK\r\n" + header + head + "\r\n" + sent
				for len(answer) > 0 {
					time.Sleep(time.Duration(random(20)) * time.Millisecond)
					piece := min(len(answer), 1+random(400<<10))
					if _, err := io.WriteString(w, answer[:piece]); err != nil {
						return false
					}
					answer = answer[piece:]
				}
				return framing != "close"
			})
			var held, most int
			hold := func(bytes int) { mu.Lock(); defer mu.Unlock(); held += bytes; most = max(most, held) }
			var running sync.WaitGroup
			for i := range n {
				running.Go(func() {
					time.Sleep(time.Duration(random(100)) * time.Millisecond)
					o := b.do(fmt.Sprintf("http://shop%d.test/", i))
					if o.Result.Outcome != jobs.Succeeded || len(o.Result.Body) != maxBody {
						t.Errorf("seed %d: job %d: %s with %d bytes: %s", seed, i, o.Result.Outcome, len(o.Result.Body), o.Result.Detail)
					}
					hold(len(o.Result.Body))
					time.Sleep(time.Duration(random(200)) * time.Millisecond) // the result is being stored
					hold(-len(o.Result.Body))
					o.Release()
				})
			}
			running.Wait()
			if most > maxMemory+maxBody {
				t.Errorf("seed %d: results of %d bytes were held at once, of %d", seed, most, maxMemory)
			}
			b.close()
		})
	}
}

func TestNobodyIsBlamedForAnAttemptThatWaitedForMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBulk(t, fetch.Config{MaxMemory: 2 << 20, AttemptTimeout: 5 * time.Second}, plain)
		defer b.close()
		first := b.do("http://shop.test/?200,1500000")
		for range 10 {
			began := time.Now()
			o := b.do("http://shop.test/?200,1500000")
			if len(o.Result.Attempts) != 1 {
				t.Fatalf("%s after %d attempts, want one", o.Result.Error, len(o.Result.Attempts))
			}
			a := o.Result.Attempts[0]
			if a.Fault != jobs.FaultNone || a.Error != "this worker had no memory free for the body in time" || time.Since(began) != 5*time.Second {
				t.Errorf("fault %q: %q after %v, want none of anybody's after 5s", a.Fault, a.Error, time.Since(began))
			}
		}
		if p, _ := b.pool.StatusOf("p"); p.Failures != 0 || p.State.String() != "closed" {
			t.Errorf("the proxy has %d failures and is %s, want none and closed", p.Failures, p.State)
		}
		first.Release()
		if o := b.do("http://shop.test/?200,1500000"); o.Result.Outcome != jobs.Succeeded {
			t.Errorf("with memory free: %s %s", o.Result.Error, o.Result.Detail)
		}
	})
}

func TestAnAnswerThatWaitsForMemoryDoesNotStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBulk(t, fetch.Config{MaxMemory: 2 << 20, AttemptTimeout: time.Minute, StallTimeout: time.Second}, plain)
		defer b.close()
		first := b.do("http://shop.test/?200,1500000")
		time.AfterFunc(30*time.Second, first.Release)
		if o := b.do("http://shop.test/?200,1500000"); o.Result.Outcome != jobs.Succeeded {
			t.Errorf("after half a minute: %s %s, want a success", o.Result.Error, o.Result.Detail)
		}
	})
}

// TestOnlyTheBodyOfAResultKeepsItsMemory has jobs that fail once with a large answer, and then get one in a coding. The body of a
// result takes 2 of 8 MiB, and 2 are left to the oldest run: so three of them fit, if nothing else is kept.
func TestOnlyTheBodyOfAResultKeepsItsMemory(t *testing.T) {
	noise := make([]byte, 1400000)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	for _, coding := range []string{"zstd", "br"} {
		wire := squeeze(t, string(noise), coding)
		synctest.Test(t, func(t *testing.T) {
			asked := map[string]int{} // by path
			b := newBulk(t, fetch.Config{MaxMemory: 32 << 20, AttemptTimeout: 5 * time.Second}, func(w io.Writer, req *http.Request) bool {
				asked[req.URL.Path]++
				switch n := asked[req.URL.Path]; {
				case strings.HasSuffix(req.URL.Path, "cut"):
					_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nx")
					return false
				case n == 1:
					req.URL.RawQuery = "503,2000000"
					return plain(w, req)
				}
				_, err := fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n%s", coding, len(wire), wire)
				return err == nil
			})
			defer b.close()
			for i := range 5 {
				b.do(fmt.Sprintf("http://shop.test/failed/%d", i))
				b.do("http://shop.test/cut")
			}
			var held []jobs.RunOutcome
			for o := b.twice("http://shop.test/good/0"); o.Result.Outcome == jobs.Succeeded; o = b.twice(fmt.Sprintf("http://shop.test/good/%d", len(held))) {
				held = append(held, *o)
				if !bytes.Equal(o.Result.Body, noise) {
					t.Fatalf("%s, result %d: %d bytes, want %d", coding, len(held), len(o.Result.Body), len(noise))
				}
			}
			if n := len(held); n < 5 || n > 8 {
				t.Errorf("%s: memory for %d results, want 5 to 8", coding, n)
			}
			for _, o := range held {
				o.Release()
			}
		})
	}
}
