package experiments_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/rotation/sites"
)

// rests are the worlds in which sites do not answer.
func rests(t *testing.T, s size) []row {
	t.Helper()
	return []row{silentSites(t, s), crawl(t, s), asks(t, s), brokenUplink(t, s), socketSites(t, s)}
}

// succeeded counts the jobs of other sites than the silent ones that succeeded after a time.
func (s *station) succeeded(after time.Duration) (n float64) {
	for _, e := range s.ended {
		if e.ok && e.at >= after && !strings.HasPrefix(e.host, "silent") {
			n++
		}
	}
	return n
}

// silentSites is a full queue in which 30 % of the jobs are for ten silent sites.
func silentSites(t *testing.T, s size) row {
	t.Helper()
	var plain, rested []float64
	for _, seed := range s.seeds {
		one := func(answers, rests bool) float64 {
			var w *station
			inFleet(t, s.silence, func() []*station {
				net := newWeb(seed, func(host string, _ time.Duration) bool { return !answers && strings.HasPrefix(host, "silent") })
				net.quick = func(host string) bool { return strings.HasPrefix(host, "silent") }
				w = newStation(net, s.slots, rests, 0)
				w.next = func(i int) string {
					if i%10 < 3 {
						return fmt.Sprintf("http://silent%d.test/%d", i/10%10, i)
					}
					return fmt.Sprintf("http://site%d.test/%d", i%20, i)
				}
				return []*station{w}
			})
			return w.succeeded(time.Minute)
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
	for _, seed := range s.seeds {
		one := func(dead bool, slots int, perSecond float64) float64 {
			var w *station
			inFleet(t, s.crawl, func() []*station {
				net := newWeb(seed, func(host string, _ time.Duration) bool { return dead && strings.HasPrefix(host, "silent") })
				w = newStation(net, slots, true, 2*time.Second)
				next := func(i int) string {
					if i%10 == 3 {
						return fmt.Sprintf("http://silent%d.test/", i)
					}
					return fmt.Sprintf("http://site%d.test/", i)
				}
				if w.next = next; perSecond > 0 {
					w.next = nil
					net.wg.Go(func() {
						for i := range int(s.crawl.Seconds() * perSecond) {
							w.add(next(i))
							time.Sleep(time.Duration(float64(time.Second) / perSecond))
						}
					})
				}
				return []*station{w}
			})
			return w.succeeded(s.crawl/4) / (s.crawl - s.crawl/4).Seconds()
		}
		ideal := one(false, s.slots, 0)
		at64 = append(at64, one(true, s.slots, 0)/ideal)
		at512 = append(at512, one(true, 8*s.slots, ideal/0.9)/ideal)
	}
	return row{
		name: "22 throughput of a crawl, each site once, one in ten silent, of what it is without these", where: fmt.Sprintf("attempts of 2 s, %d and %d slots", s.slots, 8*s.slots),
		aim: "≥ 40 %, ≥ 90 %", baseline: "–", gofer: percent(slices.Min(at64)) + ", " + percent(slices.Min(at512)), seeds: s.String(),
		met: slices.Min(at64) >= 0.4 && slices.Min(at512) >= 0.9, exact: true,
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
			var fleet []*station
			var net *web
			inFleet(t, s.asks, func() []*station {
				fleet = nil
				net = newWeb(seed, func(host string, at time.Duration) bool { return host == "silent.test" && at < back })
				for n := range 10 {
					w := newStation(net, 8, rests, 0)
					fleet = append(fleet, w)
					net.wg.Go(func() {
						time.Sleep(time.Duration(n) * 317 * time.Millisecond)
						for i := range int(s.asks / (3 * time.Second)) {
							w.add(fmt.Sprintf("http://site%d.test/%d", i%7, i))
							if i%3 == 0 {
								w.add(fmt.Sprintf("http://silent.test/%d/%d", n, i))
							}
							time.Sleep(3 * time.Second)
						}
					})
				}
				return fleet
			})
			var asked int
			for _, at := range net.asked["silent.test"] {
				if at >= time.Minute && at < back {
					asked++
				}
			}
			late = s.asks
			for _, w := range fleet {
				for _, e := range w.ended {
					if e.host == "silent.test" && e.ok {
						late = min(late, e.at-back)
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
		var fleet []*station
		inFleet(t, 5*time.Minute, func() []*station {
			fleet = nil
			net := newWeb(seed, func(string, time.Duration) bool { return false })
			for n := range 3 {
				w := newStation(net, 16, true, 0)
				w.next = func(i int) string {
					// Two in five of the jobs are for one site, and most sites are asked now and then.
					host := 0
					if i%5 > 1 {
						host = 1 + int(fnvOf(fmt.Sprint(seed, n, i))%100)
					}
					return fmt.Sprintf("http://site%d.test/%d/%d", host, n, i)
				}
				if n == 0 {
					w.cut = func(at time.Duration) bool { return at > time.Minute && at < 3*time.Minute }
				}
				fleet = append(fleet, w)
			}
			return fleet
		})
		for n, w := range fleet {
			for _, e := range w.events {
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
