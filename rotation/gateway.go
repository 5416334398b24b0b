package rotation

import (
	"net/url"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/rotation/exits"
	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// gateway is the state of a proxy with many exits. The pool's lock guards it.
type gateway struct {
	words      bool // a word chooses the exit; else each connection has another one
	anyRegion  bool // a word chooses the region
	sessionTTL time.Duration
	regions    exits.Regions
	tried      uint64 // attempts through exits that say something about the exit
	failed     uint64 // those after which the exit counts as failed
}

// describe sets what the list says about the gateway.
func (g *gateway) describe(proxy *proxylist.Proxy) {
	g.words, g.anyRegion, g.sessionTTL = proxy.HasWords(), proxy.HasRegions(), proxy.SessionTTL
	if g.sessionTTL == 0 {
		g.sessionTTL = proxylist.DefaultSessionTTL
	}
}

// hasAnyRegion reports whether the proxy is a gateway in which a word chooses the region.
func (e *entry) hasAnyRegion() bool { return e.isGateway && e.gateway.anyRegion }

// region returns the region of an attempt through the gateway, and whether the gateway can serve the need there. asked
// is the region if the job chose it: a publisher may name a region that does not exist.
func (g *gateway) region(proxy *proxylist.Proxy, need *Need) (region, asked string, ok bool) {
	switch {
	case !g.words && need.Session != "":
		return "", "", false
	case !g.anyRegion:
		return proxy.Region, "", true
	case need.Region != "":
		region = strings.ToLower(need.Region)
		return region, region, proxylist.ValidRegion(need.Region)
	case proxy.Region != "":
		return proxy.Region, "", true
	}
	region = g.regions.LastWorked()
	return region, region, region != "" && need.Trusted
}

// serves reports whether a proxy that is a gateway can serve the need. Any other proxy can.
func (e *entry) serves(need *Need) bool {
	if !e.isGateway {
		return true
	}
	_, _, ok := e.gateway.region(e.proxy, need)
	return ok
}

// needOfGateways returns a copy of the need if there are gateways, which may be unable to serve it; else nil. The orders of the
// strategies keep the need on the heap, so a copy spares all picks without gateways an allocation.
func (p *Pool) needOfGateways(need *Need) *Need {
	if p.gateways == 0 {
		return nil
	}
	onHeap := *need
	return &onHeap
}

// exit is what a lease knows of its exit. The zero value is that of a proxy that is no gateway.
type exit struct {
	exits.Exit
	gateway bool
	region  string
	asked   string // the region, if the job chose it
	session exits.Session
}

// exitOf chooses the exit of a lease: a new word for each attempt, or the session's word. Without words each connection
// has another exit, which nobody chooses.
func (p *Pool) exitOf(e *entry, need *Need, now time.Duration) (x exit) {
	g := e.gateway
	x.gateway = true
	x.region, x.asked, _ = g.region(e.proxy, need)
	switch {
	case !g.words:
	case need.Session == "":
		x.Exit = p.exits.Fresh()
	default:
		x.session = exits.Session{Gateway: e.proxy.ID, Name: need.Session, TTL: g.sessionTTL}
		x.Exit = p.exits.Sticky(x.session, hash(need.Host, ""), need.ExcludeExits, now)
	}
	return x
}

// IsGateway reports whether the lease's proxy has many exits.
func (l *Lease) IsGateway() bool { return l.exit.gateway }

// Exit returns the word of the exit; "" if no word chooses it.
func (l *Lease) Exit() string { return l.exit.Word }

// Region returns the region that the attempt leaves from, as the owner or the job named it.
func (l *Lease) Region() string {
	if l.exit.gateway {
		return l.exit.region
	}
	return l.proxy.Region
}

// URL returns how the proxy is reached, with the word and the region of the exit filled in. Never show it: it holds credentials.
func (l *Lease) URL() *url.URL {
	if l.exit.gateway {
		return l.proxy.Through(l.exit.Word, l.exit.region)
	}
	return l.proxy.URL
}

// Alone reports whether the attempt needs a connection of its own. It does at a gateway without a session, where each
// attempt leaves by another exit.
func (l *Lease) Alone() bool { return l.exit.gateway && l.exit.session.Name == "" }

// IdleFor returns how long a connection of the exit of a session may be idle; zero without a bound.
func (l *Lease) IdleFor() time.Duration { return l.exit.session.TTL }

// RefuseCredentials records that a gateway refused the credentials. It reports whether they are wrong, and not only the
// region that the job asks for.
func (l *Lease) RefuseCredentials() bool {
	p, e := l.pool, l.entry
	p.mu.Lock()
	defer p.mu.Unlock()
	if e == nil || e.gateway == nil {
		return true
	}
	return e.gateway.regions.Refused(l.exit.asked, p.judge.Healthy(e.index, p.group.Now()))
}

// IsGateway reports whether a proxy of the pool has many exits: a failure of one of them says nothing about the others.
func (p *Pool) IsGateway(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.byID[id]
	return e != nil && e.isGateway
}

// HasGateways reports whether a proxy of the pool has many exits.
func (p *Pool) HasGateways() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gateways > 0
}

