package main

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/testenv"
)

// The scenarios of the program, each with fewer jobs and shorter faults, all at once.
func TestNothingIsLostAndNothingComesTwiceWhateverDies(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	testenv.DependOnProgram(t)
	dir := t.TempDir()
	tools, err := build(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, s := range scenarios() {
		wg.Go(func() {
			o, err := s.play(ctx, setting{tools: tools, dir: filepath.Join(dir, s.name), jobs: 300, seed: 1, pace: short(), progress: io.Discard})
			switch {
			case errors.Is(err, errNoDisk):
				t.Logf("%s is left out: %v", s.name, err)
			case err != nil:
				t.Errorf("%s: %v", s.name, err)
			case o.jobs != 300 || o.broken() != nil:
				t.Errorf("%s: %d of 300 jobs, %v", s.name, o.jobs, o.broken())
			default:
				t.Logf("%s: %s; fetched more than once %d, longest recovery %s", s.name, o.done, o.refetched, o.recovery)
			}
		})
	}
}
