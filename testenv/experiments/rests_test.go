package experiments_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/rotation/sites"
	"github.com/gofer-mq/gofer/testenv/network"
)

// rests are the worlds in which sites do not answer.
func rests(t *testing.T, s size) []row {
	t.Helper()
	return []row{silentSites(t, s), crawl(t, s), asks(t, s), brokenUplink(t, s), socketSites(t, s)}
}

// silentSites is a full queue in which 30 % of the jobs are for ten silent sites.
func silentSites(t *testing.T, s size) row {
	t.Helper()
	var plain, rested []float64
	for _, seed := range s.seeds {
		one := func(answers, rests bool) float64 {
			var w *network.Station
			network.Play(t, s.silence, func() []*network.Station {
				net := network.NewWeb(seed, func(host string, _ time.Duration) bool { return !answers && strings.HasPrefix(host, "silent") })
				net.Quick = func(host string) bool { return strings.HasPrefix(host, "silent") }
				w = network.NewStation(net, network.Config{Slots: s.slots, Rests: rests, Next: network.PartlySilent})
				return []*network.Station{w}
			})
			return w.Succeeded(time.Minute)
		}
		ideal := one(true, false)
		plain, rested = append(plain, one(false, false)/ideal), append(rested, one(false, true)/ideal)
	}
	return row{
		name: "21 throughput of others, of what it is if they answer at once: 30 % of the jobs are for ten silent sites", where: fmt.Sprintf("%d slots, %s", s.slots, s.silence),
		aim: "≥ 97 % after a minute", baseline: percent(average(plain)), gofer: percent(slices.Min(rested)) + " at least", gain: fmt.Sprintf("×%.1f", average(rested)/average(plain)),
		// The tests of the first minutes cost more than later ones.
		seeds: s.String(), met: slices.Min(rested) >= 0.97, exact: s.more,
	}
}

// crawl asks each site once; one in ten is silent.
func crawl(t *testing.T, s size) row {
	t.Helper()
	var at64, at512 []float64
	opened := 0 // breakers of proxies, all of which work
	for _, seed := range s.seeds {
		one := func(dead bool, slots int, perSecond float64) float64 {
			var w *network.Station
			network.Play(t, s.crawl, func() []*network.Station {
				net := network.NewWeb(seed, func(host string, _ time.Duration) bool { return dead && strings.HasPrefix(host, "silent") })
				cfg := network.Config{Slots: slots, Rests: true, Timeout: 2 * time.Second, Next: network.Crawl}
				if perSecond > 0 {
					cfg.Next = nil
				}
				if w = network.NewStation(net, cfg); perSecond > 0 {
					net.Go(func() {
						for i := range int(s.crawl.Seconds() * perSecond) {
							w.Add(network.Crawl(i))
							time.Sleep(time.Duration(float64(time.Second) / perSecond))
						}
					})
				}
				return []*network.Station{w}
			})
			opened += w.Opened()
			return w.Succeeded(s.crawl/4) / (s.crawl - s.crawl/4).Seconds()
		}
		ideal := one(false, s.slots, 0)
		at64 = append(at64, one(true, s.slots, 0)/ideal)
		at512 = append(at512, one(true, 8*s.slots, ideal/0.9)/ideal)
	}
	return row{
		name: "22 throughput of a crawl, each site once, one in ten silent, of what it is without these", where: fmt.Sprintf("attempts of 2 s, %d and %d slots", s.slots, 8*s.slots),
		aim: "≥ 40 %, ≥ 90 %, no breaker opens", baseline: "–", gofer: fmt.Sprintf("%s, %s, %d", percent(slices.Min(at64)), percent(slices.Min(at512)), opened),
		seeds: s.String(), met: slices.Min(at64) >= 0.4 && slices.Min(at512) >= 0.9 && opened == 0, exact: true,
	}
}

// asks is a fleet of ten workers with jobs for one silent site, which answers again in the end.
func asks(t *testing.T, s size) row {
	t.Helper()
	var hourly, plain []float64
	var lag time.Duration
	for _, seed := range s.seeds {
		one := func(rests bool) (perHour float64, late time.Duration) {
			back := s.asks - 8*time.Minute
			var fleet []*network.Station
			var net *network.Web
			network.Play(t, s.asks, func() []*network.Station {
				fleet = nil
				net = network.NewWeb(seed, func(host string, at time.Duration) bool { return host == "silent.test" && at < back })
				for n := range 10 {
					w := network.NewStation(net, network.Config{Slots: 8, Rests: rests})
					fleet = append(fleet, w)
					net.Go(func() {
						time.Sleep(time.Duration(n) * 317 * time.Millisecond)
						for i := range int(s.asks / (3 * time.Second)) {
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
			var asked int
			for _, at := range net.Asked("silent.test") {
				if at >= time.Minute && at < back {
					asked++
				}
			}
			late = s.asks
			for _, w := range fleet {
				for _, e := range w.Ended() {
					if e.Host == "silent.test" && e.OK {
						late = min(late, e.At-back)
					}
				}
			}
			return float64(asked) / (back - time.Minute).Hours(), late
		}
		perHour, late := one(true)
		hourly, lag = append(hourly, perHour), max(lag, late)
		without, _ := one(false)
		plain = append(plain, without)
	}
	return row{
		name: "23 requests an hour that ten workers send to a silent site after the first minute, and when its first job runs after it answers again", where: s.asks.String(),
		aim: "≤ 60, ≤ 302 s", baseline: count(int(average(plain))), gofer: count(int(slices.Max(hourly))) + " at most, " + lag.Round(time.Second).String(), seeds: s.String(),
		met: slices.Max(hourly) <= 60 && lag <= 302*time.Second, exact: s.more, // likewise
	}
}

// brokenUplink is a fleet of three, of which one loses its network for two minutes.
func brokenUplink(t *testing.T, s size) row {
	t.Helper()
	var own, others int
	for _, seed := range s.seeds {
		var fleet []*network.Station
		network.Play(t, 5*time.Minute, func() []*network.Station {
			fleet = nil
			net := network.NewWeb(seed, func(string, time.Duration) bool { return false })
			for n := range 3 {
				cfg := network.Config{Slots: 16, Rests: true}
				cfg.Next = func(i int) string {
					// Two in five of the jobs are for one site, and most sites are asked now and then.
					host := 0
					if i%5 > 1 {
						host = 1 + int(network.Hash(fmt.Sprint(seed, n, i))%100)
					}
					return fmt.Sprintf("http://site%d.test/%d/%d", host, n, i)
				}
				if n == 0 {
					cfg.Cut = func(at time.Duration) bool { return at > time.Minute && at < 3*time.Minute }
				}
				fleet = append(fleet, network.NewStation(net, cfg))
			}
			return fleet
		})
		for n, w := range fleet {
			for _, e := range w.Events() {
				if e.State == sites.Resting && e.From != sites.Testing {
					if n == 0 {
						own++
					} else {
						others++
					}
				}
			}
		}
	}
	return row{
		name: "24 sites that rest in the other two of three workers while one has lost its network for two minutes", where: "16 slots each, 101 sites",
		aim: "0", baseline: count(own) + " in the one", gofer: count(others), seeds: s.String(), met: others == 0, exact: true,
	}
}

func average(of []float64) (sum float64) {
	for _, x := range of {
		sum += x
	}
	return sum / float64(len(of))
}
