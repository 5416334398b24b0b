package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
)

// pipe is a standard input to write to, until the test ends.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

func TestOutcomesAreBroughtWhileLinesAreRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.worker(freeAddr(t))
	for name, args := range map[string][]string{"outcomes": {"submit", "--wait", "-"}, "JSON": {"submit", "--wait", "--json", "-"}, "ids": {"submit", "-"}} {
		t.Run(name, func(t *testing.T) {
			in, lines := pipe(t)
			p := launch(t, command(t, "", args...), in)
			const count = 70 // more than are waited for one by one
			for i := range count {
				if _, err := fmt.Fprintf(lines, "http://shop.test/ok?%d\n", i); err != nil {
					t.Fatal(err)
				}
				p.lines(i + 1)
			}
			_ = lines.Close()
			if code, _ := p.end(patience); code != exitOK || strings.Count(p.out.String(), "\n") != count {
				t.Errorf("exit %d, printed %s; it said %s", code, p.out, p.err)
			}
		})
	}
}

// TestAnInterruptedSubmissionNamesTenOpenJobs has no worker, and a producer that stays.
func TestAnInterruptedSubmissionNamesTenOpenJobs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	const count = 25
	accepted := func(total int) func() bool {
		return func() bool {
			queues, err := client.New(w.client).Queues(t.Context())
			return err == nil && len(queues) == 1 && int(queues[0].Queued) == total
		}
	}
	for i, c := range []struct {
		json         bool
		named, noted int
	}{{false, 10, 1}, {true, 0, 0}} {
		in, lines := pipe(t)
		args := []string{"submit", "--wait", "-"}
		if c.json {
			args = append(args, "--json")
		}
		p := launch(t, command(t, "", args...), in)
		for n := range count {
			if _, err := fmt.Fprintf(lines, "http://shop.test/%d\n", n); err != nil {
				t.Fatal(err)
			}
		}
		testenv.Eventually(t, "the jobs to be accepted", accepted((i+1)*count))
		p.signal(syscall.SIGINT)
		code, _ := p.end(patience)
		said := p.err.String()
		if code != exitSignalled || !strings.Contains(said, "gofer: interrupted: the accepted jobs go on, see gofer results\n") {
			t.Errorf("exit %d, said %q; want %d and what becomes of the jobs", code, said, exitSignalled)
		}
		if got := strings.Count(said, "no result yet: default/"); got != c.named {
			t.Errorf("%d open jobs are named, want %d", got, c.named)
		}
		if got := strings.Count(said, "no result yet: 15 more"); got != c.noted {
			t.Errorf("the others are noted %d times, want %d: %s", got, c.noted, said)
		}
		if got := strings.Count(p.out.String(), `"line":`); c.json && got != count {
			t.Errorf("JSON names %d jobs, want all %d", got, count)
		}
	}
}

// TestAnInterruptedSubmissionNamesJobsWithoutAnAnswer has a server that does not say whether it took them.
func TestAnInterruptedSubmissionNamesJobsWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	url, asked := silentServer(t)
	setenv(t, "GOFER_NATS_URL", url)
	in, lines := pipe(t)
	p := launch(t, command(t, "", "submit", "-"), in)
	for n := range 12 {
		if _, err := fmt.Fprintf(lines, "http://shop.test/%d\n", n); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Eventually(t, "the jobs to be published", func() bool { return asked() >= 12 })
	p.signal(syscall.SIGTERM)
	code, _ := p.end(patience)
	said := p.err.String()
	if code != exitSignalled || strings.Count(said, "perhaps accepted, no answer came: default/01") != 10 || !strings.Contains(said, "no answer came: 2 more\n") {
		t.Errorf("exit %d, said %s", code, said)
	}
	if !strings.HasSuffix(said, "gofer: interrupted: jobs accepted: 0; later ones were not submitted\n") {
		t.Errorf("said %s", said)
	}
}

// TestALostServerEndsASubmissionOnce has more lines than are in flight at once: the later ones do not wait for a server, too.
func TestALostServerEndsASubmissionOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	in, lines := pipe(t)
	many := launch(t, command(t, "", "submit", "-"), in)
	_, _ = fmt.Fprintln(lines, "http://shop.test/")
	many.lines(1)
	w.nats.Stop()
	testenv.Eventually(t, "the loss", func() bool { return strings.Contains(many.err.String(), "connection lost") })
	began := time.Now()
	go func() {
		for n := range 600 {
			_, _ = fmt.Fprintf(lines, "http://shop.test/%d\n", n)
		}
		_ = lines.Close()
	}()
	testenv.Eventually(t, "a word about the silence", func() bool { return strings.Contains(many.err.String(), "has not answered for 3s") })
	code, _ := many.end(client.PublishBudget + patience)
	said := many.err.String()
	// If the later lines waited for a server too, it would take as long again.
	if code != exitUnreachable || time.Since(began) > 2*client.PublishBudget {
		t.Errorf("exit %d after %s, want %d after %s", code, time.Since(began), exitUnreachable, client.PublishBudget)
	}
	for text, want := range map[string]int{
		"has not answered for 3s, trying for up to 30s: Ctrl-C ends it\n":          1,
		"NATS is not connected: jobs accepted: 1; later ones were not submitted\n": 1,
		"broke and did not come back: start nats-server there":                     1,
		"perhaps accepted, no answer came: default/01":                             10,
	} {
		if got := strings.Count(said, text); got != want {
			t.Errorf("said %d times %q, want %d: %s", got, text, want, said)
		}
	}
}

