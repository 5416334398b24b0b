package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	wrap "github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/sys/unix"

	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/control"
	"github.com/gofer-mq/gofer/worker/rollup"
)

func TestTopPrintsOneScreenWhereNobodyLooks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.named("w1")
	var out string
	testenv.Eventually(t, "a screen with all that a worker answers", func() bool {
		_, out, _ = gofer(t, "", "top")
		return containsAll(out, "gofer top", "jobs/s", "\nw1 ", "\ndefault ", "\ngood ", "No sites.", "0/64", "ready")
	})
	if strings.Contains(out, "\x1b") || regexp.MustCompile(`(?m) $`).MatchString(out) {
		t.Errorf("the screen has colours or blanks at the end of a line:\n%q", out)
	}
	for _, every := range []string{"0.4s", "2h", "-1s", "x"} {
		if code, _, errOut := gofer(t, "", "top", "--every", every); code != exitUsage || !strings.Contains(errOut, "--every") {
			t.Errorf("top --every %s: exit %d, %q; want %d and the flag", every, code, errOut, exitUsage)
		}
	}
}

func TestTopSaysWhenNothingAnswers(t *testing.T) {
	t.Parallel()
	newWorld(t, nil) // without streams and workers
	code, out, errOut := gofer(t, "", "top")
	if code != exitFailed || !strings.Contains(errOut, "nothing answers") {
		t.Errorf("exit %d, %q; want %d and why", code, errOut, exitFailed)
	}
	for _, what := range []string{"proxies", "queues", "sites", "workers"} {
		if !strings.Contains(out, "\nMissing: "+what+": ") {
			t.Errorf("the screen does not name the %s that are missing:\n%s", what, out)
		}
	}
}

func TestTopPrintsASnapshotALineForPrograms(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.named("w1")
	r, out := pipe(t)
	cmd := command(t, "", "top", "--json", "--every", "0.5s")
	cmd.Stdout = out
	p := launch(t, cmd, nil)
	_ = out.Close()
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for whole, n := 0, 0; whole < 3; n++ {
		if n == 100 {
			t.Fatal("no three of 100 snapshots have an answer of the workers")
		}
		var got topSnapshot
		if !lines.Scan() {
			t.Fatalf("no line: %v, %s", lines.Err(), p.err)
		}
		if err := json.Unmarshal(lines.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if got.At.IsZero() || got.Sites == nil || len(got.Queues)+len(got.Missing) == 0 {
			t.Errorf("snapshot: got %s", lines.Bytes())
		}
		// A busy worker may answer later than it is waited for, and has no rates until then.
		if got.Missing["workers"] != "" {
			continue
		}
		if whole++; got.Rates.Seconds != 10 {
			t.Errorf("snapshot of all workers: got %s, want rates of 10 s", lines.Bytes())
		}
	}
	p.signal(syscall.SIGINT)
	if code, _ := p.end(patience); code != exitSignalled {
		t.Errorf("exit %d, want %d; it said %s", code, exitSignalled, p.err)
	}
}

// watched is gofer top on a terminal.
type watched struct {
	*child
	person, tty *os.File
	printed     *testenv.Log
	before      unix.Termios
}

// watch starts it on a terminal of a size.
func watch(t *testing.T, width, height uint16, variables ...string) *watched {
	t.Helper()
	w := &watched{printed: new(testenv.Log)}
	w.person, w.tty = terminal(t)
	t.Cleanup(func() { _ = w.tty.Close() })
	w.resize(t, width, height)
	w.before = w.mode(t)
	cmd := command(t, "", "top", "--every", "0.5s")
	cmd.Env = append(cmd.Env, append(variables, "TERM=xterm")...)
	cmd.Stdout, cmd.Stderr = w.tty, w.tty
	w.child = launch(t, cmd, w.tty)
	go func() { _, _ = io.Copy(w.printed, w.person) }() // until the terminal is closed
	return w
}

func (w *watched) resize(t *testing.T, width, height uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(w.person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height}); err != nil {
		t.Fatal(err)
	}
}

