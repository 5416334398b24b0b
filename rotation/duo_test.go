package rotation_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// pick asks both for a proxy, and reports whether there was one.
func (d *duo) pick(t *rapid.T, need rotation.Need) bool {
	offered := d.plain.offered(need)
	if d.most > maxWakeups {
		offered = d.plain.usable(need)
	}
	want := d.plain.refuse(need)
	lease, events, err := d.Pick(need)
	if want != nil {
		delete(d.sessions, position(need))
		none, ok := errors.AsType[*rotation.NoProxyError](err)
		if ok {
			want.Cooling, want.Open = none.Cooling, none.Open // the plain pool does not tell a cooldown from a breaker
		}
		if !ok || *none != *want || none.Cooling+none.Open > none.Proxies || len(events) > 0 {
			t.Fatalf("pick %+v: got %v, %+v, want the refusal %+v", need, err, events, want)
		}
		return false
	}
	if err != nil {
		t.Fatalf("pick %+v: got the refusal %+v, want one of %s", need, err, names(offered))
	}
	i := slices.IndexFunc(offered, func(m *member) bool { return m.ID == lease.ID() })
	if i < 0 {
		t.Fatalf("pick %+v: got %s, want one of %s", need, lease.ID(), names(offered))
	}
	m := offered[i]
	if need.ID == "" && d.most <= maxWakeups {
		d.choice(t, need, m, offered, lease.IsProbe())
	}
	ticket, event := d.plain.take(m, need.Host)
	if ticket.probe != lease.IsProbe() || !slices.Equal(events, wrap(m.ID, event)) {
		t.Fatalf("pick of %s: got probe %v, events %+v; want %v, %+v", m.ID, lease.IsProbe(), events, ticket.probe, event)
	}
	d.leases, d.tickets = append(d.leases, &lease), append(d.tickets, ticket)
	return true
}

// choice checks what the session or the strategy promises about the choice.
func (d *duo) choice(t *rapid.T, need rotation.Need, m *member, offered []*member, probe bool) {
	now := d.plain.group.Now()
	ready := pick(offered, func(m *member) bool { return m.breaker.Until() == 0 && m.avoid <= now })
	if need.Session != "" {
		where := position(need)
		last, here := d.sessions[where]
		here = here && last.list == d.lists && now-last.at <= sessionTTL
		busy := pick(d.plain.list, func(other *member) bool { return d.plain.onlyBusy(other, m, need) })
		switch {
		case here && slices.Contains(offered, last.m) && m != last.m:
			t.Fatalf("session %s: got %s, want %s as before, which can be used", where, m.ID, last.m.ID)
		case here && slices.Contains(busy, last.m): // it comes back
		case len(busy) > 0:
			delete(d.sessions, where) // perhaps to one of them
		default:
			d.sessions[where] = stay{m, now, d.lists}
		}
		return
	}
	if probe && len(need.Exclude) > 0 && len(ready) > 0 {
		t.Fatalf("a job that has failed was given %s for a probe, want one of %s", m.ID, names(ready))
	}
	if d.strategy == rotation.LeastUsed && !probe {
		for _, other := range ready {
			rather := len(need.Exclude) > 0 && d.plain.sound(m) && !d.plain.sound(other)
			if other.inflight < m.inflight && !rather {
				t.Fatalf("least used: got %s with %d in flight, want %s with %d", m.ID, m.inflight, other.ID, other.inflight)
			}
		}
	}
}

// position is where a session is remembered: its picks with other tags are another one's.
func position(need rotation.Need) string {
	return strings.Join(append([]string{need.Session}, need.Tags...), " ")
}

// end settles the i-th lease.
func (d *duo) end(t *rapid.T, i int, v rotation.Verdict) {
	lease, ticket := d.leases[i], d.tickets[i]
	d.leases, d.tickets = slices.Delete(d.leases, i, i+1), slices.Delete(d.tickets, i, i+1)
	events := lease.Report(v)
	_, failing := d.Outage()
	want := wrap(ticket.m.ID, d.plain.settle(ticket, v, failing))
	// What the pool says of itself as a whole has tests of its own.
	events = slices.DeleteFunc(events, func(e rotation.Event) bool { return e.ProxyID == "" })
	if !slices.Equal(events, want) {
		t.Fatalf("end of %s by %+v: got %+v, want %+v", ticket.m.ID, v, events, want)
	}
	if again := lease.Report(rotation.Verdict{Kind: rotation.ProxyFault, Trip: time.Hour}); again != nil {
		t.Fatalf("a lease settled twice: got %+v, want nothing", again)
	}
}

