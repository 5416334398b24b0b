package fleet_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/fleet"
)

// TestFileIsReadWhenItHasChanged: also if that was before anybody looked, and if only who may read it has changed.
func TestFileIsReadWhenItHasChanged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "proxies.txt")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("http://192.0.2.1:80\n")
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var reads atomic.Int64
		s := fleet.New(fleet.Config{Pool: rotation.New(rotation.Config{}), Log: slog.New(slog.DiscardHandler)})
		go s.WatchFile(ctx, file, func() ([]proxylist.Proxy, error) {
			reads.Add(1)
			return nil, nil
		})
		for _, step := range []struct {
			what   string
			change func()
			want   int64
		}{
			{"the first look", func() {}, 1},
			{"no change", func() {}, 1},
			{"another text", func() { write("http://192.0.2.1:80\nhttp://192.0.2.2:80\n") }, 2},
			{"another mode", func() {
				if err := os.Chmod(file, 0o640); err != nil {
					t.Fatal(err)
				}
			}, 3},
			{"no file", func() {
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
			}, 4},
		} {
			step.change()
			time.Sleep(3 * time.Second)
			synctest.Wait()
			if got := reads.Load(); got != step.want {
				t.Fatalf("after %s: read %d times, want %d", step.what, got, step.want)
			}
		}
	})
}
