package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gofer-mq/gofer/worker/config"
)

// With -update, the tests that compare a document with the program write the document.
var update = flag.Bool("update", false, "write the documents that the tests compare")

const referenceHead = `# Command line and configuration

This page is made from the program: 'go test ./cmd/gofer -run Reference -update' writes it. Every verb has this text in
'--help', too.

| exit code | meaning |
|---|---|
| 0 | ok |
| 1 | failed |
| 2 | usage |
| 3 | some jobs failed |
| 69 | NATS unreachable |
| 78 | bad configuration |
| 130 | interrupted; a worker: by a second signal |

The hidden verb 'gofer man FOLDER' writes a man page of each verb into a folder; the packages of 'make dist' have them.

SIGTERM or the first Ctrl-C drains a worker, the second one ends it. '--json' prints JSON for every verb. An 'ID' may be
'QUEUE/ID'. Results go to standard output, messages to standard error.

Which server: '--server URL', else '--context NAME', else 'GOFER_NATS_URL', else 'NATS_CONTEXT'. Contexts are those of the 'nats'
command, in '~/.config/nats/context'. A context takes the place of all variables 'GOFER_NATS_…'; '--server' replaces only the URL. gofer
refuses a context with 'nsc', 'user_jwt', 'socks_proxy', 'jetstream_api_prefix' or 'windows_cert_store'. 'gofer config show' says which
settings come from it.

[Variables](#variables). Verbs:

`

func TestTheCommandReferenceIsCurrent(t *testing.T) {
	t.Parallel()
	want := reference(newApp(io.Discard, io.Discard, nil).root())
	if *update {
		if err := os.WriteFile("README.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("README.md differs from the program: run 'go test ./cmd/gofer -run Reference -update'")
	}
}

// quoted is a command or a file that a help text has in single quotes.
var quoted = regexp.MustCompile(`(^|[\s(])'([^'\n]+)'`)

// reference is the whole page.
func reference(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString(strings.ReplaceAll(referenceHead, "'", "`"))
	writeIndex(&b, root)
	b.WriteString("## Verbs\n\n")
	writeVerbs(&b, root)
	b.WriteString("## Variables\n\nThe environment configures gofer. An empty variable counts as unset. Every misspelt `GOFER_` variable and every bad value\n" +
		"is named at start, all at once, with exit code 78.\n\n| variable | default | meaning |\n|---|---|---|\n")
	for _, v := range config.Variables() {
		meaning := v.Meaning
		if twin := v.Twin(); twin != "" {
			meaning += " (also `" + twin + "`)"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", v.Name, code(v.Default), strings.ReplaceAll(meaning, "|", "\\|"))
	}
	return b.String()
}

// writeIndex writes links to all verbs, in the groups and the order of help.
func writeIndex(b *strings.Builder, root *cobra.Command) {
	for _, group := range root.Groups() {
		b.WriteString("- " + group.Title)
		for _, verb := range root.Commands() {
			if verb.GroupID == group.ID {
				writeLinks(b, verb)
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
}

// writeLinks writes links to a verb, or to the verbs below it.
func writeLinks(b *strings.Builder, verb *cobra.Command) {
	if verb.Hidden || verb.Name() == "help" || verb.Name() == "completion" {
		return
	}
	if !verb.HasSubCommands() {
		name := verb.CommandPath()
		fmt.Fprintf(b, " [%s](#%s)", strings.TrimPrefix(name, "gofer "), strings.ReplaceAll(name, " ", "-"))
	}
	for _, sub := range verb.Commands() {
		writeLinks(b, sub)
	}
}

// writeVerbs writes the verbs below cmd, each with its flags.
func writeVerbs(b *strings.Builder, cmd *cobra.Command) {
	for _, verb := range cmd.Commands() {
		if verb.Hidden || verb.Name() == "help" || verb.Name() == "completion" {
			continue
		}
		if verb.HasSubCommands() {
			writeVerbs(b, verb)
			continue
		}
		fmt.Fprintf(b, "### %s\n\n%s.\n\n```text\n%s\n```\n\n", verb.CommandPath(), verb.Short, verb.UseLine())
		if verb.Long != "" {
			fmt.Fprintf(b, "%s\n\n", quoted.ReplaceAllString(strings.ReplaceAll(verb.Long, "<", "&lt;"), "$1`$2`"))
		}
		writeFlags(b, verb)
	}
}

func writeFlags(b *strings.Builder, verb *cobra.Command) {
	verb.InitDefaultHelpFlag()
	first := true
	verb.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		if first {
			b.WriteString("| flag | meaning |\n|---|---|\n")
			first = false
		}
		name, meaning := pflag.UnquoteUsage(f)
		fmt.Fprintf(b, "| `%s` | %s |\n", strings.TrimSpace(flagLabel(f)+" "+name), strings.ReplaceAll(meaning, "|", "\\|"))
	})
	if !first {
		b.WriteString("\n")
	}
}

func code(text string) string {
	if text == "" {
		return "–"
	}
	return "`" + text + "`"
}