// TestASlowReaderOfTheOutputIsNoSilenceOfTheServer has a pipe that is full.
func TestASlowReaderOfTheOutputIsNoSilenceOfTheServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.worker(freeAddr(t))
	w.publish("bad", `{"url":"http://shop.test/","timeout":"?"}`)
	w.result("bad")
	testenv.Eventually(t, "the dead letter", func() bool {
		_, out, _ := gofer(t, "", "dead", "ls")
		return strings.Contains(out, "bad")
	})
	for verb, args := range map[string][]string{
		"submit": {"submit", "http://shop.test/ok"}, "replay": {"dead", "replay", "bad"}, "lines": {"submit", "-"},
	} {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			r, out := pipe(t)
			_ = out.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			for page := make([]byte, 1<<12); ; {
				if _, err := out.Write(page); err != nil {
					break
				}
			}
			cmd := command(t, "", args...)
			cmd.Stdout = out
			began := time.Now()
			p := launch(t, cmd, strings.NewReader(strings.Repeat("http://shop.test/ok\n", 300)))
			testenv.Eventually(t, "the time of a silence", func() bool { return time.Since(began) > silenceNotedAfter+2*time.Second })
			_ = out.Close()
			go func() { _, _ = io.Copy(io.Discard, r) }()
			if code, _ := p.end(patience); code != exitOK || strings.Contains(p.err.String(), "has not answered") {
				t.Errorf("exit %d, said %s", code, p.err)
			}
		})
	}
}

// TestALostServerEndsAVerbOfMany has a thing that finds no server, and later ones that would wait for it.
func TestALostServerEndsAVerbOfMany(t *testing.T) {
	t.Parallel()
	lostNow := bus.Plain(nats.ErrDisconnected)
	var asked atomic.Int32
	done, err := forEach(t.Context(), make([]int, 1000), func(context.Context, int) error { asked.Add(1); return lostNow })
	if done != 0 || !errors.Is(err, bus.ErrUnreachable) || exitCode(err) != exitUnreachable || asked.Load() > 2*atOnce {
		t.Errorf("%d things were begun, %d done: %v", asked.Load(), done, err)
	}
}

// TestASubmissionThatWasStoppedTakesItsResults stops the process while large results come, until the server has dropped its
// connection.
func TestASubmissionThatWasStoppedTakesItsResults(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *server.Options) { o.WriteDeadline = 100 * time.Millisecond })
	dir := t.TempDir()
	file := filepath.Join(dir, "urls")
	const count, size = 200, 300000
	var text strings.Builder
	for i := range count {
		fmt.Fprintf(&text, "http://shop.test/bytes/%d?%d\n", size, i)
	}
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	p := launch(t, command(t, "", "submit", "--output", filepath.Join(dir, "out"), "--file", file), nil)
	testenv.Eventually(t, "the jobs to be accepted", func() bool {
		queues, err := client.New(w.client).Queues(t.Context())
		return err == nil && len(queues) == 1 && queues[0].Queued == count
	})
	p.signal(syscall.SIGSTOP)
	w.worker(freeAddr(t))
	testenv.Eventually(t, "the server to drop the stopped process", func() bool { return w.nats.SlowConsumers() > 0 })
	testenv.Eventually(t, "all results to be stored", func() bool {
		queues, err := client.New(w.client).Queues(t.Context())
		return err == nil && len(queues) == 1 && queues[0].Queued == 0 && queues[0].Running == 0
	})
	p.signal(syscall.SIGCONT)
	if code, took := p.end(patience); code != exitOK || strings.Count(p.out.String(), jobs.Succeeded) != count {
		t.Errorf("exit %d after %s with %d outcomes, want %d; it said %s", code, took, strings.Count(p.out.String(), "\n"), count, tail(p.err.String()))
	}
}

// TestAWaitThatIsOverNamesItsJobsAndARefusalNone: both have exit code 1, and a script tells them by what is printed.
func TestAWaitThatIsOverNamesItsJobsAndARefusalNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	submit := []string{"--json", "submit", "--id", "j", "--wait", "--wait-timeout", "0.1s", "http://shop.test/ok"}
	if code, out, errOut := gofer(t, "", submit...); code != exitFailed || !strings.Contains(out, `"id":"j"`) {
		t.Errorf("a wait that is over: exit %d, %q, %q; want %d and the job", code, out, errOut, exitFailed)
	}
	if code, out, errOut := gofer(t, "", submit...); code != exitFailed || out != "" {
		t.Errorf("a refusal, for the id is queued: exit %d, %q, %q; want %d and no job", code, out, errOut, exitFailed)
	}
}
