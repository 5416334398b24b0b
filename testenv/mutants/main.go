// Command mutants breaks the code on purpose, one place at a time, and sees whether a test fails. What it breaks stands in the
// .txt files beside it, one for each package:
//
//	late results count
//	breaker/permit.go
//	-	if gen != b.generation() || b.forced {
//	+	if b.forced {
//
// A mutant is a line that says what is broken, one that names the file, the text that goes and the text that comes, each part
// of a line or several; an empty line ends it. The text that goes has to be in the file exactly once. Words as arguments run
// only the mutants that have all of them in their first two lines, and -package only those of a package; -check runs none, but
// looks whether each can be made and names the files.
//
// To build the tests is most of the work, so the mutants of a package are built together, each as one more function beside the
// sound one, and a variable of the environment chooses. Of the tests, those run first that reach the line, the quickest first,
// which a run of each test alone shows. A mutant survives only after all tests of its packages have passed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	check := flag.Bool("check", false, "only see whether every mutant can still be made")
	only := flag.String("package", "", "run only the mutants of this package, such as jobs/bus")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *check, *only, flag.Args()); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

// mutant is one change for the worse.
type mutant struct {
	what     string
	file     string // from the root of the module
	old, new string
}

func run(ctx context.Context, check bool, only string, words []string) error {
	root, module, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	mutants, err := readAll(filepath.Join(root, "testenv", "mutants"))
	if err != nil {
		return err
	}
	mutants = chosen(mutants, only, words)
	for _, m := range mutants {
		_, broken := m.source(root)
		err = errors.Join(err, broken)
		if check {
			fmt.Println(m.file)
		}
	}
	if err != nil || check {
		return err
	}
	return runAll(ctx, root, module, mutants)
}

func chosen(mutants []mutant, only string, words []string) (out []mutant) {
	for _, m := range mutants {
		all := only == "" || only == path.Dir(m.file)
		for _, w := range words {
			all = all && strings.Contains(m.what+" "+m.file, w)
		}
		if all {
			out = append(out, m)
		}
	}
	return out
}

// runAll runs one mutant after the other.
func runAll(ctx context.Context, root, module string, mutants []mutant) error {
	dir, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	l := laboratory{root: root, dir: dir, suites: map[string]*suite{}, broken: map[int]bool{}}
	if err := l.prepare(ctx, module, mutants); err != nil {
		return err
	}
	alive := 0
	var broken error
	for i, m := range mutants {
		began := time.Now()
		killer, err := l.killer(ctx, i, m)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			broken = errors.Join(broken, fmt.Errorf("%s: %s: %w", m.file, m.what, err)) // the others are worth a look
			killer = "NOT MADE"
		case killer == "":
			alive++
			killer = "SURVIVED"
		}
		fmt.Printf("%-26s %-72s %4.1fs  %s\n", m.file, m.what, time.Since(began).Seconds(), killer)
	}
	fmt.Printf("%d mutants, %d survived\n", len(mutants), alive)
	if alive > 0 {
		broken = errors.Join(broken, fmt.Errorf("%d mutants survived: a test is missing for each", alive))
	}
	return broken
}

// laboratory runs mutants.
type laboratory struct {
	root, dir string            // of the module; for files that last as long as the run
	suites    map[string]*suite // by the package's directory
	together  map[int]bool      // whether a mutant is in the test binaries that have many
	broken    map[int]bool      // mutants that cannot be built
}

// prepare finds out what the tests of each suite run, if enough mutants ask for that: it takes as long as the whole suite.
func (l *laboratory) prepare(ctx context.Context, module string, mutants []mutant) error {
	const enough, few = 10, 3
	asked, guarded := map[string]int{}, map[string][]string{}
	for _, m := range mutants {
		for _, dir := range m.packages() {
			asked[dir]++
			if own := path.Dir(m.file); !slices.Contains(guarded[dir], own) {
				guarded[dir] = append(guarded[dir], own)
			}
		}
	}
	for dir, n := range asked {
		s, err := newSuite(ctx, l.root, module, dir)
		if err != nil {
			return err
		}
		l.suites[dir] = s
		slices.Sort(guarded[dir])
		if err := s.record(ctx, l.dir, guarded[dir], n >= enough); err != nil {
			return err
		}
		if n < few {
			continue
		}
		if err := l.buildTogether(ctx, s, mutants); err != nil {
			return err
		}
	}
	return nil
}

// buildTogether builds the test binary of a suite that has all its mutants. Those that cannot be built are left out.
func (l *laboratory) buildTogether(ctx context.Context, s *suite, mutants []mutant) error {
	for {
		overlay, numbered, err := together(l.root, l.dir, mutants, l.broken)
		if err != nil {
			return err
		}
		binary := filepath.Join(l.dir, strings.ReplaceAll(s.dir, "/", "_")+".test")
		err = s.build(ctx, binary, "-overlay", overlay)
		switch {
		case err == nil:
			s.together, l.together = binary, numbered
			return nil
		case errors.Is(err, errNoTests):
			return nil
		}
		broken := brokenBy(err.Error())
		if len(broken) == 0 {
			return fmt.Errorf("the mutants of %s together: %w", s.dir, err)
		}
		for _, n := range broken {
			if l.broken[n] {
				return fmt.Errorf("the mutants of %s without those that cannot be built: %w", s.dir, err)
			}
		}
		for _, n := range broken {
			l.broken[n] = true
		}
	}
}

// killer is the first test that notices the mutant; empty when none does.
func (l laboratory) killer(ctx context.Context, number int, m mutant) (string, error) {
	first, last := m.lines(l.root)
	for _, dir := range m.packages() {
		s := l.suites[dir]
		likely := s.likely(m.file, first, last)
		if s.together != "" && l.together[number] {
			killer, err := s.killer(ctx, s.together, number+1, likely, m.patience())
			if err != nil {
				return "", err
			}
			if killer == "" {
				continue
			}
			if sound, err := s.isSound(ctx, s.together, killer); err != nil || sound {
				return killer, err
			}
		}
		if killer, err := l.killerAlone(ctx, s, m, likely); err != nil || killer != "" {
			return killer, err
		}
	}
	return "", nil
}

// killerAlone is killer in a test binary that has only this mutant.
func (l laboratory) killerAlone(ctx context.Context, s *suite, m mutant, likely [][]string) (string, error) {
	overlay, err := m.overlay(l.root, l.dir)
	if err != nil {
		return "", err
	}
	binary := filepath.Join(l.dir, "mutant.test")
	if err := s.build(ctx, binary, "-overlay", overlay); errors.Is(err, errNoTests) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	return s.killer(ctx, binary, 0, likely, m.patience())
}
