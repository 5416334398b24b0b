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
	"time"
)

// moduleRoot is the folder of go.mod, and the module's name.
func moduleRoot(ctx context.Context) (root, module string, err error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}\n{{.Path}}").Output()
	if err != nil {
		return "", "", fmt.Errorf("go list -m: %w", err)
	}
	root, module, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
	return root, module, nil
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

// lines are the first and the last one of the text that goes.
func (m mutant) lines(root string) (first, last int) {
	source, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(m.file)))
	if err != nil {
		return 0, 0
	}
	before, _, _ := bytes.Cut(source, []byte(m.old))
	first = 1 + bytes.Count(before, []byte("\n"))
	return first, first + strings.Count(m.old, "\n")
}

// overlay writes the mutated file into dir, and what tells the go command to read it instead of the true one: the tree is
// left alone.
func (m mutant) overlay(root, dir string) (string, error) {
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
	return overlay, os.WriteFile(overlay, replace, 0o600)
}

// packages are those whose tests guard the mutant's file: its own, rotation for the parts of rotation, and the client for what
// the bus does for it.
func (m mutant) packages() []string {
	dir := path.Dir(m.file)
	if m.file == "jobs/bus/follow.go" || m.file == "jobs/bus/read.go" || m.file == "jobs/bus/remove.go" || m.file == "jobs/bus/results.go" {
		return []string{dir, "jobs/client"}
	}
	if parent := path.Dir(dir); parent == "rotation" {
		return []string{dir, parent}
	}
	return []string{dir}
}

// patience is how long the tests may take: those that start servers take longer.
func (m mutant) patience() time.Duration {
	switch path.Dir(m.file) {
	case "worker", "worker/fleet", "worker/totals", "worker/overdue", "worker/stream", "jobs/bus", "jobs/client":
		return 3 * time.Minute
	}
	return time.Minute
}

// firstFailure reads what a test binary says about tests that failed.
func firstFailure(out []byte) (string, error) {
	panicked := ""
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		line := lines.Text()
		switch name, failed := strings.CutPrefix(line, "--- FAIL: "); {
		case failed:
			return strings.Fields(name)[0], nil
		case strings.HasPrefix(line, "panic: test timed out"), strings.HasPrefix(line, "panic: "), strings.HasPrefix(line, "fatal error: "):
			panicked = line
		case panicked != "" && strings.HasPrefix(strings.TrimLeft(line, "\t"), "Test"):
			return strings.Fields(line)[0] + ", by its time limit", nil
		}
	}
	if panicked != "" {
		return panicked, nil
	}
	return "", fmt.Errorf("the tests failed, but none is named:\n%s", out)
}
