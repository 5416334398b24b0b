package config

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// WatchProxies keeps the proxies of GOFER_PROXIES, GOFER_PROXIES_FILE and GOFER_PROXIES_URL up to date until ctx ends; own are
// those of the first two at the start. It calls use with each new list of all of them, one call after the other, and with none
// before the URL was asked once, so that the first call is about all parts. An error beside a list, or without one if
// nothing is new, says why a part cannot be read, a line for each broken line of it: the last good state of this part
// stays. Without a file and without a URL it returns at once.
func (c *Config) WatchProxies(ctx context.Context, own []proxylist.Proxy, use func([]proxylist.Proxy, error)) {
	// The URL was checked when the environment was loaded.
	u, err := c.proxiesURL()
	fetches := u != nil && err == nil
	w := &proxyWatch{use: use, waits: fetches, own: part{proxies: own}}
	var watches sync.WaitGroup
	if c.ProxiesFile != "" {
		watches.Go(func() { w.followFile(ctx, c) })
	}
	if fetches {
		watches.Go(func() { w.followURL(ctx, newRemoteList(u, c.UserAgent), c.ProxiesRefresh.Std()) })
	}
	watches.Wait()
}

// proxyWatch puts the parts of the list together.
type proxyWatch struct {
	use func([]proxylist.Proxy, error)

	// mu is held while use is called, so that of two lists the later one is the last to arrive.
	mu           sync.Mutex
	own, fetched part // what environment and file name, and what the URL names
	waits        bool // the URL was not asked yet: use is not called
	news         bool // a part was taken over and use was not called yet
}

// part is the last good state of a part of the list, and why the present one cannot be read. A part that was never
// read is empty and has the error, if there is one.
type part struct {
	proxies []proxylist.Proxy
	err     error
}

// take takes over a part, or notes why it cannot be read. p is one of the two parts of w. The function calls use,
// and so blocks while a pool is rebuilt.
func (w *proxyWatch) take(p *part, proxies []proxylist.Proxy, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// An error keeps the last good list of this part.
	if p.err = err; err == nil {
		p.proxies = proxies
		w.news = true
	}
	// The first call of use says that every part was asked: a file that is read sooner waits for the URL.
	if w.waits = w.waits && p != &w.fetched; w.waits {
		return
	}
	var all []proxylist.Proxy // nil: there is no new list
	if w.news {
		w.news = false
		all = JoinProxies(w.own.proxies, w.fetched.proxies)
	}
	w.use(all, errors.Join(w.own.err, w.fetched.err))
}

// followFile reads the file after a second and then, once a second, when it has changed: it may have changed since the
// start, when it was read first. One goroutine calls it, so last needs no lock.
func (w *proxyWatch) followFile(ctx context.Context, c *Config) {
	last := fileStamp{size: -1} // no file's
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// The first tick always reads, since no file has the stamp of the start.
		if now := stamp(c.ProxiesFile); now != last {
			last = now
			proxies, err := c.ReadProxies()
			if bad, ok := errors.AsType[*Error](err); ok {
				err = joined(bad.Reasons)
			}
			w.take(&w.own, proxies, err)
		}
	}
}

// firstRetry is how long a list that cannot be fetched is left alone. The time doubles with each failure in a row, up to the
// usual pause.
const firstRetry = time.Second

// followURL fetches the list at once and then after each pause. The pause is every, minus up to a tenth. After a
// failure it is a second at first, and doubles up to every.
func (w *proxyWatch) followURL(ctx context.Context, list *remoteList, every time.Duration) {
	retry := min(firstRetry, every)
	for failing := false; ; {
		changed, err := list.refresh(ctx)
		if ctx.Err() != nil {
			return
		}
		// After a failure, also an unchanged list is reported, so that the error is taken back.
		if err != nil || changed || failing {
			w.take(&w.fetched, list.proxies, err)
		}
		wait := every
		if failing = err != nil; failing {
			wait, retry = retry, min(2*retry, every)
		} else {
			retry = min(firstRetry, every)
		}
		// The workers of a fleet begin together, and must not ask together for ever.
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait - rand.N(wait/10+1)):
		}
	}
}

// fileStamp changes when a file does, or when its permissions do, so that a worker that could not read it tries again.
// Kubernetes replaces a mounted secret by turning a link to another file, so the stamp is that of the file behind the
// link. Polling is enough: a notification would need a watch of every folder on the way to that file.
type fileStamp struct {
	size int64
	time time.Time
	mode os.FileMode
}

// stamp returns the present stamp of a file. A file that cannot be examined has the zero stamp, so its return is a
// change.
func stamp(path string) fileStamp {
	info, err := os.Stat(path)
	if err != nil {
		return fileStamp{}
	}
	return fileStamp{size: info.Size(), time: info.ModTime(), mode: info.Mode()}
}
