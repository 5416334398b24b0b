package bus_test

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gofer-mq/gofer/jobs/bus"
)

// TestFilesThatNeverEndOrArePipesAreNoCredentials: a start neither waits for them nor fills the memory.
func TestFilesThatNeverEndOrArePipesAreNoCredentials(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "pipe")
	must(t, syscall.Mkfifo(pipe, 0o600))
	for path, want := range map[string]string{"/dev/zero": "read /dev/zero: larger than 1 MiB", pipe: "it is a pipe, which can be read only once"} {
		for field, d := range map[string]bus.Dial{
			"Creds": {Creds: path}, "CA": {CA: path}, "Cert": {Cert: path, Key: "/dev/null"}, "Key": {Cert: "/dev/null", Key: path}, "Nkey": {Nkey: path},
		} {
			d.URL = "nats://127.0.0.1:4222"
			text := want
			if field == "Nkey" && path != pipe { // the text may be a seed, so no path is named
				text = "neither a seed nor a file"
			}
			if err := d.Check(); err == nil || !strings.Contains(err.Error(), field+": "+text) {
				t.Errorf("%s=%s: got %v, want %q", field, path, err, text)
			}
		}
	}
}
