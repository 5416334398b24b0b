package daemon

import "syscall"

// The HTTP port, and the embedded server, may each hold a quarter of the process's descriptors. The other half is kept for
// the fetches, the connection to NATS and files.
const (
	descriptorParts = 4
	leastConns      = 8
	mostConns       = 1024
)

// ConnectionLimit is how many connections the clients of one port of this process may hold at once.
func ConnectionLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return leastConns
	}
	return int(min(max(limit.Cur/descriptorParts, leastConns), mostConns))
}
