package fleet

import (
	"context"
	"os"
	"time"

	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// WatchFile calls read after a second and then, once a second, when the file at path has changed, until ctx ends, and lists
// what it returns: the file may have changed between the start, when somebody read it, and now. A file that cannot be read or
// has a broken line is logged and told by FileTrouble, and the last good list stays.
func (s *Settings) WatchFile(ctx context.Context, path string, read func() ([]proxylist.Proxy, error)) {
	last := fileStamp{size: -1} // no file's
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
		s.noteFile(err)
		if err != nil {
			s.cfg.Log.Error("proxies file not taken over, the last good list stays", "error", err)
			continue
		}
		s.List(proxies)
		s.cfg.Log.Info("proxies file taken over", "proxies", len(proxies))
	}
}

// fileTrouble is why the proxies file is not taken over, and since when.
type fileTrouble struct {
	since time.Time
	err   error
}

func (s *Settings) noteFile(err error) {
	if err == nil {
		s.trouble.Store(nil)
		return
	}
	since := time.Now()
	if before := s.trouble.Load(); before != nil {
		since = before.since
	}
	s.trouble.Store(&fileTrouble{since, err})
}

// FileTrouble is why the file that WatchFile looks at could not be taken over the last time that it had changed, and since
// when none was; a nil error means that the list in force is the file's.
func (s *Settings) FileTrouble() (since time.Time, err error) {
	if t := s.trouble.Load(); t != nil {
		return t.since, t.err
	}
	return time.Time{}, nil
}

// fileStamp is what changes when a file does, or when it may be read by others. A mounted secret is a link that is turned to
// another file, so this is of what is behind the link.
type fileStamp struct {
	size int64
	time time.Time
	mode os.FileMode
}

func stamp(path string) fileStamp {
	info, err := os.Stat(path)
	if err != nil {
		return fileStamp{}
	}
	return fileStamp{size: info.Size(), time: info.ModTime(), mode: info.Mode()}
}
