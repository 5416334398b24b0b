package main

import (
	"fmt"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// onTerminal calls do with a terminal, and writes to sink what is printed on it.
func onTerminal(t *testing.T, sink io.Writer, do func(tty *os.File)) {
	t.Helper()
	master, tty := terminal(t)
	printed := make(chan struct{})
	go func() {
		defer close(printed)
		_, _ = io.Copy(sink, master) // until the terminal is closed
	}()
	do(tty)
	_ = tty.Close()
	<-printed
}

// terminal is a new one: what a program has, and what a person has.
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("skipped: this machine has no terminals: %v", err)
	}
	t.Cleanup(func() { _ = master.Close() })
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, tty
}
