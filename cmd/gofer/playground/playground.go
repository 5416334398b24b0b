// Package playground is a small world on loopback to try gofer in: forward proxies that behave and misbehave, and a site that
// only these proxies can resolve. Tests use its proxies, too.
package playground

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// Host is the name of the site. Only the proxies of a World resolve it.
const Host = "shop.test"

// AttemptTimeout is an attempt timeout that suits a World: with the usual 30 s the silent proxy would hold its first jobs
// for long.
const AttemptTimeout = 3 * time.Second

// slowness is how long the slow proxies wait before they do their work. It is below AttemptTimeout, so slow proxies
// succeed.
const slowness = 700 * time.Millisecond

// World is a running site and its proxies. Make one with Start, and Close it. Its methods but Close may be called
// by any goroutine; nothing changes after Start.
type World struct {
	site    *http.Server
	proxies []*Proxy
	lines   []string
}

// kind is a number of proxies that behave alike. Its name is also the tag of its proxies, and the first part of
// their ids.
type kind struct {
	name  string
	mode  Mode
	count int
}

// kinds are the proxies of a World. Most of them work, so that jobs succeed although others misbehave.
func kinds() []kind {
	return []kind{{"good", Good, 7}, {"slow", Slow, 2}, {"refusing", Refusing, 1}, {"silent", Silent, 1}, {"banned", Banned, 1}}
}

// Start starts the site and twelve proxies on free ports of loopback. The error names the part that could not be
// started, and then nothing is left running.
func Start() (*World, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the playground's site: %w", err)
	}
	w := &World{site: &http.Server{Handler: Shop(), ReadHeaderTimeout: 5 * time.Second}}
	go func() { _ = w.site.Serve(l) }() // ends with Close
	// No other name is resolved here: the proxies also reach the rest of the internet.
	resolve := func(target string) string {
		if strings.HasPrefix(target, Host+":") {
			return l.Addr().String()
		}
		return ""
	}
	for _, k := range kinds() {
		for i := range k.count {
			if err := w.add(k, i, resolve); err != nil {
				// The proxies that run already are closed, too.
				w.Close()
				return nil, fmt.Errorf("start the playground's proxies: %w", err)
			}
		}
	}
	return w, nil
}

// add starts one more proxy. The regions alternate, so that jobs can choose one.
func (w *World) add(k kind, i int, resolve func(string) string) error {
	p := &Proxy{Resolve: resolve, Delay: slowness}
	p.Set(k.mode)
	if err := p.Start("127.0.0.1:0"); err != nil {
		return err
	}
	w.proxies = append(w.proxies, p)
	region := []string{"eu", "us"}[i%2]
	w.lines = append(w.lines, fmt.Sprintf("%s id=%s-%d tags=%s region=%s", p.URL("http"), k.name, i+1, k.name, region))
	return nil
}

// Lines are the proxies as lines of a proxies file. Tags and regions in them let jobs choose among the proxies.
func (w *World) Lines() []string { return w.lines }

// String says which proxies there are.
func (w *World) String() string {
	return fmt.Sprintf("%d proxies: 7 good, 2 slow, 1 that refuses, 1 that stays silent, 1 that is banned", len(w.proxies))
}

// Close ends the proxies and the site. It waits for the proxies' connections.
func (w *World) Close() {
	for _, p := range w.proxies {
		p.Close()
	}
	_ = w.site.Close()
}
