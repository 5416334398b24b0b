package interop_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/testenv"
)

const examples = "../../jobs/examples/"

// TestTheExamplesDoWhatTheySay runs the clients of jobs/examples as a reader would, each against a fleet of its own.
func TestTheExamplesDoWhatTheySay(t *testing.T) {
	whole := []string{"page: succeeded 200", "large: 600000", "followed: succeeded", "replayed: failed attempts_exhausted"}
	for name, c := range map[string]struct {
		command []string
		prints  []string
	}{
		"go":     {[]string{"go", "run", "github.com/gofer-mq/gofer/jobs/examples/go"}, whole},
		"node":   {[]string{"node", examples + "node/client.mjs"}, whole},
		"shell":  {[]string{"bash", examples + "shell/client.sh"}, whole},
		"python": {[]string{"python3", examples + "python/client.py"}, []string{"page: succeeded 200", "followed: succeeded"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			program := testenv.Need(t, c.command[0])
			if name == "node" {
				if _, err := os.Stat(examples + "node/node_modules"); err != nil {
					t.Skip("skipped: its packages are not installed: npm --prefix jobs/examples/node ci")
				}
			}
			env := os.Environ()
			if name == "shell" {
				tool, err := filepath.Abs(testenv.Need(t, "nats", "../../bin/tools/nats", filepath.Join(os.Getenv("HOME"), "go/bin/nats")))
				if err != nil {
					t.Fatal(err)
				}
				env = append(env, "PATH="+filepath.Dir(tool)+":"+os.Getenv("PATH"), "NO_COLOR=1")
			}
			testenv.DependOn(t, examples+name)
			f := shop(t)
			f.setUp(t)
			cmd := exec.CommandContext(t.Context(), program, append(c.command[1:], f.nats.URL(), "http://shop.test")...)
			cmd.Env = env
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %v\n%s", c.command, err, out)
			}
			if got := strings.TrimSpace(string(out)); got != strings.Join(c.prints, "\n") {
				t.Errorf("got\n%s\nwant\n%s", got, strings.Join(c.prints, "\n"))
			}
		})
	}
}

// setUp runs gofer setup, which prepares the consumers that readers share.
func (f *fleet) setUp(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, "setup")
	cmd.Env = append(os.Environ(), "GOFER_NATS_URL="+f.nats.URL())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("gofer setup: %v\n%s", err, out)
	}
}

func TestNoExampleIsLongerThan60Lines(t *testing.T) {
	for _, name := range []string{"go/main.go", "node/client.mjs", "shell/client.sh", "python/client.py"} {
		text, err := os.ReadFile(examples + name)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), "\n"); n > 60 {
			t.Errorf("%s has %d lines", name, n)
		}
	}
}
