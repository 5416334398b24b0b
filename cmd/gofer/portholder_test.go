package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

func TestATakenPortNamesTheProcessThatHoldsIt(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("skipped: only Linux has /proc")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	setenv(t, "GOFER_HTTP_ADDR", l.Addr().String())
	setenv(t, "GOFER_DATA_DIR", t.TempDir())
	setenv(t, "GOFER_EMBEDDED_ADDR", l.Addr().String())
	code, _, errOut := gofer(t, "", "worker")
	want := fmt.Sprintf("process %d, listens there", os.Getpid())
	if code != exitConfig || strings.Count(errOut, want) != 2 {
		t.Errorf("exit %d, %q; want %d, and %q of both ports", code, errOut, exitConfig, want)
	}
}

func TestOnlyWhoKeepsAProgramFromListeningIsNamed(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("skipped: only Linux has /proc")
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for addr, named := range map[string]bool{
		"127.0.0.1:" + port: true, "0.0.0.0:" + port: true, ":" + port: true, "[::]:" + port: true, "[::ffff:127.0.0.1]:" + port: true,
		"127.0.0.2:" + port: false, "[::1]:" + port: false, freeAddr(t): false, "127.0.0.1:http": false, "nowhere": false,
	} {
		if got := portHolder(addr, syscall.EADDRINUSE); strings.Contains(got, fmt.Sprintf("process %d, listens there", os.Getpid())) != named {
			t.Errorf("portHolder(%q) = %q, want a name: %t", addr, got, named)
		}
		if got := portHolder(addr, syscall.EACCES); got != "" {
			t.Errorf("without a process in the way, portHolder(%q) = %q", addr, got)
		}
	}
}

func TestSocketsThatCollide(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		wanted, held string
		want         bool
	}{
		{"127.0.0.1:80", "127.0.0.1:80", true}, {"127.0.0.1:80", "127.0.0.1:81", false}, {"127.0.0.1:80", "127.0.0.2:80", false},
		{"127.0.0.1:80", "0.0.0.0:80", true}, {"127.0.0.1:80", "[::]:80", true}, {"[::1]:80", "0.0.0.0:80", false}, {"[::1]:80", "[::]:80", true},
		{"0.0.0.0:80", "[::1]:80", false}, {"[::]:80", "127.0.0.1:80", true}, {"[fe80::1%lo]:80", "[fe80::1]:80", true},
	} {
		if got := collides(netip.MustParseAddrPort(c.wanted), netip.MustParseAddrPort(c.held)); got != c.want {
			t.Errorf("%s beside %s: %t, want %t", c.wanted, c.held, got, c.want)
		}
	}
	for _, written := range []string{"", "x:y", "00:1F90", "0100007F:x", "0000000000000000:1F90"} {
		if got := socketAddr(written); got.IsValid() {
			t.Errorf("%q is read as %s", written, got)
		}
	}
}

// TestTheNameOfAProcessIsPrinted gives this process, for a moment, a name that a terminal would obey.
func TestTheNameOfAProcessIsPrinted(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("skipped: only Linux has /proc")
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	const file = "/proc/self/comm"
	name, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("a\x1b[31mb"), 0); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.WriteFile(file, name, 0) }()
	if got := portHolder(l.Addr().String(), syscall.EADDRINUSE); !strings.HasPrefix(got, `; a\x1b[31mb, process `) {
		t.Errorf("portHolder says %q", got)
	}
}