// ChangedSessions returns at most limit sessions whose exit changed since they were returned last. The pool keeps none unless
// Config.Exits shares them.
func (p *Pool) ChangedSessions(limit int) []exits.Key {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exits.Changed(limit)
}

// SessionState returns what other workers may learn about the exits of a session; false if there is nothing.
func (p *Pool) SessionState(key exits.Key) (exits.State, bool) {
	now := p.group.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exits.State(key, now)
}

// AdoptSession takes over what another worker knows about the exits of a session. It reports false for a state that no
// worker writes.
func (p *Pool) AdoptSession(state exits.State) bool {
	now := p.group.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exits.Adopt(state, now)
}

// judgeExit adds a verdict to the evidence about the exit, and reduces the verdict to what it says about the gateway:
// nothing, unless the gateway itself failed or its exits fail one after the other.
func (l *Lease) judgeExit(e *entry, g *gateway, v *Verdict, now time.Duration) {
	p, host := l.pool, hash(l.host, "")
	sticky := l.exit.session.Name != ""
	if v.CoolDown > 0 && sticky {
		p.exits.Cool(l.exit.session, l.exit.Exit, host, now+v.CoolDown, now)
	}
	v.CoolDown = 0
	if v.Gateway || v.Kind == Neutral {
		return
	}
	v.Trip = 0
	g.tried++
	if v.Kind == Relayed || v.Kind == TargetFault {
		g.regions.Worked(l.exit.asked)
		if sticky {
			p.exits.Relayed(l.exit.session, l.exit.Exit, now)
		}
		return
	}
	g.failed++
	switch cause := hash(l.host, v.Reason); {
	case sticky && v.Doubtful:
		p.exits.Suspected(l.exit.session, l.exit.Exit, cause, now)
	case sticky:
		p.exits.Failed(l.exit.session, l.exit.Exit, cause, now)
	}
	if v.Kind = l.gatewayKind(g, v); v.Kind != ProxyFault {
		e.record.add(false, 0)
	}
}

// gatewayKind is what the failure of an exit says about its gateway.
func (l *Lease) gatewayKind(g *gateway, v *Verdict) Kind {
	switch {
	case v.Kind == PairFault:
		g.regions.Worked(l.exit.asked)
		return TargetFault // the site does not serve the exit: the gateway relayed what it said
	case !v.NoTunnel:
		return Neutral
	}
	var known uint64
	if site := siteOf(l.host); l.pool.judge.HasAnswered(site) {
		known = uint64(site)
	}
	if g.regions.Failed(l.exit.asked, l.exit.Word, known) {
		return ProxyFault
	}
	return Neutral
}
