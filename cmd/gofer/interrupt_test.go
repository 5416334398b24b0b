package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/testenv"
)

// TestASecondSignalEndsAWorkerAtOnce starts it by a shell that ignores SIGINT, as for a script's background.
func TestASecondSignalEndsAWorkerAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	addr := freeAddr(t)
	setenv(t, "GOFER_HTTP_ADDR", addr)
	p := launch(t, command(t, "trap '' INT", "worker"), nil)
	testenv.Eventually(t, "the worker to be ready", func() bool {
		status, _ := w.get("http://" + addr + "/readyz")
		return status == http.StatusOK
	})
	w.publish("slow", job("/slow/60000", nil))
	testenv.Eventually(t, "the job to be fetched", func() bool { return w.origin.Count("/slow/60000") == 1 })
	p.signal(syscall.SIGINT)
	testenv.Eventually(t, "the drain", func() bool {
		_, body := w.get("http://" + addr + "/readyz?verbose")
		return strings.Contains(body, "draining: no new jobs are taken")
	})
	p.signal(syscall.SIGINT)
	if code, _ := p.end(patience); code != exitSignalled {
		t.Errorf("exit %d, want %d; it said:\n%s", code, exitSignalled, p.err)
	}
}

// TestAClosedTerminalDrainsAWorker: kernel and shell may each send a SIGHUP then.
func TestAClosedTerminalDrainsAWorker(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	addr := freeAddr(t)
	setenv(t, "GOFER_HTTP_ADDR", addr)
	// If this test ignores SIGHUP, as under nohup, its child would, too.
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, syscall.SIGHUP)
	defer signal.Stop(heard)
	p := launch(t, command(t, "", "worker"), nil)
	testenv.Eventually(t, "the worker to be ready", func() bool {
		status, _ := w.get("http://" + addr + "/readyz")
		return status == http.StatusOK
	})
	w.publish("slow", job("/slow/2000", nil))
	testenv.Eventually(t, "the job to be fetched", func() bool { return w.origin.Count("/slow/2000") == 1 })
	p.signal(syscall.SIGHUP)
	testenv.Eventually(t, "the drain", func() bool {
		_, body := w.get("http://" + addr + "/readyz?verbose")
		return strings.Contains(body, "draining: no new jobs are taken")
	})
	p.signal(syscall.SIGHUP)
	if code, _ := p.end(patience); code != exitOK {
		t.Errorf("exit %d, want %d after the drain; it said:\n%s", code, exitOK, p.err)
	}
}

// TestAForcedEndSetsTheModeBackBeforeItWrites: not in the goroutine that writes, so the race detector finds nothing either.
func TestAForcedEndSetsTheModeBackBeforeItWrites(t *testing.T) {
	t.Parallel()
	var isBack, wasBack bool
	forever := make(chan struct{})
	defer close(forever)
	i := newInterrupts(func(code int) { wasBack = isBack && code == exitSignalled })
	i.setRestore(func() { isBack = true }, func() { <-forever })
	i.exitNow(exitSignalled, "")
	if !wasBack {
		t.Error("the mode of the terminal was not set back before the end")
	}
}

// silentServer is a NATS server that takes every request, so that none is refused for want of a stream, and answers none.
// asked tells how many there were.
func silentServer(t *testing.T) (url string, asked func() int) {
	t.Helper()
	s := testenv.StartNATS(t, func(o *server.Options) { o.JetStream, o.StoreDir = false, "" })
	nc := s.Connect()
	requests := make(chan *nats.Msg, 1<<16)
	if _, err := nc.ChanSubscribe(">", requests); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return s.URL(), func() int { return len(requests) }
}

// verbs are the arguments of a call of each verb of the program, in the order of help. A verb that reads standard input is
// called to do so.
func verbs(t *testing.T) (out [][]string) {
	t.Helper()
	samples := map[string][]string{
		"": nil, "ID": {"someid"}, "[ID]": {"someid"}, "ID…": {"someid"}, "QUEUE": {"default"}, "HOST…": {"a.test"}, "WORKER": {"w1"},
		"LINE…": {"-"}, "LINE…|-": {"-"}, "JSON|-": {"-"}, "[FILE|-]": {"-"}, "[URL…|-]": {"-"}, "[NAME|reset]": nil, "[VERB]": nil, "FILE": {"-"}, "FILE|-": {"-"},
		"HOST…|-": {"-"}, "[ID…|-]": {"-"}, "[SITE]": nil, "[PROXY]": {"p1"}, "SITE": {"a.test"}, "FOLDER": {t.TempDir()},
	}
	var walk func(cmd *cobra.Command, path []string)
	walk = func(cmd *cobra.Command, path []string) {
		for _, sub := range cmd.Commands() {
			walk(sub, slices.Concat(path, []string{sub.Name()}))
		}
		if cmd.HasSubCommands() || len(path) == 0 || path[0] == "completion" {
			return
		}
		_, argument, _ := strings.Cut(strings.TrimSuffix(cmd.Use, " [flags]"), " ")
		sample, known := samples[argument]
		if !known {
			t.Errorf("gofer %s: this test knows no sample of its argument %q", strings.Join(path, " "), argument)
		}
		out = append(out, append(path, sample...))
	}
	walk(newApp(io.Discard, io.Discard, nil).root(), nil)
	return append(out, []string{"submit", "--wait", "http://a.test/"}, []string{"submit", "--file", "-"}, []string{"results"}, []string{"results", "--all"},
		[]string{"results", "someid", "--wait"}, []string{"events", "--until-now"}, []string{"proxies", "check"}, []string{"dead", "replay", "--all"})
}

