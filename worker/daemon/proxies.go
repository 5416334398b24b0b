package daemon

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/worker/control"
)

// answerProxies answers control.Proxies. It reads a fraction of the state of each proxy, and all of it only of those that use
// takes.
func (d *daemon) answerProxies(r control.ProxiesRequest, use func(control.Proxy) bool) control.ProxiesResponse {
	answer, told := control.ProxiesResponse{Total: d.pool.Len()}, map[string]bool{}
	if r.Worker == "" {
		var noted []string
		answer, noted = d.poolNumbers()
		for _, id := range noted {
			told[id] = true
			if s, found := d.pool.StatusOf(id); found && !use(d.proxyView(&s)) {
				return answer
			}
		}
	}
	for from := r.From; ; from += listStep {
		list := d.pool.StatusFrom(from, listStep)
		for i := range list {
			if !told[list[i].ID] && !use(d.proxyView(&list[i])) {
				return answer
			}
		}
		if len(list) < listStep {
			return answer
		}
	}
}

const (
	// maxNoted is how many proxies are put first, more than an answer has room for.
	maxNoted = 1000
	// listStep is how many proxies are read at once.
	listStep = 256
)

// poolNumbers looks at each proxy of the pool. It returns the ids of those that are put first, the worst before the others.
func (d *daemon) poolNumbers() (answer control.ProxiesResponse, noted []string) {
	answer.States = map[string]int{}
	var worst [4][]string
	var sum uint64
	for c := range d.pool.Conditions() {
		state, rank := c.State.String(), -1
		switch {
		case c.State == breaker.Open:
			rank = 0
		case c.State == breaker.HalfOpen:
			rank = 1
		case c.IsAvoided:
			state, rank = avoidedState, 2
		case c.Cooldowns > 0:
			rank = 3
		}
		answer.Total++
		answer.States[state]++
		if rank >= 0 {
			answer.Noted++
			if len(worst[rank]) < maxNoted {
				worst[rank] = append(worst[rank], c.ID)
			}
		}
		h := fnv.New64a()
		_, _ = h.Write([]byte(c.ID))
		sum += h.Sum64() // the order does not count
	}
	answer.Pool = fmt.Sprintf("%016x", sum)
	if since, failing := d.pool.Outage(); failing {
		since = since.UTC()
		answer.FailingSince = &since
	}
	for _, ids := range worst {
		noted = append(noted, ids...)
	}
	return answer, noted[:min(len(noted), maxNoted)]
}

// unusual are the proxies of the pool whose share of 4xx is unusual, at most control.MaxUnusual.
func (d *daemon) unusual() (list []control.UnusualProxy) {
	found := d.answers.Unusual()
	for _, id := range slices.Sorted(maps.Keys(found)) {
		if _, known := d.pool.StatusOf(id); known && len(list) < control.MaxUnusual {
			list = append(list, control.UnusualProxy{ProxyID: id, Unusual: found[id]})
		}
	}
	return list
}

// avoidedState is the state of a proxy that this worker's breaker lets through and that another worker found dead.
const avoidedState = "avoided"

// proxyView is a proxy of the pool as the fleet sees it.
func (d *daemon) proxyView(s *rotation.Status) control.Proxy {
	p := control.Proxy{
		ID: s.ID, Addr: s.Addr, Kind: "proxy", Tags: s.Tags, Region: s.Region, Weight: s.Weight, MaxInflight: s.MaxInflight, Rate: s.Rate, Source: "worker",
		State: s.State.String(), Reason: s.Reason, Failures: s.Failures, Threshold: s.Threshold, Bans: s.Cooldowns, InFlight: s.Inflight,
		ExitsTried: s.ExitsTried, ExitsFailed: s.ExitsFailed,
	}
	if p.Tags == nil {
		p.Tags = []string{}
	}
	if s.Gateway {
		p.Kind = "gateway"
	}
	if d.settings.IsShared(s.ID) {
		p.Source = "bucket"
	}
	until := s.NextTest
	if s.State == breaker.Closed && !s.AvoidedUntil.IsZero() {
		p.State, until = avoidedState, s.AvoidedUntil
		p.Reason = "found dead by " + cmp.Or(s.AvoidedBy, "another worker")
	}
	if u, found := d.answers.Unusual()[s.ID]; found {
		p.Unusual = &u
	}
	if !until.IsZero() {
		until = until.UTC()
		p.Until = &until
	}
	return p
}
