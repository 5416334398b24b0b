package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// reached is what one test runs.
type reached struct {
	Name  string
	Took  time.Duration
	Lines map[string][][2]int // first and last line of each block, by the file's path from the root of the module
}

// record finds out what each test of the suite runs in the packages, if that is worth it or known from before. It is kept in
// bin until the source of one changes.
func (s *suite) record(ctx context.Context, dir string, packages []string, worth bool) error {
	kept, err := s.keptFile(packages)
	if err != nil {
		return err
	}
	if data, err := os.ReadFile(kept); err == nil {
		return json.Unmarshal(data, &s.reach)
	}
	if !worth {
		return nil
	}
	fmt.Printf("%s: record what each test runs\n", s.dir)
	binary := filepath.Join(dir, "recorded.test")
	if err := s.build(ctx, binary, "-cover", "-coverpkg=./"+strings.Join(packages, ",./")); errors.Is(err, errNoTests) {
		return nil
	} else if err != nil {
		return err
	}
	names, err := s.command(ctx, filepath.Join(s.root, s.dir), binary, "-test.list=^Test").Output()
	if err != nil {
		return fmt.Errorf("list the tests of %s: %w", s.dir, err)
	}
	s.reach = s.runEach(ctx, binary, strings.Fields(string(names)))
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	data, err := json.Marshal(s.reach)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(kept), 0o700); err != nil {
		return err
	}
	return os.WriteFile(kept, data, 0o600)
}

// keptFile is named by the source of the packages and of the tests.
func (s *suite) keptFile(packages []string) (string, error) {
	sum := sha256.New()
	for _, dir := range append([]string{s.dir}, packages...) {
		paths, err := filepath.Glob(filepath.Join(s.root, dir, "*.go"))
		if err != nil {
			return "", err
		}
		for _, p := range paths {
			data, err := os.ReadFile(p)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(sum, "%s %s %d\n%s", dir, filepath.Base(p), len(data), data)
		}
	}
	return filepath.Join(s.root, "bin", "mutants", fmt.Sprintf("%x.json", sum.Sum(nil)[:8])), nil
}

// runEach runs each test alone, several at a time. A test that fails or hangs is left out: what it reaches is only a hint.
func (s *suite) runEach(ctx context.Context, binary string, names []string) (all []reached) {
	var mu sync.Mutex // guards all
	var group sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for _, name := range names {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			profile := binary + "." + name
			limited, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			args := append(slices.Clone(s.flags), "-test.v", "-test.run=^"+name+"$", "-test.coverprofile="+profile)
			cmd := s.command(limited, filepath.Join(s.root, s.dir), binary, args...)
			cmd.WaitDelay = 5 * time.Second
			out, err := cmd.CombinedOutput()
			_, passed, found := strings.Cut(string(out), "--- PASS: "+name+" (")
			seconds, _, _ := strings.Cut(passed, ")")
			took, notRead := time.ParseDuration(seconds) // of the test: a process takes longer to start
			data, notWritten := os.ReadFile(profile)
			if !found || errors.Join(err, notRead, notWritten) != nil {
				return
			}
			lines := s.blocks(data)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, reached{name, took, lines})
		})
	}
	group.Wait()
	return all
}

// blocks are those of a coverage profile that have run. Its lines are like
//
//	example.com/module/worker/slots.go:12.30,14.3 2 1
func (s *suite) blocks(profile []byte) map[string][][2]int {
	out := map[string][][2]int{}
	for lines := bufio.NewScanner(bytes.NewReader(profile)); lines.Scan(); {
		name, at, found := strings.Cut(lines.Text(), ".go:")
		var first, last, column, statements, count int
		if !found {
			continue
		}
		if _, err := fmt.Sscanf(at, "%d.%d,%d.%d %d %d", &first, &column, &last, &column, &statements, &count); err != nil || count == 0 {
			continue
		}
		file := strings.TrimPrefix(name, s.module+"/") + ".go"
		out[file] = append(out[file], [2]int{first, last})
	}
	return out
}
