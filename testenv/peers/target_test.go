package peers_test

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"text/tabwriter"
	"time"

	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// trace is an hour of jobs in virtual time, each proxy's share being one in five seconds, for twenty sites of which one is
// dead and one may hang on some of its paths, through proxies of which a few are dead. All that a worker sees of a failure is
// that no answer came: it cannot tell a dead site from a dead proxy.
type trace struct {
	seed    uint64
	proxies int
	dead    int     // the first ones
	share   float64 // of the jobs that are for the dead site, or for dead sites
	hangs   float64 // of the jobs that are for a path that hangs; as many more are for another path of that site, which answers
	crawl   bool    // every job is for a site of its own, and ten times as many come in the time
}

const (
	sites    = 20
	attempts = 3
	hour     = 720 // jobs a proxy
	pause    = 5 * time.Second
	flaky    = 0.01 // of the attempts through a good proxy to a good site fail
)

// chooser picks a proxy that is not among those that failed this job, or none.
type chooser interface {
	pick(host string, failed []int) (proxy int, settle func(ok bool), found bool)
	open(proxy int) bool
}

// plain takes the proxies in turn, behind a breaker each.
type plain struct {
	judges []judge
	next   int
}

func (p *plain) pick(_ string, failed []int) (int, func(bool), bool) {
	for range p.judges {
		p.next = (p.next + 1) % len(p.judges)
		if slices.Contains(failed, p.next) {
			continue
		}
		if settle, admitted := p.judges[p.next].allow(); admitted {
			return p.next, settle, true
		}
	}
	return 0, nil, false
}

func (p *plain) open(proxy int) bool { return p.judges[proxy].open() }

// gofer is the rotation of this module as it comes.
type gofer struct{ pool *rotation.Pool }

func newGofer(n int) gofer {
	g := gofer{rotation.New(rotation.Config{})}
	list := make([]proxylist.Proxy, n)
	for i := range list {
		list[i] = proxylist.Proxy{ID: fmt.Sprint(i), URL: &url.URL{Scheme: "http", Host: fmt.Sprintf("p%d.test:80", i)}}
	}
	g.pool.Replace(list)
	return g
}

func (g gofer) pick(host string, failed []int) (proxy int, settle func(bool), found bool) {
	var names []string
	for _, i := range failed {
		names = append(names, fmt.Sprint(i))
	}
	lease, _, err := g.pool.Pick(rotation.Need{Host: host, Exclude: names})
	if err != nil {
		return 0, nil, false
	}
	_, _ = fmt.Sscan(lease.ID(), &proxy)
	return proxy, func(ok bool) {
		kind := rotation.Unclear
		if ok {
			kind = rotation.Relayed
		}
		lease.Report(rotation.Verdict{Kind: kind, Reason: "timeout"})
	}, true
}

func (g gofer) open(proxy int) bool {
	s, _ := g.pool.StatusOf(fmt.Sprint(proxy))
	return time.Until(s.NextTest) > 0
}

// tally is what came of a trace.
type tally struct {
	wrong, worst float64 // the share of good proxies that were open: of the time, and at the worst moment
	found        float64 // the share of the time that dead proxies were open
	lost, good   int     // jobs for good sites
	wasted       int     // attempts through dead proxies
}

func (tr trace) run(t *testing.T, way func() chooser) (sum tally) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		c := way()
		looks := 0 // one as long as a proxy's share takes
		jobs := hour * tr.proxies
		if tr.crawl {
			jobs *= 10
		}
		for n := range jobs {
			time.Sleep(hour * pause / time.Duration(jobs))
			tr.job(c, n, &sum)
			if n%tr.proxies == 0 {
				looks++
				tr.look(c, &sum)
			}
		}
		sum.wrong /= float64(looks)
		sum.found /= float64(looks)
	})
	return sum
}

// luck is the same for everyone who chooses: it goes by the job, and by the proxy that an attempt is made through.
func (tr trace) luck(job, proxy int) *rand.Rand {
	return rand.New(rand.NewPCG(tr.seed, uint64(job)<<32|uint64(proxy)))
}

