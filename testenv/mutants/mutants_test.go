package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryMutantCanStillBeMade keeps the lists true to the code: what a mutant takes out has to be there, once.
func TestEveryMutantCanStillBeMade(t *testing.T) {
	var broken strings.Builder
	check := exec.CommandContext(t.Context(), "go", "run", ".", "-check")
	check.Stderr = &broken
	out, err := check.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, broken.String())
	}
	// What the test itself has opened makes go test run it again when that has changed.
	lists, err := filepath.Glob("*.txt")
	if err != nil || len(lists) == 0 {
		t.Fatalf("lists: %v, %v", lists, err)
	}
	for _, path := range append(lists, strings.Fields(string(out))...) {
		if filepath.Ext(path) == ".go" {
			path = filepath.Join("..", "..", path)
		}
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}
