package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// suite is the tests of one package.
type suite struct {
	root, dir string // of the module, of the package from there
	module    string
	flags     []string
	reach     []reached       // empty while not recorded
	together  string          // the test binary with many mutants; empty if there is none
	sound     map[string]bool // tests that were run in together without a mutant, and whether they passed
}

func newSuite(ctx context.Context, root, module, dir string) (*suite, error) {
	s := &suite{root: root, dir: dir, module: module, sound: map[string]bool{}, flags: []string{"-test.short", "-test.failfast", "-test.parallel=4"}}
	out, err := s.command(ctx, root, "go", "list", "-f", "{{.TestImports}} {{.XTestImports}}", "./"+dir).Output()
	if err != nil {
		return nil, fmt.Errorf("list the imports of the tests of %s: %w", dir, err)
	}
	// Rapid neither looks long for the shortest history nor keeps it. Tests without rapid do not know its flags.
	if strings.Contains(string(out), "pgregory.net/rapid") {
		s.flags = append(s.flags, "-rapid.nofailfile", "-rapid.shrinktime=1s")
	}
	return s, nil
}

func (s *suite) command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	return cmd
}

// errNoTests is of a package without tests: nothing is built.
var errNoTests = errors.New("the package has no tests")

// build makes the test binary.
func (s *suite) build(ctx context.Context, binary string, args ...string) error {
	_ = os.Remove(binary) // of the mutant before
	// To link is most of the work, and half of that is what only a debugger reads.
	args = append([]string{"test", "-c", "-vet=off", "-ldflags=-s -w", "-o", binary}, args...)
	if out, err := s.command(ctx, s.root, "go", append(args, "./"+s.dir)...).CombinedOutput(); err != nil {
		return fmt.Errorf("it cannot be built: %w\n%s", err, out)
	}
	if _, err := os.Stat(binary); err != nil {
		return errNoTests
	}
	return nil
}

// killer is the first test that fails in the binary, empty if none does. The tests that are likely to fail run first, a few
// and then more; only the whole suite shows that none does. mutant is 0 if the binary has only one.
func (s *suite) killer(ctx context.Context, binary string, mutant int, likely [][]string, patience time.Duration) (string, error) {
	for _, names := range likely {
		only := "-test.run=^(" + strings.Join(names, "|") + ")$"
		if killer, err := s.runTests(ctx, binary, mutant, patience, only); killer != "" || err != nil {
			return killer, err
		}
	}
	return s.runTests(ctx, binary, mutant, patience)
}

func (s *suite) runTests(ctx context.Context, binary string, mutant int, patience time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience+30*time.Second) // a mutant may wait for ever, or spin
	defer cancel()
	args = append(append(slices.Clone(s.flags), "-test.timeout="+patience.String()), args...)
	cmd := s.command(ctx, filepath.Join(s.root, s.dir), binary, args...)
	cmd.Env = append(os.Environ(), fmt.Sprint(chosenBy, "=", mutant))
	cmd.WaitDelay = 5 * time.Second // a process that a test has started may hold the output
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return "", nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return "the time limit of the whole run", nil
	}
	return firstFailure(out)
}

// isSound reports whether the test that has noticed a mutant passes in the same binary without it. A test that counts what
// the compiler allocates may not.
func (s *suite) isSound(ctx context.Context, binary, test string) (bool, error) {
	test, _, _ = strings.Cut(test, ",") // TestX, by its time limit
	if !strings.HasPrefix(test, "Test") {
		return true, nil
	}
	if sound, known := s.sound[test]; known {
		return sound, nil
	}
	killer, err := s.runTests(ctx, binary, 0, time.Minute, "-test.run=^"+test+"$")
	s.sound[test] = killer == ""
	return killer == "", err
}

// likely are the tests that reach one of the lines, the quickest first, in groups that cost little. If none reaches one, which
// is so of a constant, those are meant that reach the file.
func (s *suite) likely(file string, first, last int) (groups [][]string) {
	reaching := func(first, last int) (out []reached) {
		for _, r := range s.reach {
			if slices.ContainsFunc(r.Lines[file], func(b [2]int) bool { return b[0] <= last && b[1] >= first }) {
				out = append(out, r)
			}
		}
		return out
	}
	tests := reaching(first, last)
	if len(tests) == 0 {
		tests = reaching(0, 1<<30)
	}
	slices.SortStableFunc(tests, func(a, b reached) int { return cmp.Compare(a.Took, b.Took) })
	for _, most := range []time.Duration{time.Second, 10 * time.Second} {
		var names []string
		sum := time.Duration(0)
		for len(tests) > 0 && (sum+tests[0].Took <= most || len(names) == 0) {
			sum += tests[0].Took
			names, tests = append(names, tests[0].Name), tests[1:]
		}
		if len(names) > 0 {
			groups = append(groups, names)
		}
	}
	return groups
}
