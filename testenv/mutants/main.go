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
// only the mutants that have all of them in their first two lines; -check runs none, but looks whether each can be made and
// names the files.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	check := flag.Bool("check", false, "only see whether every mutant can still be made")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *check, flag.Args()); err != nil {
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

func run(ctx context.Context, check bool, words []string) error {
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	mutants, err := readAll(filepath.Join(root, "testenv", "mutants"))
	if err != nil {
		return err
	}
	mutants = chosen(mutants, words)
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
	return runAll(ctx, root, mutants)
}

func chosen(mutants []mutant, words []string) (out []mutant) {
	for _, m := range mutants {
		all := true
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
func runAll(ctx context.Context, root string, mutants []mutant) error {
	dir, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	alive := 0
	var broken error
	for _, m := range mutants {
		began := time.Now()
		killer, err := m.test(ctx, root, dir)
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
