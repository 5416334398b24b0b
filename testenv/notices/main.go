// Command notices prints the licences of everything that is linked into gofer, as who distributes a binary has to. It exits
// with 1 when a licence is missing, unknown, or none of those that gofer allows.
package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// allowed are the licences that gofer may be distributed with: they ask for a notice and for nothing else.
func allowed() []string { return []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MIT"} }

// page is the folder whose script comes from another project, with its licence beside it.
const page = "worker/admin/page"

func main() {
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "notices:", err)
		os.Exit(1)
	}
}

func run(out io.Writer) error {
	pieces, err := linked()
	if err != nil {
		return err
	}
	var broken error
	for _, p := range pieces {
		if err := p.print(out); err != nil {
			broken = errors.Join(broken, fmt.Errorf("%s: %w", p.name, err))
		}
	}
	return broken
}

// piece is a module, or the standard library, with the folders of its packages that gofer links.
type piece struct {
	name, root string
	dirs       map[string]bool
}

// linked lists what gofer links on any of the systems that it is built for, by name.
func linked() ([]*piece, error) {
	goroot, err := command("env", "GOROOT")
	if err != nil {
		return nil, err
	}
	root := strings.TrimSpace(goroot)
	byName := map[string]*piece{
		"Go": {name: "Go", root: root, dirs: map[string]bool{root: true}},
		// uPlot is embedded as a file: no package list knows it.
		"uPlot": {name: "uPlot", root: page, dirs: map[string]bool{page: true}},
	}
	for _, system := range []string{"linux", "darwin"} {
		list, err := command("list", "-deps", "-f", `{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}|{{.Dir}}|{{$.Dir}}{{end}}{{end}}`, "./cmd/gofer", "GOOS="+system)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(list) {
			part := strings.Split(strings.TrimSpace(line), "|")
			if len(part) != 3 {
				continue
			}
			if byName[part[0]] == nil {
				byName[part[0]] = &piece{name: part[0], root: part[1], dirs: map[string]bool{part[1]: true}}
			}
			// A package may have a licence of its own, or the folder above it.
			for dir := part[2]; len(dir) > len(part[1]); dir = filepath.Dir(dir) {
				byName[part[0]].dirs[dir] = true
			}
		}
	}
	return slices.SortedFunc(maps.Values(byName), func(a, b *piece) int { return cmp.Compare(a.name, b.name) }), nil
}

// command runs go. A last argument GOOS=… is for its environment.
func command(args ...string) (string, error) {
	env := append(os.Environ(), "CGO_ENABLED=0")
	if last := args[len(args)-1]; strings.HasPrefix(last, "GOOS=") {
		args, env = args[:len(args)-1], append(env, last)
	}
	c := exec.Command("go", args...)
	var errOut bytes.Buffer
	c.Env, c.Stderr = env, &errOut
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, errOut.Bytes())
	}
	return string(out), nil
}

// print writes the licences and notices of a piece.
func (p *piece) print(out io.Writer) error {
	texts, found := map[string]bool{}, false
	for _, dir := range slices.Sorted(maps.Keys(p.dirs)) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			name := strings.ToUpper(e.Name())
			isLicence := strings.Contains(name, "LICENSE") || strings.Contains(name, "LICENCE") || strings.HasPrefix(name, "COPYING")
			if e.IsDir() || strings.HasSuffix(name, ".GO") || !isLicence && !strings.HasPrefix(name, "NOTICE") && !strings.HasPrefix(name, "PATENTS") {
				continue
			}
			text, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				return err
			}
			kind := ""
			if isLicence {
				found = true
				if kind = licence(string(text)); !slices.Contains(allowed(), kind) {
					return fmt.Errorf("%s is %s, which is not among %q", filepath.Join(dir, e.Name()), cmp.Or(kind, "a licence that nobody knows here"), allowed())
				}
			}
			if texts[string(text)] {
				continue // several packages of a module often hold the same text
			}
			texts[string(text)] = true
			if _, err := fmt.Fprintf(out, "%s\n%s %s\n\n%s\n\n", strings.Repeat("=", 78), p.name, kind, bytes.TrimSpace(text)); err != nil {
				return err
			}
		}
	}
	if !found {
		return errors.New("no licence found")
	}
	return nil
}

// licence names the licence of a text by words that only this one has; empty means another one.
func licence(text string) string {
	text = strings.ToLower(strings.Join(strings.Fields(text), " "))
	has := func(words string) bool { return strings.Contains(text, words) }
	switch {
	// A text with one of these names may hold the words of the others, too.
	case has("gnu general public license"), has("gnu lesser general public"), has("gnu affero"):
		return "GPL"
	case has("mozilla public license"):
		return "MPL-2.0"
	case has("apache license version 2.0"):
		return "Apache-2.0"
	case has("permission is hereby granted, free of charge, to any person obtaining a copy"):
		return "MIT"
	case !has("redistribution and use in source and binary forms, with or without modification, are permitted"):
		return ""
	case has("neither the name"), has("names of its contributors may not be used"):
		return "BSD-3-Clause"
	}
	return "BSD-2-Clause"
}
