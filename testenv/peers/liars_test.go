package peers_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/testenv/network"
)

// town is a world in which nothing is silent, but some answers accuse the proxy that brings them.
type town struct {
	proxies  int
	gateways bool
	// says is the status of an answer, as network.Web has it.
	says func(proxy, host string, connection int) int
	// more is the host of a job beside each one for a good site; nil means none.
	more func(i int) string
}

// accusations are the worlds 11, 12, 13 and 26 of package experiments. The figure is how many jobs for the ten good sites bring
// 200.
func accusations() []experiment {
	const bad = http.StatusBadGateway
	dead := func(_, host string, _ int) int {
		if strings.HasPrefix(host, "dead") {
			return bad
		}
		return http.StatusOK
	}
	var all []experiment
	for _, w := range []struct {
		name string
		town
	}{
		{"11 results that are 200, one proxy of twelve banned by 403", town{proxies: 12, says: func(proxy, _ string, _ int) int {
			if proxy == "p03" {
				return http.StatusForbidden
			}
			return http.StatusOK
		}}},
		{"12 the same beside jobs for a page that is forbidden to all twelve", town{proxies: 12, more: func(int) string { return "members.test" }, says: func(_, host string, _ int) int {
			if host == "members.test" {
				return http.StatusForbidden
			}
			return http.StatusOK
		}}},
		{"13 the same beside a proxy of ten that claims to reach 40 dead sites", town{proxies: 10, more: func(i int) string { return fmt.Sprintf("dead%d.test", i%40) }, says: func(proxy, host string, n int) int {
			if proxy == "p00" {
				return http.StatusOK
			}
			return dead(proxy, host, n)
		}}},
		{"13 beside two sites that accuse five of ten proxies", town{proxies: 10, more: func(i int) string { return fmt.Sprintf("evil%d.test", i%2) }, says: func(proxy, host string, _ int) int {
			if strings.HasPrefix(host, "evil") && proxy < "p05" {
				return bad
			}
			return http.StatusOK
		}}},
		{"13 beside a publisher of dead names", town{proxies: 10, more: func(i int) string { return fmt.Sprintf("dead%d.test", i) }, says: dead}},
		{"26 the same through a gateway, one exit of five bad", town{proxies: 1, gateways: true, says: func(_, _ string, n int) int {
			if network.Hash(fmt.Sprint(n))%5 == 0 {
				return bad
			}
			return http.StatusOK
		}}},
	} {
		all = append(all, experiment{w.name, w.run, "%.1f %%", true, false})
	}
	return all
}

// run publishes forty jobs a second for good sites, and as many others.
func (w town) run(t *testing.T, s scale, seed uint64, join join) float64 {
	t.Helper()
	var worker *network.Station
	count := int(s.crawl / (25 * time.Millisecond))
	network.Play(t, s.crawl+time.Minute, func() []*network.Station {
		web := network.NewWeb(seed, answers)
		web.Proxies, web.Gateways, web.Says, web.Median = w.proxies, w.gateways, w.says, 100*time.Millisecond
		worker = join(web, network.Config{Slots: 128})
		web.Go(func() {
			for i := range count {
				worker.Add(fmt.Sprintf("http://good%d.test/%d", i%10, i))
				if w.more != nil {
					worker.Add(fmt.Sprintf("http://%s/%d", w.more(i), i))
				}
				time.Sleep(25 * time.Millisecond)
			}
		})
		return []*network.Station{worker}
	})
	good := 0
	for _, e := range worker.Ended() {
		if e.Status == http.StatusOK && strings.HasPrefix(e.Host, "good") {
			good++
		}
	}
	return 100 * float64(good) / float64(count)
}
