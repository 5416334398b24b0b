package main_test

import (
	"os/exec"
	"testing"
)

// TestEveryMutantCanStillBeMade keeps the lists true to the code: what a mutant takes out has to be there, once.
func TestEveryMutantCanStillBeMade(t *testing.T) {
	if out, err := exec.CommandContext(t.Context(), "go", "run", ".", "-check").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
