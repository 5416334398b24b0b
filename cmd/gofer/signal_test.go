package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// TestASecondSignalEndsTheProcess starts this test once more, by a shell that ignores SIGINT as for a script's background.
func TestASecondSignalEndsTheProcess(t *testing.T) {
	if os.Getenv("UNTIL_SIGNALLED") != "" {
		ctx, _ := untilSignalled(t.Context())
		fmt.Println("begun")
		<-ctx.Done()
		fmt.Println("drains")
		select {}
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `trap '' INT; exec "$0" -test.run='^TestASecondSignalEndsTheProcess$'`, os.Args[0])
	cmd.Env = append(os.Environ(), "UNTIL_SIGNALLED=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
	}
	if exit, ok := errors.AsType[*exec.ExitError](cmd.Wait()); !ok || exit.ExitCode() != exitSignalled {
		t.Errorf("ended by %v, want exit %d", exit, exitSignalled)
	}
}