// bout is attempts one after the other that all end alike.
func (d *duo) bout(t *rapid.T) {
	need, v := d.need(t), verdict(t)
	for range d.most {
		if !d.pick(t, need) {
			return
		}
		d.end(t, len(d.leases)-1, v)
	}
}

// command does what people and other workers may do.
func (d *duo) command(t *rapid.T) {
	id := fmt.Sprint("p", rapid.IntRange(0, d.most-1).Draw(t, "id"))
	wait := rapid.SampledFrom(edges()).Draw(t, "for")
	m, now := d.plain.get(id), d.plain.group.Now()
	var got, want []rotation.Event
	var known bool
	switch rapid.IntRange(0, 3).Draw(t, "command") {
	case 0:
		if got, known = d.Reset(id); m != nil {
			m.avoid = 0
			want = wrap(id, m.breaker.Reset("reset by hand"))
		}
	case 1:
		if got, known = d.ForceOpen(id, wait, "test"); m != nil {
			want = wrap(id, m.breaker.Trip(wait, "test"))
		}
	case 2:
		if known = d.Avoid(id, time.Now().Add(wait), "w2"); m != nil {
			m.avoid, m.by = now+wait, "w2"
		}
	default:
		if known = d.Avoid(id, time.Now(), ""); m != nil {
			m.avoid = now
		}
	}
	if known != (m != nil) || !slices.Equal(got, want) {
		t.Fatalf("command to %s: got %+v, known %v; want %+v, %v", id, got, known, want, m != nil)
	}
}

// replace gives both a new list. What stays in it may have changed.
func (d *duo) replace(t *rapid.T) {
	luck := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "proxies"), 0))
	n := rapid.IntRange(d.most/10*7, d.most).Draw(t, "how many")
	list := make([]proxylist.Proxy, 0, n)
	for _, i := range luck.Perm(d.most)[:n] {
		list = append(list, proxylist.Proxy{
			ID: fmt.Sprint("p", i), URL: address(i), Tags: [][]string{nil, {"x"}, {"x", "y"}, {"y"}}[luck.IntN(4)],
			Region: []string{"", "eu", "us"}[luck.IntN(3)], Weight: luck.IntN(6), MaxInflight: max(0, luck.IntN(7)-4), Rate: []float64{0, 0, 0, 2, 10, 20}[luck.IntN(6)],
		})
	}
	if n > 1 && luck.IntN(3) == 0 {
		twin := list[0]
		twin.Weight++
		list = append(list, twin)
	}
	if got, want := d.Replace(list), d.plain.replace(list); got != want {
		t.Fatalf("replace: got %+v, want %+v", got, want)
	}
	d.lists++
}

// look compares everything that can be read.
func (d *duo) look(t *rapid.T) {
	want, usable := make([]rotation.Status, 0, len(d.plain.list)), false
	for _, m := range d.plain.list {
		want = append(want, d.plain.status(m))
		usable = usable || m.at() <= d.plain.group.Now() || want[len(want)-1].State == breaker.Closed
	}
	got := d.Status()
	for i := range min(len(got), len(want)) {
		got[i].Reason, got[i].Cooldowns, got[i].ExitsTried, got[i].ExitsFailed = "", 0, 0, 0 // the model has none
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Fatalf("status of %s:\n got %+v,\nwant %+v", want[i].ID, got[i], want[i])
		}
	}
	if len(got) != len(want) || d.Len() != len(want) || d.Usable() != usable {
		t.Fatalf("got %d proxies, %d by length, usable %v; want %d, %v", len(got), d.Len(), d.Usable(), len(want), usable)
	}
}

// leaveTime is liveness: from wherever the history ended, each proxy can be used again after the longest of the times.
func (d *duo) leaveTime(t *rapid.T) {
	for len(d.leases) > 0 {
		d.end(t, 0, rotation.Verdict{})
	}
	time.Sleep(20 * time.Minute)
	for _, m := range d.plain.list {
		if !d.pick(t, rotation.Need{ID: m.ID, Host: "a.test:80"}) {
			t.Fatalf("after a long time %s cannot be picked", m.ID)
		}
		d.end(t, 0, rotation.Verdict{})
		time.Sleep(time.Second)
	}
	d.look(t)
}

func wrap(id string, e breaker.Event) []rotation.Event {
	if !e.Changed() {
		return nil
	}
	return []rotation.Event{{ProxyID: id, Event: e}}
}

func names(list []*member) string {
	var ids []string
	for _, m := range list {
		ids = append(ids, m.ID)
	}
	return strings.Join(ids, " ")
}
