package main

import (
	"context"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/testenv"
)

// TestAnInputThatASignalEndsIsNoMistake interrupts verbs while they read standard input. Each would blame the input.
func TestAnInputThatASignalEndsIsNoMistake(t *testing.T) {
	t.Parallel()
	newWorld(t, nil)
	if code, _, errOut := gofer(t, "", "setup"); code != exitOK {
		t.Fatal(errOut)
	}
	for _, args := range [][]string{{"proxies", "add", "-"}, {"proxies", "import", "-"}, {"proxies", "check", "-"}, {"deny", "add", "-"}, {"policy", "set", "-"}, {"cancel", "-", "--yes"}, {"submit", "-"}} {
		ctx, interrupt := context.WithCancelCause(t.Context())
		over := make(chan struct{})
		in := readerFunc(func([]byte) (int, error) {
			interrupt(errInterrupted)
			<-over
			return 0, context.Canceled
		})
		var out, errOut testenv.Log
		if code := run(ctx, environment(t), args, in, &out, &errOut); code != exitSignalled || !strings.Contains(errOut.String(), "interrupted") || strings.Contains(errOut.String(), "--help") {
			t.Errorf("%v: exit %d, %q; want %d and that it was interrupted", args, code, errOut.String(), exitSignalled)
		}
		close(over)
		interrupt(nil)
	}
}
