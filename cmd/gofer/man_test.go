package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// manPages are the pages that gofer writes, by the names of their files.
func manPages(t *testing.T) (dir string, pages map[string]string) {
	t.Helper()
	dir, pages = t.TempDir(), map[string]string{}
	if code, _, errOut := gofer(t, "", "man", dir); code != exitOK {
		t.Fatalf("gofer man: exit %d, %s", code, errOut)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(dir, file.Name()))
		if err != nil {
			t.Fatal(err)
		}
		pages[file.Name()] = string(text)
	}
	return dir, pages
}

func TestEachVerbHasAManPage(t *testing.T) {
	t.Parallel()
	_, pages := manPages(t)
	eachVerb(newApp(io.Discard, io.Discard, nil).root(), func(verb *cobra.Command) {
		page, found := pages[strings.ReplaceAll(verb.CommandPath(), " ", "-")+".1"]
		if found == verb.Hidden {
			t.Errorf("%s: got a page %t, want %t", verb.CommandPath(), found, !verb.Hidden)
		}
		if name := strings.ReplaceAll(verb.CommandPath(), " ", `\-`); found && !strings.Contains(page, "\n.SH NAME\n"+name+` \- `) {
			t.Errorf("%s: the page lacks its name:\n%s", verb.CommandPath(), page)
		}
	})
	if page := pages["gofer.1"]; !strings.Contains(page, "\n.SH ENVIRONMENT\n") || !strings.Contains(page, `\fBGOFER_CONCURRENCY=64\fR`) || !strings.Contains(page, `\fBgofer submit\fR`) {
		t.Errorf("gofer.1 lacks verbs or variables:\n%s", page)
	}
	if page := pages["gofer-submit.1"]; !strings.Contains(page, `\fB\-X, \-\-method METHOD\fR`) || strings.Contains(page, `\fB\-\-timeout`) {
		t.Errorf("gofer-submit.1 lacks a flag, or has a hidden one:\n%s", page)
	}
}

// TestTroffReadsTheManPages also finds what troff would take for a request of its own, such as a word behind a dot.
func TestTroffReadsTheManPages(t *testing.T) {
	t.Parallel()
	dir, pages := manPages(t)
	requests := []string{".TH", ".SH", ".TP", ".PP", ".nf", ".fi", ".BR"}
	for name, page := range pages {
		for line := range strings.SplitSeq(page, "\n") {
			word, _, _ := strings.Cut(line, " ")
			known := false
			for _, request := range requests {
				known = known || word == request
			}
			if strings.HasPrefix(line, "'") || strings.HasPrefix(line, ".") && !known {
				t.Errorf("%s: troff obeys %q", name, line)
			}
		}
		if strings.Count(page, "\n.nf\n") != strings.Count(page, "\n.fi\n") {
			t.Errorf("%s: .nf and .fi do not match", name)
		}
		if groff, err := exec.LookPath("groff"); err == nil {
			said, err := exec.CommandContext(t.Context(), groff, "-man", "-Tutf8", "-ww", "-z", filepath.Join(dir, name)).CombinedOutput()
			if err != nil || len(said) > 0 {
				t.Errorf("%s: groff says %v, %s", name, err, said)
			}
		}
	}
}
