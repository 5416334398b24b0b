package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAllLicencesOfTheProgramAreAllowedAndPrinted(t *testing.T) {
	t.Chdir("../..")
	var out bytes.Buffer
	if err := run(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Go BSD-3-Clause", "github.com/nats-io/nats.go v", "uPlot MIT", "The Go Authors"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the notices lack %q", want)
		}
	}
}

func TestALicenceThatIsMissingUnknownOrNotAllowedIsAnError(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "no licence found",
		"Mozilla Public License 2.0":    "MPL-2.0",
		"GNU GENERAL PUBLIC\n LICENSE":  "GPL",
		"You may look at it on Sundays": "a licence that nobody knows here",
		"Redistribution and use in source and binary\n forms, with or without modification, are permitted": "",
	} {
		dir := t.TempDir()
		if text != "" {
			if err := os.WriteFile(filepath.Join(dir, "LICENSE.txt"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err := (&piece{name: "x", root: dir, dirs: map[string]bool{dir: true}}).print(&bytes.Buffer{})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}
