package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// moduleRoot is the folder of go.mod.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}

func readAll(dir string) (all []mutant, err error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return nil, err
	}
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		for part := range strings.SplitSeq(strings.Trim(string(data), "\n"), "\n\n") {
			m, err := parse(part)
			if err != nil {
				return nil, fmt.Errorf("%s: %q: %w", filepath.Base(p), part, err)
			}
			all = append(all, m)
		}
	}
	return all, nil
}

func parse(text string) (m mutant, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 3 {
		return m, errors.New("want what is broken, the file, and the change")
	}
	m.what, m.file = lines[0], lines[1]
	var goes, comes []string
	for _, line := range lines[2:] {
		old, isOld := strings.CutPrefix(line, "-")
		fresh, isNew := strings.CutPrefix(line, "+")
		switch {
		case isOld:
			goes = append(goes, old)
		case isNew:
			comes = append(comes, fresh)
		default:
			return m, fmt.Errorf("line %q begins with neither - nor +", line)
		}
	}
	m.old, m.new = strings.Join(goes, "\n"), strings.Join(comes, "\n")
	if strings.TrimSpace(m.old) == "" || m.old == m.new {
		return m, errors.New("nothing goes")
	}
	return m, nil
}

// source is the mutated file.
func (m mutant) source(root string) ([]byte, error) {
	source, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(m.file)))
	if err != nil {
		return nil, err
	}
	if n := bytes.Count(source, []byte(m.old)); n != 1 {
		return nil, fmt.Errorf("%s: %s: the text that goes is in the file %d times, want once:\n%s", m.file, m.what, n, m.old)
	}
	return bytes.Replace(source, []byte(m.old), []byte(m.new), 1), nil
}

// test runs the tests of the mutant's package, and returns the name of the first that fails; empty when none does. The tree is
// left alone: the go command is told to read the mutated file, in dir, instead of the true one.
func (m mutant) test(ctx context.Context, root, dir string) (killer string, err error) {
	source, err := m.source(root)
	if err != nil {
		return "", err
	}
	mutated, overlay := filepath.Join(dir, "mutated.go"), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(mutated, source, 0o600); err != nil {
		return "", err
	}
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, filepath.FromSlash(m.file)): mutated}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(overlay, replace, 0o600); err != nil {
		return "", err
	}
	// A mutant may wait for ever.
	args := append([]string{"test", "-overlay", overlay, "-vet=off", "-count=1", "-failfast", "-short", "-timeout=" + m.patience()}, m.packages()...)
	rapid, err := m.rapidFlags(ctx, root)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", append(args, rapid...)...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err == nil {
		return "", nil
	}
	return firstFailure(out)
}

// rapidFlags let rapid neither look long for the shortest history nor keep it. Tests without rapid do not know them.
func (m mutant) rapidFlags(ctx context.Context, root string) ([]string, error) {
	args := append([]string{"list", "-f", "{{.TestImports}} {{.XTestImports}}"}, m.packages()...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	imports, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the imports of the tests of %s: %w", m.file, err)
	}
	for line := range strings.Lines(string(imports)) {
		if !strings.Contains(line, "pgregory.net/rapid") {
			return nil, nil
		}
	}
	return []string{"-rapid.nofailfile", "-rapid.shrinktime=1s"}, nil
}

// packages are those whose tests guard the mutant's file: its own, rotation for the parts of rotation, and the client for what
// the bus does for it.
func (m mutant) packages() []string {
	dir := "./" + path.Dir(m.file)
	if m.file == "jobs/bus/follow.go" || m.file == "jobs/bus/read.go" || m.file == "jobs/bus/remove.go" || m.file == "jobs/bus/results.go" {
		return []string{dir, "./jobs/client"}
	}
	if parent := path.Dir(dir); parent == "rotation" {
		return []string{dir, "./" + parent}
	}
	return []string{dir}
}

// patience is how long the tests may take: those that start servers take longer.
func (m mutant) patience() string {
	switch path.Dir(m.file) {
	case "worker", "worker/fleet", "worker/totals", "worker/overdue", "worker/stream", "jobs/bus", "jobs/client":
		return "180s"
	}
	return "60s"
}

// firstFailure reads the go command's words about tests that failed.
func firstFailure(out []byte) (string, error) {
	panicked := ""
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		line := lines.Text()
		switch name, failed := strings.CutPrefix(line, "--- FAIL: "); {
		case failed:
			return strings.Fields(name)[0], nil
		case strings.Contains(line, "[build failed]"), strings.Contains(line, "[setup failed]"):
			return "", fmt.Errorf("it cannot be built:\n%s", out)
		case strings.HasPrefix(line, "panic: test timed out"), strings.HasPrefix(line, "panic: "), strings.HasPrefix(line, "fatal error: "):
			panicked = line
		case panicked != "" && strings.HasPrefix(line, "\tTest"):
			return strings.Fields(line)[0] + ", by its time limit", nil
		}
	}
	if panicked != "" {
		return panicked, nil
	}
	return "", fmt.Errorf("the tests failed, but none is named:\n%s", out)
}
