package main

import (
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/testenv"
)

// asProgram is the variable that makes this test binary the program.
const asProgram = "RUN_AS_THE_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	if dir := os.Getenv(asServer); dir != "" {
		serveNATS(dir)
	}
	// Nothing that gofer writes may depend on the machine's zone.
	time.Local = time.FixedZone("IST", 5*3600+1800)
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		_ = parallel.Value.Set("6") // these tests wait more than they compute
	}
	os.Exit(m.Run())
}

// child is the program in a process of its own.
type child struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  *testenv.Log  // standard output
	err  *testenv.Log  // standard error
	done chan struct{} // closed at its end
}

// command prepares the program. It has the environment of this test; shell, if it is not empty, runs first.
func command(t *testing.T, shell string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	if shell != "" {
		cmd = exec.CommandContext(t.Context(), "sh", append([]string{"-c", shell + `; exec "$0" "$@"`, os.Args[0]}, args...)...)
	}
	cmd.Env = append(os.Environ(), asProgram+"=1")
	for name, value := range environment(t) {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

// launch starts cmd. If it is still there when the test ends, it is killed.
func launch(t *testing.T, cmd *exec.Cmd, in io.Reader) *child {
	t.Helper()
	p := &child{t: t, cmd: cmd, out: new(testenv.Log), err: new(testenv.Log), done: make(chan struct{})}
	cmd.Stdin = in
	if cmd.Stdout == nil {
		cmd.Stdout = p.out
	}
	if cmd.Stderr == nil {
		cmd.Stderr = p.err
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(p.done); _ = cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Kill()
		<-p.done
	})
	return p
}

func (p *child) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatal(err)
	}
}

// end waits for the end of the process and returns its exit code, and how long that took. A process that goes on for longer
// than limit is killed, and its code is -1.
func (p *child) end(limit time.Duration) (code int, took time.Duration) {
	p.t.Helper()
	began := time.Now()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // its goroutines go to standard error
		<-p.done
		return -1, time.Since(began)
	}
	return p.cmd.ProcessState.ExitCode(), time.Since(began)
}

// lines waits until standard output has so many lines.
func (p *child) lines(n int) {
	p.t.Helper()
	testenv.Eventually(p.t, "output", func() bool { return strings.Count(p.out.String(), "\n") >= n })
}
