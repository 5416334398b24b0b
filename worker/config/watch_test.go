package config_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/config"
)

// TestFileIsReadWhenItHasChanged: also if that was before anybody looked, and if only who may read it has changed.
func TestFileIsReadWhenItHasChanged(t *testing.T) {
	file := writeFile(t, "proxies.txt", "http://192.0.2.1:80\n")
	when := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	writeAt := func(at time.Time, text string) error {
		return errors.Join(os.WriteFile(file, []byte(text), 0o600), os.Chtimes(file, at, at))
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var reads, proxies atomic.Int64
		c := config.Config{ProxiesFile: file}
		go c.WatchProxies(ctx, nil, func(list []proxylist.Proxy, err error) {
			reads.Add(1)
			proxies.Store(int64(len(list)))
			if err != nil {
				proxies.Store(-1)
			}
		})
		for _, step := range []struct {
			what           string
			change         func() error
			reads, proxies int64
		}{
			{"the first look", func() error { return nil }, 1, 1},
			{"no change", func() error { return nil }, 1, 1},
			{"another time", func() error { return writeAt(when, "http://192.0.2.2:80\n") }, 2, 1},
			{"another size", func() error { return writeAt(when, "http://192.0.2.1:80\nhttp://192.0.2.2:80\n") }, 3, 2},
			{"another mode", func() error { return os.Chmod(file, 0o640) }, 4, 2},
			{"no file", func() error { return os.Remove(file) }, 5, -1},
		} {
			if err := step.change(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second)
			synctest.Wait()
			if got := reads.Load(); got != step.reads || proxies.Load() != step.proxies {
				t.Fatalf("after %s: read %d times, %d proxies; want %d and %d", step.what, got, proxies.Load(), step.reads, step.proxies)
			}
		}
	})
}

func TestWithoutAFileNothingIsWatched(t *testing.T) {
	c := config.Config{Proxies: "http://192.0.2.1:80"}
	// It would wait for the test to end.
	c.WatchProxies(t.Context(), nil, func([]proxylist.Proxy, error) { t.Error("a list was read") })
}

// TestAFileThatIsReadFirstWaitsForTheURL: who is told a list takes it for the answer of every part. The file is a pipe, which
// shows when it is read; the next one is opened after the first one was taken over.
func TestAFileThatIsReadFirstWaitsForTheURL(t *testing.T) {
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		want   taken
	}{
		"a list":    {body("http://192.0.2.2:80 id=fetched\n"), taken{"fetched own", "<nil>"}},
		"a failure": {status(http.StatusBadGateway), taken{"own", "GOFER_PROXIES_URL: the server answers 502 Bad Gateway"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const own = "http://192.0.2.1:80 id=own\n"
			free, l := make(chan struct{}), newLister(t)
			l.serve(func(w http.ResponseWriter, r *http.Request) {
				select {
				case <-free:
					test.answer(w, r)
				case <-r.Context().Done():
				}
			})
			dir := t.TempDir()
			file, next := filepath.Join(dir, "list"), filepath.Join(dir, "next")
			if err := errors.Join(syscall.Mkfifo(file, 0o600), syscall.Mkfifo(next, 0o700)); err != nil {
				t.Fatal(err)
			}
			last := writeFile(t, "last", own)
			calls := watch(t, &config.Config{ProxiesFile: file, ProxiesURL: l.URL, ProxiesRefresh: jobs.Duration(time.Hour)}, nil)
			for _, then := range []string{next, last} {
				var pipe *os.File
				testenv.Eventually(t, "the file to be read", func() bool {
					var err error
					pipe, err = os.OpenFile(file, os.O_WRONLY|syscall.O_NONBLOCK, 0) // fails while nobody reads
					return err == nil
				})
				if got := calls(); len(got) != 0 {
					t.Errorf("told %v before the URL has answered", got)
				}
				_, err := pipe.WriteString(own)
				if err = errors.Join(err, os.Rename(then, file), pipe.Close()); err != nil {
					t.Fatal(err)
				}
			}
			close(free)
			testenv.Eventually(t, "a list to be told", func() bool { return len(calls()) > 0 })
			if got := calls()[0]; got != test.want {
				t.Errorf("told %v, want %v", got, test.want)
			}
		})
	}
}
