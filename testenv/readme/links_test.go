package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	fence   = regexp.MustCompile("(?ms)^```.*?^```$")
	heading = regexp.MustCompile(`(?m)^#+ +(.+)$`)
)

// Links to places off this repository are not followed: tests dial loopback only.
func TestRelativeLinksAndAnchorsOfDocumentsResolve(t *testing.T) {
	root := filepath.Join("..", "..")
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "*.md")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("git ls-files: %v: the documents of this tree are unknown", err)
	}
	documents := strings.Fields(string(out))
	if len(documents) < 2 {
		t.Fatalf("got %d documents, want at least 2", len(documents))
	}
	for _, document := range documents {
		for _, found := range link.FindAllStringSubmatch(prose(t, filepath.Join(root, document)), -1) {
			if reason := broken(t, root, document, found[1]); reason != "" {
				t.Errorf("%s: the link %s %s", document, found[1], reason)
			}
		}
	}
}

// broken says what is wrong with a link of a document; empty if nothing is.
func broken(t *testing.T, root, document, target string) string {
	t.Helper()
	if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
		return ""
	}
	path, anchor, _ := strings.Cut(target, "#")
	file := filepath.Join(root, document)
	if path != "" {
		file = filepath.Join(root, filepath.Dir(document), path)
	}
	if _, err := os.Stat(file); err != nil {
		return "names no file"
	}
	if anchor == "" {
		return ""
	}
	for _, h := range heading.FindAllStringSubmatch(prose(t, file), -1) {
		if slug(h[1]) == anchor {
			return ""
		}
	}
	return "names no heading"
}

// prose is a document without its blocks of code.
func prose(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fence.ReplaceAllString(string(data), "")
}

// slug is the anchor that GitHub gives to a heading.
func slug(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, text)
}
