package experiments_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/exits"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/rotation/sites"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// seller is a gateway with ten thousand exits, of which one in five is bad. The word of a user name chooses the exit; without one
// the connection does.
type seller struct {
	seed    uint64
	line    string
	refuses atomic.Bool  // connections
	loud    bool         // a bad exit is never silent
	busy    bool         // one answer of a site in fifty is 503
	opened  atomic.Int64 // how often its breaker opened
	rested  atomic.Int64 // how often a good site rested

	mu     sync.Mutex
	luck   *rand.Rand
	dead   map[uint64]bool // exits that died since
	conns  int
	users  map[string]int // connections by user
	shared int            // connections on which another user came than before
	wg     sync.WaitGroup
}

const (
	exitCount = 10_000
	wordsLine = "http://user-{session}-cc-{region}:pw@gate.test:80 id=gate region=us"
	plainLine = "http://user:pw@gate.test:80 id=gate"
)

func newSeller(seed uint64, line string) *seller {
	return &seller{seed: seed, line: line, luck: rand.New(rand.NewPCG(seed, 11)), dead: map[uint64]bool{}, users: map[string]int{}}
}

// exitOf is the exit of a word or of a connection.
func (g *seller) exitOf(about any) uint64 {
	return (&world{seed: g.seed}).luck("exit", about).Uint64N(exitCount)
}

// isBad reports whether an exit never works.
func (g *seller) isBad(exit uint64) bool {
	return (&world{seed: g.seed}).luck("bad", exit).IntN(5) == 0
}

// works reports whether an exit works now.
func (g *seller) works(exit uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.isBad(exit) && !g.dead[exit]
}

func (g *seller) kill(exit uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dead[exit] = true
}

func (g *seller) dial(context.Context, string, string) (net.Conn, error) {
	if g.refuses.Load() {
		return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	g.mu.Lock()
	g.conns++
	number := g.conns
	g.mu.Unlock()
	client, server := net.Pipe()
	g.wg.Go(func() {
		defer func() { _ = server.Close() }()
		in, before := bufio.NewReader(server), ""
		for {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			user := userOf(req)
			g.note(user, before)
			before = user
			exit := g.exitOf(number)
			if strings.Contains(g.line, "{session}") {
				exit = g.exitOf(user)
			}
			if !g.serve(server, req, exit) {
				return
			}
		}
	})
	return client, nil
}

// userOf is the user of the credentials.
func userOf(req *http.Request) string {
	text, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(req.Header.Get("Proxy-Authorization"), "Basic "))
	user, _, _ := strings.Cut(string(text), ":")
	return user
}

// note counts the connections of a user.
func (g *seller) note(user, before string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch before {
	case "":
		g.users[user]++
	case user:
	default:
		g.shared++
	}
}

// serve answers through an exit, in 50 to 150 ms. A dead exit hangs up, says 502 or is silent.
func (g *seller) serve(c net.Conn, req *http.Request, exit uint64) bool {
	g.mu.Lock()
	pause := 50*time.Millisecond + time.Duration(g.luck.Int64N(int64(100*time.Millisecond)))
	busy := g.luck.IntN(50) == 0 && g.busy
	g.mu.Unlock()
	time.Sleep(pause)
	switch {
	case !g.works(exit):
		bad := habit(exit % uint64(habits))
		if g.loud && bad == silent {
			bad = hangsUp
		}
		return (&proxy{habit: bad}).fail(c)
	case strings.HasPrefix(req.Host, "dead"):
		return answer(c, "502 Bad Gateway")
	case busy:
		return answer(c, "503 Service Unavailable")
	}
	return answer(c, "200 OK")
}

// bought is what came of a seller's jobs.
type bought struct {
	jobs, good, attempts int
	words, conns, shared int
	opened, rested       int
	kept, pairs          int // jobs of sessions that stayed at an exit that works, and those that could
	reopened             time.Duration
}

func (b *bought) merge(o bought) {
	b.jobs, b.good, b.attempts = b.jobs+o.jobs, b.good+o.good, b.attempts+o.attempts
	b.words, b.conns, b.shared, b.opened = b.words+o.words, b.conns+o.conns, b.shared+o.shared, b.opened+o.opened
	b.rested += o.rested
	b.kept, b.pairs, b.reopened = b.kept+o.kept, b.pairs+o.pairs, max(b.reopened, o.reopened)
}

