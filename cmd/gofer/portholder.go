package main

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/gofer-mq/gofer/jobs/text"
)

// portHolder returns the end of an error text that names the process which listens on an address: "; python3, process 4711,
// listens there". err is why this program cannot listen. The text is empty if no process is the reason, or if it cannot be
// known: without the /proc of Linux, or for a process of another user.
func portHolder(addr string, err error) string {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return ""
	}
	wanted, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return ""
	}
	sockets := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, _ := os.ReadFile(table) // a machine may have no IPv6
		for line := range strings.Lines(string(data)) {
			// Field 1 is the local address, 3 the state, with 0A for "listen", and 9 the inode: proc_pid_net(5).
			f := strings.Fields(line)
			if len(f) > 9 && f[3] == "0A" && collides(wanted.AddrPort(), socketAddr(f[1])) {
				sockets["socket:["+f[9]+"]"] = true
			}
		}
	}
	return processOf(sockets)
}

// collides reports whether a socket that listens on held keeps another one from wanted: the addresses are the same, or one
// of them means every interface. [::] includes the addresses of IPv4, as Go listens.
func collides(wanted, held netip.AddrPort) bool {
	a, b := wanted.Addr().Unmap(), held.Addr().Unmap()
	if wanted.Port() != held.Port() || !b.IsValid() {
		return false
	}
	every := func(x, y netip.Addr) bool { return x.IsUnspecified() && (x.Is6() || y.Is4()) }
	// Without a host, wanted has no address, which means every interface.
	return !a.IsValid() || a.WithZone("") == b || every(a, b) || every(b, a)
}

// socketAddr reads an address of /proc/net/tcp or tcp6, such as 0100007F:1F90: words in the byte order of the machine, and the
// port. It returns the zero value for another text.
func socketAddr(written string) netip.AddrPort {
	// The kernel writes the bytes of an address as words of the machine, and the port as a number.
	host, port, _ := strings.Cut(written, ":")
	n, err := strconv.ParseUint(port, 16, 16)
	raw, bad := hex.DecodeString(host)
	if err != nil || bad != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}
	}
	// One word is an IPv4 address, four are an IPv6 address. Only the bytes within a word are swapped on a little-endian machine.
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	ip, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(ip, uint16(n))
}

// processOf names the process that has one of the sockets open, as portHolder does.
func processOf(sockets map[string]bool) string {
	if len(sockets) == 0 {
		return ""
	}
	// Only the owner of a process and root may read its files, so the process of another user stays unknown.
	files, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, file := range files {
		// A process may end while the list is read, so an error means only that this file is no match.
		if target, err := os.Readlink(file); err != nil || !sockets[target] {
			continue
		}
		process := filepath.Dir(filepath.Dir(file))
		name, err := os.ReadFile(filepath.Join(process, "comm"))
		if err != nil {
			return ""
		}
		return fmt.Sprintf("; %s, process %s, listens there", text.Printable(strings.TrimSuffix(string(name), "\n")), filepath.Base(process))
	}
	return ""
}