func (w *watched) mode(t *testing.T) unix.Termios {
	t.Helper()
	mode, err := unix.IoctlGetTermios(int(w.tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *mode
}

// frame is the last whole one, as lines without colours.
func (w *watched) frame() []string {
	frames := strings.Split(w.printed.String(), "\x1b[H")
	if len(frames) < 3 {
		return nil
	}
	plain := regexp.MustCompile(`\x1b\[[0-9;]*[mKJ]`).ReplaceAllString(frames[len(frames)-2], "")
	return strings.Split(strings.TrimSuffix(plain, "\r\n"), "\r\n")
}

// misfit says what of a frame does not fit; empty if nothing.
func misfit(frame []string, width, height int) string {
	if len(frame) == 0 || len(frame) > height {
		return fmt.Sprintf("%d lines", len(frame))
	}
	for _, line := range frame {
		if wrap.StringWidth(line) > width || strings.HasSuffix(line, " ") {
			return fmt.Sprintf("the line %q", line)
		}
	}
	return ""
}

// endsWell checks the exit code, and that the terminal is as it was.
func (w *watched) endsWell(t *testing.T, want int) {
	t.Helper()
	if code, _ := w.end(patience); code != want {
		t.Errorf("exit %d, want %d", code, want)
	}
	if after := w.mode(t); after != w.before {
		t.Errorf("mode of the terminal: got %+v, want %+v", after, w.before)
	}
}

func TestTopDrawsOnATerminalAndLeavesItAsItWas(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.named("w1")
	for name, c := range map[string]struct {
		end  func(*watched)
		want int
	}{
		"q":       {func(top *watched) { _, _ = top.person.WriteString("xq") }, exitOK},
		"ctrl-c":  {func(top *watched) { _, _ = top.person.WriteString("\x03") }, exitSignalled},
		"sigterm": {func(top *watched) { top.signal(syscall.SIGTERM) }, exitSignalled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			top := watch(t, 80, 24)
			testenv.Eventually(t, "the worker on the screen", func() bool { return strings.Contains(strings.Join(top.frame(), "\n"), "\nw1 ") })
			if found := misfit(top.frame(), 80, 24); found != "" {
				t.Errorf("80 columns and 24 lines: got %s", found)
			}
			for _, size := range [][2]int{{30, 9}, {200, 60}, {80, 3}} {
				top.resize(t, uint16(size[0]), uint16(size[1]))
				testenv.Eventually(t, "a drawing of the new size", func() bool { return misfit(top.frame(), size[0], size[1]) == "" })
			}
			c.end(top)
			top.endsWell(t, c.want)
			testenv.Eventually(t, "the end of the screen", func() bool {
				_, after, left := strings.Cut(top.printed.String(), leaveScreen)
				return left && (c.want == exitOK) == (after == "") && !strings.Contains(after, "\x1b")
			})
			if out := top.printed.String(); !strings.HasPrefix(out, enterScreen) || !strings.Contains(out, green+"ready"+plain) {
				t.Errorf("it did not begin a screen of its own, or has no colours: %q", out)
			}
		})
	}
}

func TestTopHasNoColoursWhereNobodyWantsThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.named("w1")
	top := watch(t, 80, 24, "NO_COLOR=1")
	testenv.Eventually(t, "the worker on the screen", func() bool { return strings.Contains(strings.Join(top.frame(), "\n"), "\nw1 ") })
	if out := top.printed.String(); regexp.MustCompile(`\x1b\[[0-9;]*m`).MatchString(out) {
		t.Errorf("it has colours: %q", out)
	}
	_, _ = top.person.WriteString("q")
	top.endsWell(t, exitOK)
}

func TestAForcedEndRestoresATerminalThatTakesNothingMore(t *testing.T) {
	t.Parallel()
	w := &watched{printed: new(testenv.Log)}
	onTerminal(t, w.printed, func(tty *os.File) {
		w.tty = tty
		before, ended := w.mode(t), make(chan unix.Termios, 1)
		a := newApp(tty, tty, func(int) { ended <- w.mode(t) })
		a.keyboard, a.in = tty, strings.NewReader("")
		s, err := a.openScreen()
		if err != nil {
			t.Fatal(err)
		}
		if w.mode(t) == before {
			t.Error("the screen did not change the mode of the terminal")
		}
		flow := func(action int) {
			if err := unix.IoctlSetInt(int(tty.Fd()), unix.TCXONC, action); err != nil {
				t.Error(err)
			}
		}
		flow(unix.TCOOFF)
		a.interrupts.exitNow(exitSignalled, "")
		if got := <-ended; got != before {
			t.Errorf("mode at the end: got %+v, want %+v", got, before)
		}
		flow(unix.TCOON)
		s.close() // it waits for the one before
	})
	if out := w.printed.String(); out != enterScreen+leaveScreen {
		t.Errorf("printed: got %q, want the screen begun and left", out)
	}
}

func TestTopNamesAWorkerThatNoLongerAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shown := &top{}
		step := []rollup.Step{{Classes: rollup.Classes{Status2xx: 30}, Failed: 10}}
		both := []control.Status{{Worker: "w1", Ready: true, Slots: 4, Recent: step}, {Worker: "w2", Ready: true, Recent: step}}
		shown.keepWorkers(both)
		if r := shown.now.Rates; r.Jobs != 6 || r.Failed != 2 {
			t.Errorf("rates: got %+v, want 6 jobs and 2 failed a second", r)
		}
		time.Sleep(2 * time.Second)
		if shown.keepWorkers(both[1:]); len(shown.now.Workers) != 2 || shown.now.Workers[0].Silent || shown.now.Workers[0].Slots != 4 {
			t.Errorf("after one answer that is late: got %+v, want w1 as it was", shown.now.Workers)
		}
		time.Sleep(28 * time.Second)
		shown.keepWorkers(both[1:])
		first := shown.now.Workers[0]
		if first.Worker != "w1" || first.state() != "no answer for 30s" || first.Slots != 0 || len(shown.now.Workers) != 2 {
			t.Errorf("after an answer of w2 alone: got %+v, want w1 first, without an answer", shown.now.Workers)
		}
		time.Sleep(91 * time.Second)
		if shown.keepWorkers(both[1:]); len(shown.now.Workers) != 1 {
			t.Errorf("after two minutes: got %+v, want w2 alone", shown.now.Workers)
		}
	})
}

func TestTopNamesAQuestionThatIsOpenForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shown := &top{next: map[string]time.Time{"sites": time.Now()}, heard: map[string]bool{}}
		shown.now.Missing = map[string]string{}
		if got := shown.snapshot().Missing; len(got) != 0 {
			t.Errorf("at once: got %v, want nothing", got)
		}
		time.Sleep(4 * time.Second)
		if got := shown.snapshot().Missing["sites"]; got != "no answer for 4s" {
			t.Errorf("after 4 s: got %q", got)
		}
		if got := strings.Join(shown.lines(look{dense: true}, 0), "\n"); !strings.Contains(got, "No answer yet: sites.") || strings.Contains(got, "No sites.") {
			t.Errorf("a screen that knows nothing yet: got %s", got)
		}
		shown.take("sites", func() {}, nil, time.Now().Add(2*time.Second))
		if got := strings.Join(shown.lines(look{dense: true}, 0), "\n"); len(shown.now.Missing) != 0 || !strings.Contains(got, "No sites.") {
			t.Errorf("after the answer: got %v, want nothing missing, on %s", shown.now.Missing, got)
		}
	})
}

func TestPanelsFitEveryHeight(t *testing.T) {
	t.Parallel()
	rows := make([]table.Row, 40)
	for i := range rows {
		rows[i] = table.Row{fmt.Sprint("r", i), i}
	}
	header := table.Row{"name", "n"}
	panels := []panel{
		{header: header, rows: rows, notes: []string{"note 1", "note 2"}}, {header: header, none: "None."}, {header: header, rows: rows[:2]}, {header: header, rows: rows[:9], total: 100},
	}
	for height := 1; height < 80; height++ {
		if got := stack(panels, look{dense: true}, height); len(got) > height {
			t.Errorf("%d lines in %d", len(got), height)
		}
	}
	got := strings.Join(stack(panels, look{dense: true}, 30), "\n")
	for _, want := range []string{"None.", "r1   1", "note 1", "… 91 more"} {
		if !strings.Contains(got, want) {
			t.Errorf("30 lines lack %q:\n%s", want, got)
		}
	}
	if all := stack(panels, look{dense: true}, 0); len(all) != 2+40+2+2+2+2+2+9+1 {
		t.Errorf("without a bound: %d lines:\n%s", len(all), strings.Join(all, "\n"))
	}
}
