package testenv

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
)

// lastPort counts the ports that FreeAddr has tried.
var lastPort atomic.Uint32 //nolint:gochecknoglobals // no two tests of a process get the same port

// FreeAddr is an address on loopback that nobody listens on. The system gives none of these ports to a connection, and no two
// tests of a process get the same one: it is still free when a program comes to listen there.
func FreeAddr(tb testing.TB) string {
	tb.Helper()
	const first, count = 10_000, 20_000
	for range count {
		addr := fmt.Sprintf("127.0.0.1:%d", first+(uint32(os.Getpid())*211+lastPort.Add(1))%count)
		if l, err := net.Listen("tcp", addr); err == nil {
			_ = l.Close()
			return addr
		}
	}
	tb.Fatal("no port is free")
	return ""
}
