package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/admin"
)

// ready lists what readiness depends on. It reads what the parts know already and asks no server: a probe must not block. Before
// the streams are set up only the connection and the proxies count.
func (d *daemon) ready() []admin.Check {
	conn := d.connected.Load()
	if conn == nil {
		return []admin.Check{{Name: "nats", Detail: d.startDetail()}, d.proxyCheck()}
	}
	check := func(name string, ok bool, good, bad string) admin.Check {
		if ok {
			return admin.Check{Name: name, OK: true, Detail: good}
		}
		return admin.Check{Name: name, Detail: bad}
	}
	pullError := conn.worker.PullError()
	if !conn.nc.IsConnected() {
		pullError = errDisconnected // what the server said last explains nothing any more
	}
	// Without a connection these are the answers of before.
	known := func(good string) string {
		if !conn.nc.IsConnected() {
			return "not known without NATS; before it was lost: " + good
		}
		return good
	}
	return []admin.Check{
		check("nats", conn.nc.IsConnected(), "connected", "not connected to "+d.cfg.NATS.String()+", reconnecting: look whether nats-server runs there, and start it"),
		d.errorCheck("consuming", pullError, "every queue is pulled from"+obeyedSettings(conn.worker.ObeyedSettings())),
		d.errorCheck("streams", conn.worker.StreamsError(), known("all there, and as gofer needs them")),
		d.errorCheck("settings", d.settings.Err(), known("the fleet's proxies, policy and denied hosts are known")),
		d.proxyCheck(),
		check("draining", !conn.worker.IsDraining(), "no", "draining: no new jobs are taken"),
		d.errorCheck("results", conn.worker.StoreError(), known("results are stored")),
	}
}

// errDisconnected is why a worker without a connection takes no jobs.
var errDisconnected = errors.New("no jobs are taken until NATS is back")

// errorCheck is a check that fails with an explained error, and shows good if err is nil.
func (d *daemon) errorCheck(name string, err error, good string) admin.Check {
	if err == nil {
		return admin.Check{Name: name, OK: true, Detail: good}
	}
	return admin.Check{Name: name, Detail: d.cfg.Explain(err)}
}

// obeyedSettings names the settings that the owner gave a consumer and that the worker obeys.
func obeyedSettings(list []bus.Difference) (text string) {
	for _, d := range list {
		text += fmt.Sprintf("; the %s of %s is kept to: %s", d.Field, d.Name, d.Have)
	}
	return text
}

// startDetail is why the worker has not started yet.
func (d *daemon) startDetail() string {
	if why := d.obstacle.Load(); why != nil {
		return *why
	}
	return "not connected yet, or the streams are not set up"
}

// proxyCheck fails while no attempt can begin: in an outage, and while no proxy is usable. A worker that may fetch directly is
// ready without proxies.
func (d *daemon) proxyCheck() admin.Check {
	c := admin.Check{Name: "proxies", OK: d.pool.Usable(), Detail: fmt.Sprintf("%d in the pool", d.pool.Len())}
	since, failing := d.pool.Outage()
	switch {
	case failing && !d.cfg.AllowDirect:
		c.OK = false
		c.Detail += fmt.Sprintf(", and all fail at once since %s: look at this machine's network and at their provider", since.UTC().Format(time.RFC3339))
	case c.OK:
	case d.cfg.AllowDirect:
		c.OK = true
		c.Detail += ", none usable; direct fetches are allowed"
	case d.pool.Len() == 0 && !d.listRead.Load(): // the reason follows
	case d.pool.Len() == 0:
		c.Detail = d.cfg.Explain(ErrNoProxies)
	default:
		c.Detail += ", none usable now: all breakers are open"
	}
	c.Detail += d.listErrorText()
	return c
}

// listError is why the list of proxies cannot be read, and since when it cannot.
type listError struct {
	since time.Time
	err   error
}

// takeProxies installs a list of proxies that was read again; nil if nothing is new. The last good state of a part that could not
// be read stays, and /readyz names the reason with the time of the first failure in a row.
func (d *daemon) takeProxies(proxies []proxylist.Proxy, err error) {
	defer d.toldOnce.Do(func() { close(d.listTold) })
	if proxies != nil {
		d.settings.SetListed(proxies)
		d.log.Info("list of proxies taken over", "proxies", len(proxies))
	}
	if err == nil {
		d.listError.Store(nil)
		d.listRead.Store(true)
		return
	}
	since := time.Now()
	if before := d.listError.Load(); before != nil {
		since = before.since
	}
	d.listError.Store(&listError{since, err})
	d.log.Error("a list of proxies cannot be read, the last good one stays", "error", err)
}

// awaitProxies waits until the list of proxies was fetched, or could not be: a job that is taken before might find no proxy. It
// ends with ctx.
func (d *daemon) awaitProxies(ctx context.Context) {
	if !d.cfg.AwaitProxies {
		return
	}
	select {
	case <-d.listTold:
	case <-ctx.Done():
	}
}

// listErrorText is the part of the check of proxies about a list that cannot be read; empty if it can. Such a list makes no
// worker unready, because the last good one works.
func (d *daemon) listErrorText() string {
	last := d.listError.Load()
	switch {
	case last == nil && !d.listRead.Load():
		return "; a list of proxies is being fetched"
	case last == nil:
		return ""
	}
	return fmt.Sprintf("; the proxies cannot be read since %s: %s", last.since.UTC().Format(time.RFC3339), last.reason())
}

// reason is the first reason, and how many others there are: a file may have thousands of broken lines.
func (l *listError) reason() string {
	reason, others, _ := strings.Cut(l.err.Error(), "\n")
	if others != "" {
		reason += fmt.Sprintf(" (and %d more)", 1+strings.Count(others, "\n"))
	}
	return reason
}
