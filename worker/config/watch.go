package config

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// WatchProxies reads the proxies again after a second and then, once a second, when their file has changed, until ctx ends: the
// file may have changed between the start, when somebody read it, and now. It calls use with each list, or with the
// reason why the file cannot be read, a line for each broken line of it. Without a file it returns at once.
func (c *Config) WatchProxies(ctx context.Context, use func([]proxylist.Proxy, error)) {
	if c.ProxiesFile == "" {
		return
	}
	last := fileStamp{size: -1} // no file's
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if now := stamp(c.ProxiesFile); now != last {
			last = now
			proxies, err := c.ReadProxies()
			if bad, ok := errors.AsType[*Error](err); ok {
				err = joined(bad.Reasons)
			}
			use(proxies, err)
		}
	}
}

// fileStamp changes when a file does, or when somebody else may read it, such as a worker that could not. Kubernetes replaces a
// mounted secret by turning a link to another file, so the stamp is that of the file behind the link. Polling is enough: a
// notification would need a watch of every folder on the way to that file.
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