func (tr trace) job(c chooser, n int, sum *tally) {
	const itself = 1 << 31
	luck := tr.luck(n, itself)
	host, good := fmt.Sprintf("site%d.test:443", 1+luck.IntN(sites-1)), true
	switch kind := luck.Float64(); {
	case tr.crawl:
		host, good = fmt.Sprintf("page%d.test:443", n), kind >= tr.share
	case kind < tr.share:
		host, good = "dead.test:443", false
	case kind < tr.share+2*tr.hangs:
		host, good = "half.test:443", kind < tr.share+tr.hangs
	}
	if good {
		sum.good++
	}
	var failed []int
	for range attempts {
		proxy, settle, found := c.pick(host, failed)
		if !found {
			break
		}
		dead := proxy < tr.dead
		if dead {
			sum.wasted++
		}
		ok := good && !dead && tr.luck(n, proxy).Float64() >= flaky
		settle(ok)
		if ok {
			return
		}
		failed = append(failed, proxy)
	}
	if good {
		sum.lost++
	}
}

func (tr trace) look(c chooser, sum *tally) {
	wrong, found := 0, 0
	for i := range tr.proxies {
		switch open := c.open(i); {
		case open && i < tr.dead:
			found++
		case open:
			wrong++
		}
	}
	share := float64(wrong) / float64(tr.proxies-tr.dead)
	sum.wrong += share
	sum.worst = max(sum.worst, share)
	sum.found += float64(found) / float64(max(1, tr.dead))
}

// traces are one dead site of twenty, a site of which half hangs, and crawls that meet every site once.
var traces = []trace{
	{seed: 1, proxies: 50, dead: 0, share: 0.2},
	{seed: 1, proxies: 50, dead: 5, share: 0.2},
	{seed: 2, proxies: 200, dead: 20, share: 0.2},
	{seed: 3, proxies: 50, dead: 5, share: 0.5},
	{seed: 4, proxies: 50, dead: 0, hangs: 0.2},
	{seed: 5, proxies: 50, dead: 5, share: 0.2, hangs: 0.1},
	{seed: 6, proxies: 50, dead: 0, share: 0.1, crawl: true},
	{seed: 7, proxies: 50, dead: 5, share: 0.1, crawl: true},
	{seed: 8, proxies: 50, dead: 5, share: 0.2, crawl: true},
	{seed: 9, proxies: 50, dead: 5, share: 0.3, crawl: true},
}

// TestDeadTargetsOpenNoHealthyProxy prints how many good proxies each way to judge takes out because of dead sites, and holds
// gofer to 1 % of them and hardly a lost job, while it still finds the dead proxies.
func TestDeadTargetsOpenNoHealthyProxy(t *testing.T) {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "proxies\tdead\tsites\tjobs for dead ones\tfor a path that hangs\tjudged by\tgood proxies open\tat worst\tdead proxies open\tattempts through those\tjobs for good sites lost")
	for _, tr := range traces {
		n := fmt.Sprint(sites)
		if tr.crawl {
			n = "ever new"
		}
		for name, way := range tr.ways() {
			got := tr.run(t, way)
			_, _ = fmt.Fprintf(w, "%d\t%d\t%s\t%.0f %%\t%.0f %%\t%s\t%.2f %%\t%.0f %%\t%.0f %%\t%d\t%d of %d\n", tr.proxies, tr.dead, n, 100*tr.share, 100*tr.hangs, name,
				100*got.wrong, 100*got.worst, 100*got.found, got.wasted, got.lost, got.good)
			if name == "gofer" {
				tr.hold(t, got)
			}
		}
	}
	_ = w.Flush()
	t.Logf("\n%s", text.String())
}

// ways are gofer's and that of each library, in order.
func (tr trace) ways() iter.Seq2[string, func() chooser] {
	return func(yield func(string, func() chooser) bool) {
		if !yield("gofer", func() chooser { return newGofer(tr.proxies) }) {
			return
		}
		for _, lib := range libraries() {
			if lib.make == nil {
				continue
			}
			name := lib.name
			if name == "gofer" {
				name = "plain rule"
			}
			way := func() chooser {
				p := new(plain)
				for range tr.proxies {
					p.judges = append(p.judges, lib.make())
				}
				return p
			}
			if !yield(name, way) {
				return
			}
		}
	}
}

func (tr trace) hold(t *testing.T, got tally) {
	t.Helper()
	if got.wrong > 0.01 || tr.dead == 0 && got.lost > 0 || got.lost > got.good/1000 {
		t.Errorf("%+v: %.2f %% of the good proxies open, %d of %d jobs for good sites lost; want at most 1 %%, and none or hardly any", tr, 100*got.wrong, got.lost, got.good)
	}
	if tr.dead > 0 && got.found < 0.9 {
		t.Errorf("%+v: dead proxies open %.0f %% of the time, want nearly all of it", tr, 100*got.found)
	}
}
