package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/testenv"
)

// TestTheBarStandsBehindEveryLine: lines that come faster than a bar is drawn would hide it.
func TestTheBarStandsBehindEveryLine(t *testing.T) {
	w := newWorld(t, nil)
	w.worker(freeAddr(t))
	const n = 60
	var in strings.Builder
	for i := range n {
		fmt.Fprintf(&in, "http://shop.test/ok?%d\n", i)
	}
	in.WriteString("/broken\n")
	sink := new(testenv.Log)
	onTerminal(t, sink, func(tty *os.File) {
		if code := run(t.Context(), environment(t), []string{"submit", "--wait", "-"}, strings.NewReader(in.String()), tty, tty); code != exitSomeFailed {
			t.Errorf("exit %d, want %d for the broken line", code, exitSomeFailed)
		}
	})
	screen := strings.ReplaceAll(sink.String(), "\r\n", "\n")
	lines := strings.Split(screen, "\n")
	outcomes, behind := 0, 0
	for i, line := range lines {
		if strings.Contains(line, "gofer: line 61") && !strings.HasSuffix(strings.Split(line, "gofer: ")[0], "\r") && line[:6] != "gofer:" {
			t.Errorf("the message stands behind the bar: %q", line)
		}
		if strings.Contains(line, "succeeded 200") {
			if outcomes++; i+1 < len(lines) && strings.Contains(lines[i+1], "failed") {
				behind++
			}
		}
	}
	if outcomes != n || behind < n-1 {
		t.Errorf("%d outcomes, %d of them with the bar behind; want %d", outcomes, behind, n)
	}
	if last := lines[len(lines)-2]; strings.Contains(last, "|") {
		t.Errorf("the bar stays at the end: %q", last)
	}
}
