package peers_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv/network"
)

// join makes a worker of one of the two kinds.
type join func(*network.Web, network.Config) *network.Station

// arm is a kind of worker.
type arm struct {
	name string
	join join
}

func arms() []arm {
	gofer := func(w *network.Web, cfg network.Config) *network.Station {
		cfg.Rests = true
		return network.NewStation(w, cfg)
	}
	return []arm{{"gobreaker", newNaive}, {"gofer", gofer}}
}

// scale is how long the worlds last: a little in each run of the tests, all of it with EXPERIMENTS=full.
type scale struct {
	seeds                        []uint64
	slots                        int
	quiet, silence, crawl, asked time.Duration
	sockets                      time.Duration
}

func chosen() scale {
	if os.Getenv("EXPERIMENTS") == "full" {
		return scale{seeds: []uint64{1, 2, 3}, slots: 64, quiet: 500 * time.Second, silence: 30 * time.Minute, crawl: 2 * time.Minute, asked: 30 * time.Minute, sockets: 20 * time.Second}
	}
	return scale{seeds: []uint64{1}, slots: 16, quiet: time.Minute, silence: 3 * time.Minute, crawl: time.Minute, asked: 15 * time.Minute, sockets: 2 * time.Second}
}

func isSilent(host string, _ time.Duration) bool { return strings.HasPrefix(host, "silent") }

func answers(string, time.Duration) bool { return false }

// experiment is a world and its figure.
type experiment struct {
	name   string
	run    func(*testing.T, scale, uint64, join) float64
	format string
	more   bool // more is better
	real   bool // it takes real time, and no seed decides it
}

// TestSilenceCostsAFleetThatKnowsNoSitesMore prints what both kinds of worker make of the worlds 11 to 27 of package experiments.
// The worst seed counts.
func TestSilenceCostsAFleetThatKnowsNoSitesMore(t *testing.T) {
	s := chosen()
	var text strings.Builder
	out := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(out, "world\tgobreaker\tgofer")
	for _, world := range append([]experiment{
		{"18 99 % of the jobs are done within, 2 of 100 proxies silent", silentProxies(jobs.Off, 0.99), "%.2f s", false, false},
		{"18 99.9 %", silentProxies(jobs.Off, 0.999), "%.2f s", false, false},
		{"19 99.9 % with hedges", silentProxies(jobs.Auto, 0.999), "%.2f s", false, false},
		{"21 throughput of others while 30 % of the jobs are for ten silent sites", partlySilent, "%.1f %%", true, false},
		{"22 throughput of a crawl, one site in ten silent", crawl, "%.1f %%", true, false},
		{"23 requests an hour that ten workers send to a silent site", requests, "%.0f", false, false},
		{"24 jobs lost by a worker without network for two minutes", lostUplink, "%.0f", false, false},
		{"27 as 21, on sockets of the kernel", onSockets, "%.1f %%", true, true},
	}, accusations()...) {
		worst := map[string]float64{}
		for _, a := range arms() {
			var of []float64
			seeds := s.seeds
			if world.real {
				seeds = seeds[:1]
			}
			for _, seed := range seeds {
				of = append(of, world.run(t, s, seed, a.join))
			}
			if worst[a.name] = slices.Max(of); world.more {
				worst[a.name] = slices.Min(of)
			}
		}
		_, _ = fmt.Fprintf(out, "%s\t"+world.format+"\t"+world.format+"\n", world.name, worst["gobreaker"], worst["gofer"])
		if better := worst["gofer"] > worst["gobreaker"]; !world.real && better != world.more && worst["gofer"] != worst["gobreaker"] {
			t.Errorf("%s: got %v, want gofer to be better", world.name, worst)
		}
	}
	_ = out.Flush()
	t.Logf("\n%s", text.String())
}

// silentProxies is a hundred proxies, two of which answer nothing, and twenty jobs a second for fifty sites.
func silentProxies(hedge jobs.AutoDuration, q float64) func(*testing.T, scale, uint64, join) float64 {
	return func(t *testing.T, s scale, seed uint64, join join) float64 {
		t.Helper()
		var w *network.Station
		network.Play(t, s.quiet+3*time.Minute, func() []*network.Station {
			net := network.NewWeb(seed, answers)
			net.Proxies, net.Median = 100, 300*time.Millisecond
			net.Dead = func(proxy string) bool { return proxy == "p17" || proxy == "p58" }
			w = join(net, network.Config{Slots: 128, Hedge: hedge})
			net.Go(func() {
				for i := range int(s.quiet / (50 * time.Millisecond)) {
					w.Add(fmt.Sprintf("http://site%d.test/%d", i%50, i))
					time.Sleep(50 * time.Millisecond)
				}
			})
			return []*network.Station{w}
		})
		var took []time.Duration
		for _, e := range w.Ended() {
			took = append(took, e.Took)
		}
		slices.Sort(took)
		return took[int(q*float64(len(took)))].Seconds()
	}
}

