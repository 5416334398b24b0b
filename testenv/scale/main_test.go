package main

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.RunLong(m)) }

// TestEachPartPrintsALine runs all parts, small and quick: a cluster, a fleet, waiting jobs and kept results.
func TestEachPartPrintsALine(t *testing.T) {
	testenv.DependOnProgram(t)
	var out strings.Builder
	err := run([]string{"-quick", "-nodes", "3", "-slots", "4", "-workers", "2", "-fleets", "2", "-stored", "2000"}, &out, io.Discard)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"\n| 3 | 2 × 4 | ", "\n| 2 | ", " | 2 of 2 | ", "\n| 0 | 0 | ", "\n| 2000 | 2000 | ", " µs | "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no line with %q in\n%s", want, out.String())
		}
	}
}
