package share

import (
	"context"
	"os"
	"time"

	"github.com/gofer-mq/gofer/rotation"
)

// WatchFile calls read once a second when the file at path has changed, until ctx ends, and lists what it returns. A file
// that cannot be read or has a broken line is logged, and the last good list stays.
func (s *Share) WatchFile(ctx context.Context, path string, read func() ([]rotation.Proxy, error)) {
	last := stamp(path)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := stamp(path)
		if now == last {
			continue
		}
		last = now
		proxies, err := read()
		if err != nil {
			s.cfg.Log.Error("proxies file not taken over, the last good list stays in force", "error", err)
			continue
		}
		s.List(proxies)
		s.cfg.Log.Info("proxies file taken over", "proxies", len(proxies))
	}
}

// fileStamp is what changes when a file does. A mounted secret is a link that is turned to another file, so the size and
// the time are those behind the link.
type fileStamp struct {
	size int64
	time time.Time
}

func stamp(path string) fileStamp {
	info, err := os.Stat(path)
	if err != nil {
		return fileStamp{}
	}
	return fileStamp{size: info.Size(), time: info.ModTime()}
}
