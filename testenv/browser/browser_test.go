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

// finding is a line that check.mjs prints: a fact about the page and what is wrong with it, or something that is to happen
// to what the page shows.
type finding struct {
	Fact  string   `json:"fact"`
	Wrong []string `json:"wrong"`
	Ask   string   `json:"ask"`
}

func TestDashboardIsLiveAndReadableByEverybody(t *testing.T) {
	node, chromium := testenv.Need(t, "node"), testenv.Need(t, "chromium")
	if _, err := os.Stat("node_modules/playwright-core"); err != nil {
		t.Skip("skipped: testenv/browser/node_modules is missing (npm --prefix testenv/browser ci)")
	}
	w := newWorld(t)
	w.submitKnownJobs()
	stopJobs := w.submitJobs()
	happen := map[string]func(){
		// The connections to it that are kept alive break, too.
		"break the proxy": func() { w.victim.Set(testenv.BadGateway) },
		"mend the proxy":  func() { w.victim.Set(testenv.Good) },
		"freeze the worker": func() {
			stopJobs()
			w.signal(syscall.SIGSTOP)
		},
		"wake the worker": func() { w.signal(syscall.SIGCONT) },
	}

	facts := 0
	w.check(node, chromium, func(f finding) {
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

// check runs check.mjs to its end, at most four minutes, and hands over what it finds while it runs.
func (w *world) check(node, chromium string, use func(finding)) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 4*testenv.Patience)
	defer cancel()
	var errs bytes.Buffer
	cmd := exec.CommandContext(ctx, node, "check.mjs", w.page, outDir(w.T))
	// Playwright closes the browser, which has a process group of its own, when it is asked to end; a browser whose
	// playwright was killed loses its pipe and ends, too.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Env = append(os.Environ(), "BROWSER="+chromium, "BROWSER_TOKEN="+token, "BROWSER_VICTIM="+victimID, "BROWSER_FAILED="+failedID, "BROWSER_LATER="+laterID, "BROWSER_WORKER="+workerName)
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	w.read(out, use)
	if err := cmd.Wait(); err != nil {
		w.Errorf("check.mjs: %v\n%s", err, &errs)
	}
}

func (w *world) read(out io.Reader, use func(finding)) {
	w.Helper()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var f finding
		dec := json.NewDecoder(strings.NewReader(lines.Text()))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&f); err != nil {
			w.Errorf("check.mjs said %q: %v", lines.Text(), err)
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
