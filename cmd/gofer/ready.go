package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/admin"
	"github.com/gofer-mq/gofer/worker/config"
)

// ready lists what readiness depends on.
func (r *rig) ready() []admin.Check {
	l := r.line.Load()
	if l == nil {
		return []admin.Check{{Name: "nats", Detail: r.starting()}, r.proxyCheck()}
	}
	check := func(name string, ok bool, good, bad string) admin.Check {
		if ok {
			return admin.Check{Name: name, OK: true, Detail: good}
		}
		return admin.Check{Name: name, Detail: bad}
	}
	why, storable := l.worker.Storable()
	return []admin.Check{
		check("nats", l.nc.IsConnected(), "connected", "not connected, reconnecting"),
		healthy("consuming", l.worker.Consuming(), "every queue is pulled from"+keptSettings(l.worker.Obeyed())),
		healthy("streams", l.worker.Streams(), "all there, and as gofer needs them"),
		healthy("settings", r.settings.Trouble(), "the fleet's proxies, policy and denied hosts are known"),
		r.proxyCheck(),
		check("draining", !l.worker.Draining(), "no", "draining: no new jobs are taken"),
		check("results", storable, "results are stored", why),
	}
}

// healthy is a check that fails with err, and with what to do about it.
func healthy(name string, err error, good string) admin.Check {
	if err == nil {
		return admin.Check{Name: name, OK: true, Detail: good}
	}
	return admin.Check{Name: name, Detail: config.Explain(err)}
}

// keptSettings names the settings that somebody gave a consumer and that the worker keeps to.
func keptSettings(list []bus.Difference) (text string) {
	for _, d := range list {
		text += fmt.Sprintf("; the %s of %s is kept to: %s", d.Field, d.Name, d.Have)
	}
	return text
}

// starting says what keeps a worker from its streams.
func (r *rig) starting() string {
	if why := r.obstacle.Load(); why != nil {
		return *why
	}
	return "not connected yet, or the streams are not set up"
}

func (r *rig) proxyCheck() admin.Check {
	c := admin.Check{Name: "proxies", OK: r.pool.Usable(), Detail: fmt.Sprintf("%d in the pool", r.pool.Len())}
	since, failing := r.pool.Failing()
	switch {
	case failing && !r.config.AllowDirect:
		c.OK = false
		c.Detail += fmt.Sprintf(", and all fail at once since %s: look at this machine's network and at their provider", since.UTC().Format(time.RFC3339))
	case c.OK:
	case r.config.AllowDirect:
		c.OK = true
		c.Detail += ", none usable; direct fetches are allowed"
	case r.pool.Len() == 0:
		c.Detail = "no proxy is configured: set GOFER_PROXIES or GOFER_PROXIES_FILE"
	default:
		c.Detail += ", none usable now: all breakers are open"
	}
	c.Detail += r.listTrouble()
	return c
}

// listTrouble is why the list of proxies could not be read again, and since when.
type listTrouble struct {
	since time.Time
	err   error
}

// takeProxies takes over a list of proxies that was read again. If it could not be read, the last good list stays.
func (r *rig) takeProxies(proxies []proxylist.Proxy, err error) {
	if err == nil {
		r.trouble.Store(nil)
		r.settings.List(proxies)
		r.log.Info("proxies file taken over", "proxies", len(proxies))
		return
	}
	since := time.Now()
	if before := r.trouble.Load(); before != nil {
		since = before.since
	}
	r.trouble.Store(&listTrouble{since, err})
	r.log.Error("proxies file not taken over, the last good list stays", "error", err)
}

// listTrouble says that the proxies file is not the pool's. That does not make a worker unready: the last good list works.
func (r *rig) listTrouble() string {
	trouble := r.trouble.Load()
	if trouble == nil {
		return ""
	}
	reasons := []string{trouble.err.Error()}
	if bad, ok := errors.AsType[*config.Error](trouble.err); ok {
		reasons = bad.Reasons
	}
	text := fmt.Sprintf("; GOFER_PROXIES_FILE cannot be read since %s: %s", trouble.since.UTC().Format(time.RFC3339), strings.TrimPrefix(reasons[0], "GOFER_PROXIES_FILE: "))
	if more := len(reasons) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	return text
}
