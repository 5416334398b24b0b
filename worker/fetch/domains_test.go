package fetch_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
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

// watched is a proxy in memory that answers for every site after a while, and remembers who asked when.
type watched struct {
	takes time.Duration

	mu     sync.Mutex
	starts map[string][]time.Time // by site, as the test names them
	now    map[string]int
	most   map[string]int
	serves sync.WaitGroup
}

func (w *watched) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	w.serves.Go(func() {
		defer func() { _ = server.Close() }()
		for in := bufio.NewReader(server); ; {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			site := req.URL.Hostname()[strings.Index(req.URL.Hostname(), ".")+1:]
			w.count(site, 1)
			time.Sleep(w.takes)
			w.count(site, -1)
			if _, err := io.WriteString(server, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil {
				return
			}
		}
	})
	return client, nil
}

func (w *watched) count(site string, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n > 0 {
		w.starts[site] = append(w.starts[site], time.Now())
	}
	w.now[site] += n
	w.most[site] = max(w.most[site], w.now[site])
}

// ask runs n jobs for each of some hosts at once and returns how long each site took, and how often the jobs were parked.
func (w *watched) ask(t *testing.T, n int, change func(*fetch.Config), hosts ...string) (parked int) {
	t.Helper()
	w.starts, w.now, w.most = map[string][]time.Time{}, map[string]int{}, map[string]int{}
	pool := rotation.New(rotation.Config{})
	list, err := proxylist.ParseList(strings.NewReader("http://p1.test:80 id=p1\nhttp://p2.test:80 id=p2"))
	if err != nil {
		t.Fatal(err)
	}
	pool.Replace(list)
	cfg := fetch.Config{Pool: pool, Policy: jobs.DefaultPolicy, Dial: w.dial, AttemptTimeout: time.Minute}
	change(&cfg)
	f := fetch.New(cfg)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i := range n {
		for _, host := range hosts {
			wg.Go(func() {
				job, err := jobs.Decode("default", fmt.Sprint(strings.ReplaceAll(host, ".", "-"), i), fmt.Appendf(nil, "http://%s/%d", host, i))
				if err != nil {
					t.Error(err)
				}
				var progress jobs.Progress
				for {
					o := f.Do(t.Context(), &job, &progress)
					if o.Kind == jobs.RunScheduled {
						mu.Lock()
						parked++
						mu.Unlock()
						progress = o.Progress
						time.Sleep(time.Until(o.At))
						continue
					}
					if o.Result.Outcome != jobs.Succeeded || o.Result.AttemptCount != 1 {
						t.Errorf("%s/%d: %s %s after %d attempts", host, i, o.Result.Outcome, o.Result.Error, o.Result.AttemptCount)
					}
					return
				}
			})
		}
	}
	wg.Wait()
	f.Close()
	w.serves.Wait()
	return parked
}

func TestSitesAreAskedNoFasterThanTheirRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &watched{takes: 10 * time.Millisecond}
		parked := w.ask(t, 20, func(c *fetch.Config) { c.HostRate = 2 }, "a.shop.co.uk", "b.shop.co.uk", "www.other.co.uk")
		for site, want := range map[string]int{"shop.co.uk": 40, "other.co.uk": 20} {
			starts := w.starts[site]
			slices.SortFunc(starts, time.Time.Compare)
			if len(starts) != want {
				t.Fatalf("%s: %d requests, want %d", site, len(starts), want)
			}
			for i := range want - 1 {
				if gap := starts[i+1].Sub(starts[i]); gap < 500*time.Millisecond {
					t.Errorf("%s: request %d came %v after the one before it, want 500 ms at least", site, i+1, gap)
				}
			}
			if took := starts[want-1].Sub(starts[0]); took > time.Duration(want)*500*time.Millisecond+2*time.Second {
				t.Errorf("%s: %d requests took %v, want hardly more than the rate asks for", site, want, took)
			}
		}
		if parked > 60 {
			t.Errorf("60 jobs were parked %d times, want at most once each", parked)
		}
	})
}

func TestSitesAreAskedByNoMoreAtOnceThanAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &watched{takes: time.Second}
		begin := time.Now()
		parked := w.ask(t, 30, func(c *fetch.Config) { c.HostConcurrency = 3 }, "a.shop.test", "b.shop.test", "a.other.test")
		if w.most["shop.test"] != 3 || w.most["other.test"] != 3 {
			t.Errorf("at once: %v, want 3 of each", w.most)
		}
		if took := time.Since(begin); took > 40*time.Second {
			t.Errorf("60 requests of a second, three at once, took %v, want little more than 20 s", took)
		}
		if parked > 2*90 {
			t.Errorf("90 jobs were parked %d times", parked)
		}
	})
}

func TestWaitForASiteEndsWithTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &watched{starts: map[string][]time.Time{}, now: map[string]int{}, most: map[string]int{}}
		pool := rotation.New(rotation.Config{})
		list, err := proxylist.ParseList(strings.NewReader("http://p1.test:80 id=p1"))
		if err != nil {
			t.Fatal(err)
		}
		pool.Replace(list)
		f := fetch.New(fetch.Config{Pool: pool, Policy: jobs.DefaultPolicy, Dial: w.dial, HostRate: 0.01})
		defer w.serves.Wait()
		defer f.Close()
		do := func() *jobs.RunOutcome {
			payload := fmt.Appendf(nil, `{"url":"http://www.shop.test/","deadline":%q}`, time.Now().Add(time.Minute).Format(time.RFC3339))
			job, err := jobs.Decode("default", "j", payload)
			if err != nil {
				t.Fatal(err)
			}
			return f.Do(t.Context(), &job, &jobs.Progress{})
		}
		if o := do(); o.Result.Outcome != jobs.Succeeded {
			t.Errorf("the first job: %+v, want success", o)
		}
		if o := do(); o.Kind != jobs.RunFinished || o.Result.Error != jobs.ErrExpired {
			t.Errorf("a job whose turn comes after its deadline: %+v, want that it is expired at once", o)
		}
	})
}
