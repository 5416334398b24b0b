package testenv

import (
	"os"
	"path/filepath"
)

// KeepMessages copies the messages of a stream. Restore restarts the server with the copy in their place, while consumers keep
// what they know: as after a kill of a server whose disk was full.
func (n *NATS) KeepMessages(stream string) (restore func()) {
	n.tb.Helper()
	n.Stop()
	found, err := filepath.Glob(filepath.Join(n.opts.StoreDir, "jetstream", "*", "streams", stream, "msgs"))
	if err != nil || len(found) != 1 {
		n.tb.Fatalf("find the messages of stream %s: %v, %v", stream, found, err)
	}
	kept := filepath.Join(n.tb.TempDir(), "msgs")
	if err := os.CopyFS(kept, os.DirFS(found[0])); err != nil {
		n.tb.Fatalf("copy the messages of stream %s: %v", stream, err)
	}
	n.Start()
	return func() {
		n.tb.Helper()
		n.Stop()
		if err := os.RemoveAll(found[0]); err != nil {
			n.tb.Fatal(err)
		}
		if err := os.CopyFS(found[0], os.DirFS(kept)); err != nil {
			n.tb.Fatalf("restore the messages of stream %s: %v", stream, err)
		}
		n.Start()
	}
}
