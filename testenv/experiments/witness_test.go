package experiments_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// town is a world of proxies p0, p1, … that all work, and of sites whose answers depend on who asks. Some jobs are those of a
// liar, or for its sites; the others have slots of their own, so that only judgement can slow them.
type town struct {
	n      int
	bans   []int // the fleet's ban statuses
	answer func(proxy, host string) string
	liar   string // the proxy that lies, if one does
	lies   func(i int) string
	good   func(i int) string
}

// honest is what a proxy that does its work brings: nothing but a 502 from a dead site.
func honest(_, host string) string {
	if strings.HasPrefix(host, "dead") {
		return "502 Bad Gateway"
	}
	return "200 OK"
}

// yield is what came of a town.
type yield struct {
	done, welcome, attempts int // of the jobs of others
	open                    int // breakers of healthy proxies that opened
	outages                 int
}

// run does jobs for a virtual minute, sixteen at once of each kind.
func (w town) run(t *testing.T) (sum yield) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		pool := rotation.New(rotation.Config{Breaker: breaker.Config{Jitter: -1}})
		list := make([]proxylist.Proxy, w.n)
		for i := range list {
			list[i] = proxylist.Proxy{ID: fmt.Sprint("p", i), URL: &url.URL{Scheme: "http", Host: fmt.Sprintf("p%d.test:80", i)}}
		}
		pool.Replace(list)
		policy := jobs.DefaultPolicy()
		policy.MaxAttempts, policy.BaseDelay, policy.Jitter, policy.BanStatusCodes = 5, jobs.Duration(jobs.MinBaseDelay), false, w.bans
		var served, slots sync.WaitGroup
		f := fetch.New(fetch.Config{
			Pool: pool, Policy: func() jobs.Policy { return policy }, Dial: w.dial(&served), RetryBudget: -1, Worker: "w",
			Observer: fetch.Observer{BreakersChanged: func(events []rotation.Event) {
				mu.Lock()
				defer mu.Unlock()
				for _, e := range events {
					switch {
					case e.To != breaker.Open:
					case e.ProxyID == "":
						sum.outages++
					case e.ProxyID != w.liar:
						sum.open++
					}
				}
			}},
		})
		began := time.Now()
		for k, kind := range []func(int) string{w.good, w.lies} {
			own := k == 0
			for slot := range 16 {
				if kind == nil {
					continue
				}
				slots.Go(func() {
					for i := slot; time.Since(began) < time.Minute; i += 16 {
						r := finish(t, f, decode(t, kind(i)))
						if !own {
							time.Sleep(100 * time.Millisecond) // one that is refused takes no time
							continue
						}
						mu.Lock()
						sum.done++
						sum.attempts += r.AttemptCount
						if r.Outcome == jobs.Succeeded && r.Status == http.StatusOK {
							sum.welcome++
						}
						mu.Unlock()
					}
				})
			}
		}
		slots.Wait()
		f.Close()
		served.Wait()
	})
	return sum
}

// dial connects to proxies in memory, each of which takes 50 to 150 ms for an answer.
func (w town) dial(served *sync.WaitGroup) func(context.Context, string, string) (net.Conn, error) {
	luck := rand.New(rand.NewPCG(1, uint64(w.n)))
	var mu sync.Mutex
	return func(_ context.Context, _, addr string) (net.Conn, error) {
		proxy, _, _ := strings.Cut(addr, ".")
		client, server := net.Pipe()
		served.Go(func() {
			defer func() { _ = server.Close() }()
			for in := bufio.NewReader(server); ; {
				req, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				mu.Lock()
				pause := 50*time.Millisecond + time.Duration(luck.Int64N(int64(100*time.Millisecond)))
				mu.Unlock()
				time.Sleep(pause)
				if !answer(server, w.answer(proxy, req.Host)) {
					return
				}
			}
		})
		return client, nil
	}
}

// goodJob is a job for one of ten good sites.
func goodJob(i int) string { return fmt.Sprintf("http://good%d.test/%d", i%10, i) }

// bans are about one proxy in twelve that a site has banned.
func bans(t *testing.T) []row {
	t.Helper()
	w := town{n: 12, good: goodJob, answer: func(proxy, _ string) string {
		if proxy == "p3" {
			return "403 Forbidden"
		}
		return "200 OK"
	}}
	before := w.run(t)
	w.bans = []int{http.StatusForbidden}
	after := w.run(t)
	a, b := portion(before.welcome, before.done), portion(after.welcome, after.done)
	forbidden := town{n: 12, bans: w.bans, good: func(int) string { return "http://good.test/members" }, answer: func(_, _ string) string { return "403 Forbidden" }}
	all := forbidden.run(t)
	mean := portion(all.attempts, all.done)
	return []row{
		{
			name: "11 results that are 2xx where one proxy in twelve is banned, beside no ban statuses", where: "12 proxies", aim: "≥ 99.5 %",
			baseline: percent(a), gofer: percent(b), gain: change(a, b), met: b >= 0.995, exact: true,
		},
		{
			name: "12 attempts for a page that is forbidden to all", where: "12 proxies", aim: "1.0", baseline: "–", gofer: fmt.Sprintf("%.3f", mean),
			gain: "–", met: mean < 1.05, exact: true,
		},
	}
}

// witnesses are about one liar among proxies, sites or publishers.
func witnesses(t *testing.T) (rows []row) {
	t.Helper()
	const n = 10
	truth := town{n: n, good: goodJob, answer: honest}
	control := truth.run(t)
	claims := truth
	claims.liar, claims.lies = "p0", func(i int) string { return fmt.Sprintf("http://dead%d.test/", i%40) }
	claims.answer = func(proxy, host string) string {
		if proxy == "p0" {
			return "200 OK"
		}
		return honest(proxy, host)
	}
	accuses := truth
	accuses.lies = func(i int) string { return fmt.Sprintf("http://evil%d.test/", i%2) }
	accuses.answer = func(proxy, host string) string {
		if strings.HasPrefix(host, "evil") && proxy < "p5" {
			return "502 Bad Gateway"
		}
		return honest(proxy, host)
	}
	names := truth
	names.lies = func(i int) string { return fmt.Sprintf("http://dead%d.test/", i) }
	calls := truth
	calls.lies = func(i int) string {
		return fmt.Sprintf(`{"url":"http://good%d.test/","ban":{"statuses":[200]},"when_no_proxy":"fail"}`, i%10)
	}
	for _, c := range []struct {
		who string
		town
	}{{"a proxy that claims to reach dead sites", claims}, {"two sites that accuse five of ten proxies", accuses}, {"a publisher of dead names", names}, {"a publisher who calls every answer a ban", calls}} {
		got := c.run(t)
		kept := portion(got.welcome, control.welcome)
		rows = append(rows, row{
			name: "13 healthy breakers that open, and jobs of others, beside the world without it: " + c.who, where: "10 proxies", aim: "0, ≥ 98 %",
			baseline: "0, 100 %", gofer: fmt.Sprintf("%d, %s", got.open+got.outages, percent(kept)), gain: "–", met: got.open+got.outages == 0 && kept >= 0.98, exact: true,
		})
	}
	return rows
}
