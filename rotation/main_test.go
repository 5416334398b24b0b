package rotation_test

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

// TestMain makes the properties be drawn less often under the race detector, which slows this package by ten and finds no more in
// many runs of one goroutine than in a few. 'make test-all' also runs the package without it, and then in full.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", fmt.Sprint(few(100, 25))); err != nil {
		panic(err)
	}
	os.Exit(m.Run()) // reads the flags of the command line, which come first
}

// few is the smaller number under the race detector, else the full one.
func few(full, raceDetector int) int {
	if raced {
		return raceDetector
	}
	return full
}

// sample is the first of some cases under the race detector, else all of them.
func sample[T any](cases ...T) []T {
	return cases[:few(len(cases), 1)]
}