func partlySilent(t *testing.T, s scale, seed uint64, join join) float64 {
	t.Helper()
	one := func(silent func(string, time.Duration) bool) float64 {
		var w *network.Station
		network.Play(t, s.silence, func() []*network.Station {
			net := network.NewWeb(seed, silent)
			net.Quick = func(host string) bool { return isSilent(host, 0) }
			w = join(net, network.Config{Slots: s.slots, Next: network.PartlySilent})
			return []*network.Station{w}
		})
		return w.Succeeded(time.Minute)
	}
	return 100 * one(isSilent) / one(answers)
}

func crawl(t *testing.T, s scale, seed uint64, join join) float64 {
	t.Helper()
	one := func(silent func(string, time.Duration) bool) float64 {
		var w *network.Station
		network.Play(t, s.crawl, func() []*network.Station {
			w = join(network.NewWeb(seed, silent), network.Config{Slots: s.slots, Timeout: 2 * time.Second, Next: network.Crawl})
			return []*network.Station{w}
		})
		return w.Succeeded(s.crawl / 4)
	}
	return 100 * one(isSilent) / one(answers)
}

// requests counts what ten workers send to one silent site, an hour.
func requests(t *testing.T, s scale, seed uint64, join join) float64 {
	t.Helper()
	var net *network.Web
	network.Play(t, s.asked, func() (fleet []*network.Station) {
		net = network.NewWeb(seed, isSilent)
		for n := range 10 {
			w := join(net, network.Config{Slots: 8})
			fleet = append(fleet, w)
			net.Go(func() {
				time.Sleep(time.Duration(n) * 317 * time.Millisecond)
				for i := range int(s.asked / (3 * time.Second)) {
					w.Add(fmt.Sprintf("http://site%d.test/%d", i%7, i))
					if i%3 == 0 {
						w.Add(fmt.Sprintf("http://silent.test/%d/%d", n, i))
					}
					time.Sleep(3 * time.Second)
				}
			})
		}
		return fleet
	})
	var late int
	for _, at := range net.Asked("silent.test") {
		if at >= time.Minute {
			late++
		}
	}
	return float64(late) / (s.asked - time.Minute).Hours()
}

// lostUplink counts the jobs that fail, none of which is for a site that is silent.
func lostUplink(t *testing.T, _ scale, seed uint64, join join) (lost float64) {
	t.Helper()
	var w *network.Station
	network.Play(t, 5*time.Minute, func() []*network.Station {
		w = join(network.NewWeb(seed, answers), network.Config{
			Slots: 16, Cut: func(at time.Duration) bool { return at > time.Minute && at < 3*time.Minute },
			Next: func(i int) string {
				return fmt.Sprintf("http://site%d.test/%d", network.Hash(fmt.Sprint(seed, i))%100, i)
			},
		})
		return []*network.Station{w}
	})
	for _, e := range w.Ended() {
		if !e.OK {
			lost++
		}
	}
	return lost
}

// onSockets is partlySilent in real time, with attempts of a second. The worlds with and without silent sites run beside each
// other.
func onSockets(t *testing.T, s scale, seed uint64, join join) float64 {
	t.Helper()
	const settle = 4 * time.Second
	got := make([]float64, 2)
	var running sync.WaitGroup
	for i, silent := range []func(string, time.Duration) bool{isSilent, answers} {
		running.Go(func() {
			net := network.NewWeb(seed, silent)
			net.Quick = func(host string) bool { return isSilent(host, 0) }
			net.Listen(t)
			w := join(net, network.Config{Slots: 64, Timeout: time.Second, Next: network.PartlySilent})
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(settle+s.sockets, func() { cancel(jobs.ErrStopping) })
			w.Run(ctx, t)
			got[i] = w.Succeeded(settle)
		})
	}
	running.Wait()
	return 100 * got[0] / got[1]
}