// fetcher is one whose one proxy is the seller's.
func (g *seller) fetcher(t *testing.T, dial func(context.Context, string, string) (net.Conn, error)) *fetch.Fetcher {
	t.Helper()
	p, err := proxylist.ParseLine(g.line)
	if err != nil {
		t.Fatal(err)
	}
	pool := rotation.New(rotation.Config{Breaker: breaker.Config{Jitter: -1}, Exits: exits.Config{Prefix: "gofer", Rand: rand.New(rand.NewPCG(g.seed, 12))}})
	pool.Replace([]proxylist.Proxy{p})
	policy := jobs.DefaultPolicy()
	policy.MaxAttempts, policy.BaseDelay, policy.Jitter = 6, jobs.Duration(jobs.MinBaseDelay), false
	return fetch.New(fetch.Config{
		Pool: pool, Policy: func() jobs.Policy { return policy }, Dial: dial, Worker: "w", Sites: sites.New(sites.Config{Slots: 64}),
		Observer: fetch.Observer{
			BreakersChanged: func(events []rotation.Event) {
				for _, e := range events {
					if e.To == breaker.Open {
						g.opened.Add(1)
					}
				}
			},
			SitesChanged: func(events []sites.Event) {
				for _, e := range events {
					if e.State == sites.Resting && !strings.HasPrefix(e.Site, "dead") {
						g.rested.Add(1)
					}
				}
			},
		},
	})
}

// crawl does jobs without a session, 64 at once.
func (g *seller) crawl(t *testing.T, count int) (sum bought) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := g.fetcher(t, g.dial)
		var mu sync.Mutex
		var slots sync.WaitGroup
		for slot := range 64 {
			slots.Go(func() {
				for i := slot; i < count; i += 64 {
					r := finish(t, f, decode(t, goodJob(i)))
					mu.Lock()
					sum.jobs++
					sum.attempts += r.AttemptCount
					if r.Outcome == jobs.Succeeded && r.Status == http.StatusOK {
						sum.good++
					}
					mu.Unlock()
				}
			})
		}
		slots.Wait()
		f.Close()
		g.wg.Wait()
	})
	sum.words, sum.conns, sum.shared, sum.opened, sum.rested = len(g.users), g.conns, g.shared, int(g.opened.Load()), int(g.rested.Load())
	return sum
}

// sessions does twenty jobs of each of so many sessions, one after the other in each. One job in fifty is for a dead site, and
// one exit in a hundred jobs dies.
func (g *seller) sessions(t *testing.T, count int) (sum bought) {
	t.Helper()
	g.busy = true
	synctest.Test(t, func(t *testing.T) {
		f := g.fetcher(t, g.dial)
		var mu sync.Mutex
		var slots sync.WaitGroup
		for session := range count {
			luck := (&world{seed: g.seed}).luck("session", session)
			slots.Go(func() {
				last := ""
				for i := range 20 {
					time.Sleep(time.Duration(luck.Int64N(int64(2 * time.Second))))
					site := goodJob(session + i)
					if luck.IntN(50) == 0 {
						site = "http://dead.test/"
					}
					worked := last != "" && g.works(g.exitOf("user-"+last+"-cc-us"))
					r := finish(t, f, decode(t, fmt.Sprintf(`{"url":%q,"proxy":{"session":"s%d"}}`, site, session)))
					mu.Lock()
					sum.jobs++
					sum.attempts += r.AttemptCount
					if r.Outcome == jobs.Succeeded {
						sum.good++
					}
					if worked && len(r.Attempts) > 0 {
						sum.pairs++
						if r.Attempts[0].Exit == last {
							sum.kept++
						}
					}
					mu.Unlock()
					if r.Outcome == jobs.Succeeded {
						last = r.Exit
						if luck.IntN(100) == 0 {
							g.kill(g.exitOf("user-" + last + "-cc-us"))
						}
					}
				}
			})
		}
		slots.Wait()
		f.Close()
		g.wg.Wait()
	})
	sum.opened = int(g.opened.Load())
	return sum
}

