// Package browser_test opens the dashboard in a real browser while a worker works, and looks at it as people do: in the
// light, in the dark, on a phone, by keyboard and through an accessibility checker.
package browser_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/testenv"
)

// finding is a line that a script prints: a fact about the page and what is wrong with it, or something that is to happen
// to what the page shows.
type finding struct {
	Fact  string   `json:"fact"`
	Wrong []string `json:"wrong"`
	Ask   string   `json:"ask"`
}

func TestDashboardIsLiveAndReadableByEverybody(t *testing.T) {
	node, chromium := needBrowser(t)
	w := newWorld(t)
	w.submitKnownJobs()
	stopJobs := w.submitJobs()
	report(t, func(use func(finding)) { w.check(node, chromium, use) }, map[string]func(){
		// The connections to it that are kept alive break, too.
		"break the proxy": func() { w.victim.Set(testenv.BadGateway) },
		"mend the proxy":  func() { w.victim.Set(testenv.Good) },
		"freeze the worker": func() {
			stopJobs()
			w.signal(syscall.SIGSTOP)
		},
		"wake the worker": func() { w.signal(syscall.SIGCONT) },
	})
}

// needBrowser skips a test where the programs are missing that it runs.
func needBrowser(t *testing.T) (node, chromium string) {
	t.Helper()
	node, chromium = testenv.Need(t, "node"), testenv.Need(t, "chromium")
	if _, err := os.Stat("node_modules/playwright-core"); err != nil {
		t.Skip("skipped: testenv/browser/node_modules is missing (npm --prefix testenv/browser ci)")
	}
	return node, chromium
}

// report makes a subtest of each fact that a script finds, and does what it asks for.
func report(t *testing.T, script func(use func(finding)), happen map[string]func()) {
	t.Helper()
	facts := 0
	script(func(f finding) {
		if f.Ask != "" {
			happen[f.Ask]()
			return
		}
		facts++
		t.Run(f.Fact, func(t *testing.T) {
			for _, wrong := range f.Wrong {
				t.Error(wrong)
			}
		})
	})
	if facts == 0 {
		t.Error("the browser found out nothing")
	}
}

func (w *world) check(node, chromium string, use func(finding)) {
	w.Helper()
	runScript(w.T, []string{node, "check.mjs", w.page, outDir(w.T)}, []string{
		"BROWSER=" + chromium, "BROWSER_TOKEN=" + token, "BROWSER_VICTIM=" + victimID, "BROWSER_FAILED=" + failedID, "BROWSER_LATER=" + laterID, "BROWSER_WORKER=" + workerName,
	}, use)
}

// runScript runs a script to its end, at most eight minutes, and hands over what it finds while it runs.
func runScript(t *testing.T, args, env []string, use func(finding)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*testenv.Patience)
	defer cancel()
	var errs bytes.Buffer
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	// Playwright closes the browser, which has a process group of its own, when it is asked to end; a browser whose
	// playwright was killed loses its pipe and ends, too.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	readFindings(t, out, use)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%s: %v\n%s", args[1], err, &errs)
	}
}

func readFindings(t *testing.T, out io.Reader, use func(finding)) {
	t.Helper()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var f finding
		dec := json.NewDecoder(strings.NewReader(lines.Text()))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&f); err != nil {
			t.Errorf("the script said %q: %v", lines.Text(), err)
			continue
		}
		use(f)
	}
}

// outDir is where the screenshots go: $BROWSER_OUT keeps them.
func outDir(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("BROWSER_OUT"); dir != "" {
		return dir
	}
	return t.TempDir()
}
