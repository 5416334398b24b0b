package testenv

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
)

// ForgetTimers restarts the server without the timers of a stream's scheduled messages. The messages stay, and the server
// never releases them: as nats-server before 2.14.10 and 2.15.3 does after a change of the stream's replicas.
func (n *NATS) ForgetTimers(stream string) {
	n.tb.Helper()
	n.Stop()
	found, err := forgetTimers(n.opts.StoreDir, stream)
	if err != nil || !found {
		n.tb.Fatalf("forget the timers of stream %s: found %t, %v", stream, found, err)
	}
	n.Start()
}

// forgetTimers removes the timers of a stream from the store of a server that does not run, if the server has the stream.
func forgetTimers(store, stream string) (found bool, err error) {
	dirs, err := filepath.Glob(filepath.Join(store, "jetstream", "*", "streams", stream, "msgs"))
	if err != nil || len(dirs) != 1 {
		return false, err
	}
	// The server's own index of timers: version, number of timers, and the sequence up to which they are complete.
	index := binary.LittleEndian.AppendUint64([]byte{1}, 0)
	index = binary.LittleEndian.AppendUint64(index, math.MaxInt64)
	return true, os.WriteFile(filepath.Join(dirs[0], "sched.db"), index, 0o600)
}
