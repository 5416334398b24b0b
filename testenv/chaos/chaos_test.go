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

func TestNothingIsLostAndNothingComesTwiceWhateverDies(t *testing.T) { playAll(t, false, 300) }

func TestHostileSitesPublishersAndOwnersCostNoOtherJob(t *testing.T) { playAll(t, true, 500) }

// playAll plays the scenarios of the program, each with fewer jobs and shorter faults, all at once.
func playAll(t *testing.T, hostile bool, jobs int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 14*time.Minute)
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
		if s.hostile != hostile {
			continue
		}
		programs, err := tools.versions(ctx, s, dir)
		switch {
		case errors.Is(err, errNoOldVersion):
			t.Logf("%s is left out: %v", s.name, err)
			continue
		case err != nil:
			t.Fatalf("%s: %v", s.name, err)
		}
		wg.Go(func() {
			o, err := s.play(ctx, setting{tools: programs, dir: filepath.Join(dir, s.name), jobs: jobs, seed: 1, pace: short(), progress: io.Discard})
			switch {
			case errors.Is(err, errNoDisk):
				t.Logf("%s is left out: %v", s.name, err)
			case err != nil:
				t.Errorf("%s: %v", s.name, err)
			case o.jobs-o.replays+o.refused != jobs || o.broken() != nil:
				t.Errorf("%s: %d of %d jobs, %v", s.name, o.jobs, jobs, o.broken())
			default:
				t.Logf("%s: %s; fetched more than once %d, longest recovery %s", s.name, o.done, o.refetched, o.recovery)
			}
		})
	}
}
