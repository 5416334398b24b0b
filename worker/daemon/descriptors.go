package daemon

import "syscall"

// The HTTP port, and the embedded server, may each hold a quarter of the process's descriptors. The other half is kept for
// the fetches, the connection to NATS and files.
const (
	descriptorParts = 4
	minConns        = 8    // else a small limit would leave no room for a probe beside a browser
	maxConns        = 1024 // no port of a worker needs more
)

// ConnectionLimit is how many connections the clients of one port of this process may hold at once. It follows the limit of open
// files (RLIMIT_NOFILE), so that idle clients cannot use up the descriptors that fetches need.
func ConnectionLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return minConns
	}
	// Cur is the soft limit, which is what the process may use now.
	return int(min(max(limit.Cur/descriptorParts, minConns), maxConns))
}
