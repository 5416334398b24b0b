package testenv

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
)

// ForgetTimers restarts the server without the timers of a stream's scheduled messages. The messages stay, and the server
// never releases them: as nats-server up to 2.15.2 and 2.14.9 does after a change of the stream's replicas.
func (n *NATS) ForgetTimers(stream string) {
	n.tb.Helper()
	n.Stop()
	ForgetTimers(n.tb, n.opts.StoreDir, stream)
	n.Start()
}

// ForgetTimers removes the timers of a stream from the store of a server that does not run.
func ForgetTimers(tb interface {
	Helper()
	Fatalf(string, ...any)
}, store, stream string) {
	tb.Helper()
	// The server's own index of timers: version, number of timers, and the sequence up to which they are complete.
	index := binary.LittleEndian.AppendUint64([]byte{1}, 0)
	index = binary.LittleEndian.AppendUint64(index, math.MaxInt64)
	found, err := filepath.Glob(filepath.Join(store, "jetstream", "*", "streams", stream, "msgs"))
	if err != nil || len(found) != 1 {
		tb.Fatalf("find the store of stream %s in %s: got %v, %v", stream, store, found, err)
	}
	if err := os.WriteFile(filepath.Join(found[0], "sched.db"), index, 0o600); err != nil {
		tb.Fatalf("write the index of timers: %v", err)
	}
}