// TestASignalEndsEveryVerb calls each verb on a server that answers nothing, with a standard input that says nothing, that is
// closed, or that never ends. A signal that comes while it waits ends it within a second.
func TestASignalEndsEveryVerb(t *testing.T) {
	t.Parallel()
	url, asked := silentServer(t)
	setenv(t, "GOFER_NATS_URL", url)
	setenv(t, "GOFER_PROXIES", "http://127.0.0.1:9")
	setenv(t, "GOFER_DRAIN_TIMEOUT", "1s")
	setenv(t, "GOFER_HTTP_ADDR", "127.0.0.1:0")
	inputs, signals := []string{"silent", "closed", "endless"}, []syscall.Signal{syscall.SIGINT, syscall.SIGTERM}
	if testing.Short() {
		inputs, signals = inputs[:1], signals[:1]
	}
	for _, args := range verbs(t) {
		for _, stdin := range inputs {
			for _, signal := range signals {
				t.Run(fmt.Sprintf("%s, %v, %s", strings.Join(args, " "), signal, stdin), func(t *testing.T) {
					// A busy machine may be late, but not each time.
					late := true
					for n := 0; late && n < 4; n++ {
						late = !endsBySignal(t, command(t, "", args...), signal, stdin, asked)
					}
					if late {
						t.Errorf("no signal ended it within %s", signalBound)
					}
				})
			}
		}
	}
}

// signalBound is a second, and as long for a machine that is busy.
const signalBound = 2 * time.Second

// endsBySignal starts cmd, waits until it waits for something, sends it the signal, and reports whether it ended in time.
func endsBySignal(t *testing.T, cmd *exec.Cmd, signal syscall.Signal, stdin string, asked func() int) (inTime bool) {
	t.Helper()
	before := asked()
	p := launch(t, cmd, standardInput(t, stdin))
	silence := time.NewTimer(300 * time.Millisecond) // a verb that asks no server waits for its input, or is over
	defer silence.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for waits := false; !waits; {
		select {
		case <-p.done:
			return true // it had nothing to wait for
		case <-silence.C:
			waits = true
		case <-tick.C:
			waits = asked() > before
		}
	}
	p.signal(signal)
	code, took := p.end(signalBound)
	isWorker := strings.Contains(strings.Join(cmd.Args, " "), "worker") || strings.Contains(strings.Join(cmd.Args, " "), "playground")
	switch {
	case code == -1 && took >= signalBound:
		t.Logf("it did not end within %s; it said:\n%s", took, tail(p.err.String()))
		return false
	case code == -1: // the signal came before the program could handle it
	case code == exitOK && !isWorker && asked() > before: // one that waits for nothing may be over when the signal comes, but not each time
		t.Logf("exit 0 though it was interrupted; it said %s%s", p.out, p.err)
		return false
	case code == exitSignalled && !strings.Contains(p.err.String(), "interrupted"):
		t.Errorf("it did not say that it was interrupted, but %q", p.err)
	}
	return true
}

// TestASignalEndsAVerbWhoseOutputNobodyReads has a pipe that is full.
func TestASignalEndsAVerbWhoseOutputNobodyReads(t *testing.T) {
	t.Parallel()
	r, w := fullPipe(t)
	cmd := command(t, "", "config", "usage", "--json")
	cmd.Stdout = w
	p := launch(t, cmd, nil)
	waitUntilFull(t, r)
	p.signal(syscall.SIGTERM)
	if code, took := p.end(patience); code != exitSignalled {
		t.Errorf("exit %d after %s, want %d; it said %s", code, took, exitSignalled, tail(p.err.String()))
	}
}

// pipeSize is the capacity of a pipe that is soon full.
const pipeSize = 4096

// fullPipe is a pipe that nobody reads.
func fullPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w = pipe(t)
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, w.Fd(), syscall.F_SETPIPE_SZ, pipeSize); errno != 0 {
		t.Fatal(errno)
	}
	return r, w
}

// waitUntilFull waits until a pipe of pipeSize is full, or has hardly any room.
func waitUntilFull(t *testing.T, r *os.File) {
	t.Helper()
	testenv.Eventually(t, "a full pipe", func() bool {
		var n int32
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, r.Fd(), syscall.TIOCINQ, uintptr(unsafe.Pointer(&n))); errno != 0 {
			t.Fatal(errno)
		}
		return n > pipeSize-512
	})
}

// standardInput is one of a kind, until the test ends.
func standardInput(t *testing.T, kind string) io.Reader {
	t.Helper()
	r, w := pipe(t)
	switch kind {
	case "closed":
		_ = w.Close()
	case "endless":
		go func() {
			for {
				if _, err := w.WriteString("http://127.0.0.1:9/\n"); err != nil {
					return
				}
			}
		}()
	}
	return r
}

// tail is the end of a long text.
func tail(text string) string { return text[max(0, len(text)-4000):] }