// refuse does jobs, none of which hangs in a silent exit, until the gateway refuses connections, and measures how long its
// breaker takes to open.
func (g *seller) refuse(t *testing.T) (sum bought) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g.loud = true
		f := g.fetcher(t, g.dial)
		ctx, stop := context.WithCancel(t.Context())
		var slots sync.WaitGroup
		for slot := range 64 {
			slots.Go(func() {
				for i := slot; ctx.Err() == nil; i += 64 {
					f.Do(ctx, decode(t, goodJob(i)), &jobs.Progress{})
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
		time.Sleep(10 * time.Second)
		g.refuses.Store(true)
		began := time.Now()
		for g.opened.Load() == 0 && time.Since(began) < time.Minute {
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		sum.reopened = time.Since(began)
		stop()
		slots.Wait()
		f.Close()
		g.wg.Wait()
	})
	return sum
}

// gateways are about paid proxies: one address with ten thousand exits, of which one in five is bad.
func gateways(t *testing.T, s size) []row {
	t.Helper()
	var with, without, sticky, refused bought
	for _, seed := range s.seeds {
		with.merge(newSeller(seed, wordsLine).crawl(t, s.jobs))
		without.merge(newSeller(seed, plainLine).crawl(t, s.jobs))
		sticky.merge(newSeller(seed, wordsLine).sessions(t, s.jobs/20))
		refused.merge(newSeller(seed, wordsLine).refuse(t))
	}
	share := func(b bought) float64 { return 100 * float64(b.good) / float64(b.jobs) }
	mean := func(b bought) float64 { return float64(b.attempts) / float64(b.jobs) }
	stay := 100 * float64(sticky.kept) / float64(max(1, sticky.pairs))
	own := with.words == with.attempts && with.conns == with.attempts && with.shared == 0
	return []row{
		{
			name: "26 results that are 2xx through a gateway, one exit in five bad", where: "memory", aim: "≥ 99.5 %, breaker open 0 times", seeds: s.String(), exact: true,
			baseline: fmt.Sprintf("%.2f %%, %d times", share(without), without.opened), gofer: fmt.Sprintf("%.2f %%, %d times", share(with), with.opened),
			gain: count(with.jobs) + " jobs", met: share(with) >= 99.5 && with.opened == 0,
		},
		{
			name: "26 rests of good sites meanwhile", where: "memory", aim: "0", seeds: s.String(), exact: true,
			baseline: fmt.Sprint(without.rested), gofer: fmt.Sprint(with.rested), gain: "–", met: with.rested == 0,
		},
		{
			name: "26 attempts a job through it", where: "memory", aim: "1.25 ± 0.03", seeds: s.String(), exact: true,
			baseline: fmt.Sprintf("%.3f", mean(without)), gofer: fmt.Sprintf("%.3f", mean(with)), gain: "–", met: mean(with) >= 1.22 && mean(with) <= 1.28,
		},
		{
			name: "26 words and connections beside attempts without a session", where: "memory", aim: "one each", seeds: s.String(), exact: true,
			baseline: fmt.Sprintf("%d and %d of %d", without.words, without.conns, without.attempts), gofer: fmt.Sprintf("%d and %d of %d", with.words, with.conns, with.attempts),
			gain: "–", met: own,
		},
		{
			name: "26 jobs of a session that stay at an exit that works", where: "memory", aim: "≥ 99.9 %", seeds: s.String(), exact: true,
			baseline: "–", gofer: fmt.Sprintf("%.3f %%", stay), gain: fmt.Sprintf("of %d pairs", sticky.pairs), met: stay >= 99.9 && sticky.opened == 0,
		},
		{
			name: "26 from a gateway's refusal of connections to its breaker's opening", where: "memory", aim: "< 1 s", seeds: s.String(), exact: true,
			baseline: "–", gofer: milliseconds(refused.reopened), gain: "–", met: refused.reopened < time.Second,
		},
		ports(t, s),
	}
}

// ports does requests through a gateway on loopback, each on a connection of its own, and counts the ports that stay in
// TIME_WAIT.
func ports(t *testing.T, s size) row {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer func() { _ = c.Close() }()
				in := bufio.NewReader(c)
				for {
					if _, err := http.ReadRequest(in); err != nil || !answer(c, "200 OK") {
						return
					}
				}
			})
		}
	})
	g := newSeller(1, strings.Replace(wordsLine, "gate.test:80", l.Addr().String(), 1))
	f := g.fetcher(t, nil)
	total := 2 * s.jobs
	var slots sync.WaitGroup
	for slot := range 64 {
		slots.Go(func() {
			for i := slot; i < total; i += 64 {
				if r := finish(t, f, decode(t, goodJob(i))); r.Outcome != jobs.Succeeded {
					t.Errorf("job %d: %s %s", i, r.Error, r.Detail)
				}
			}
		})
	}
	slots.Wait()
	f.Close()
	left := timeWaits(l.Addr())
	const plain = 200
	for range plain {
		if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
			_ = c.Close()
		}
	}
	before := timeWaits(l.Addr()) - left
	_ = l.Close()
	served.Wait()
	return row{
		name: "26 ports in TIME_WAIT after so many connections to a gateway", where: "loopback", aim: "none", baseline: fmt.Sprintf("%d of %d, closed", before, plain),
		gofer: fmt.Sprintf("%d of %d", left, total), gain: "–", met: left == 0,
	}
}

// timeWaits counts the connections to an address that are in TIME_WAIT (proc_net_tcp(5)).
func timeWaits(addr net.Addr) (n int) {
	text, _ := os.ReadFile("/proc/net/tcp")
	remote := fmt.Sprintf(":%04X", addr.(*net.TCPAddr).Port)
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 3 && strings.HasSuffix(f[2], remote) && f[3] == "06" {
			n++
		}
	}
	return n
}
