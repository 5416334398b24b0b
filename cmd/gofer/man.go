package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gofer-mq/gofer/worker/config"
)

// manCommand writes the man pages. It is hidden because releases have the pages: who packs gofer needs it, and nobody else.
func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man FOLDER", Short: "Write a man page of each verb into a folder that exists", Hidden: true, Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.InitDefaultCompletionCmd() // cobra leaves it out of some runs
			pages := []*cobra.Command{root}
			eachVerb(root, func(verb *cobra.Command) {
				if !verb.Hidden {
					pages = append(pages, verb)
				}
			})
			// One page that cannot be written does not keep the others from being written: the error names each that is missing.
			var failed error
			for _, verb := range pages {
				failed = errors.Join(failed, os.WriteFile(filepath.Join(args[0], pageName(verb)+".1"), []byte(manPage(verb)), 0o644))
			}
			return failed
		},
	}
}

// pageName is the name of a verb's page, as man finds it: gofer-dead-ls.
func pageName(verb *cobra.Command) string { return strings.ReplaceAll(verb.CommandPath(), " ", "-") }

// manPage is one page in the macros of man(7). It has no date: two builds of a release are equal.
func manPage(verb *cobra.Command) string {
	verb.InitDefaultHelpFlag()
	b, name := strings.Builder{}, pageName(verb)
	fmt.Fprintf(&b, ".TH %s 1 \"\" \"gofer %s\" \"gofer\"\n", strings.ToUpper(name), roff(buildVersion()))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n.SH SYNOPSIS\n.nf\n%s\n.fi\n", roff(name), roff(verb.Short), roff(verb.UseLine()))
	if verb.Long != "" {
		b.WriteString(".SH DESCRIPTION\n" + roff(verb.Long) + "\n")
	}
	s := section{to: &b, title: "VERBS"}
	related := []string{".BR gofer (1)"}
	for _, sub := range verb.Commands() {
		if !sub.Hidden {
			s.item(sub.CommandPath(), sub.Short)
			related = append(related, ".BR "+roff(pageName(sub))+" (1)")
		}
	}
	s.flags("OPTIONS", verb.NonInheritedFlags())
	s.flags("OPTIONS OF ALL VERBS", verb.InheritedFlags())
	if verb.Example != "" {
		b.WriteString(".SH EXAMPLES\n" + roff(verb.Example) + "\n")
	}
	if s.title = "ENVIRONMENT"; !verb.HasParent() {
		// The page of gofer itself lists the variables, because most of them are of all verbs.
		for _, v := range config.Variables() {
			s.item(strings.TrimRight(v.Name+"="+v.Default, "="), v.Meaning)
		}
	}
	b.WriteString(".SH SEE ALSO\n" + strings.Join(related, " ,\n") + "\n")
	return b.String()
}

// section writes terms with their meanings. It writes its title before the first term, so that a section without terms leaves no
// empty heading behind.
type section struct {
	to    *strings.Builder
	title string // empty once it is written
}

// item writes one term and its meaning as a tagged paragraph (.TP).
func (s *section) item(term, meaning string) {
	if s.title != "" {
		fmt.Fprintf(s.to, ".SH %s\n", s.title)
		s.title = ""
	}
	fmt.Fprintf(s.to, ".TP\n\\fB%s\\fR\n%s\n", roff(term), roff(meaning))
}

// flags writes the flags that are not hidden, in a section of their own.
func (s *section) flags(title string, flags *pflag.FlagSet) {
	s.title = title
	flags.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			value, meaning := pflag.UnquoteUsage(f)
			s.item(strings.TrimSpace(flagLabel(f)+" "+value), meaning)
		}
	})
}

// roff escapes what troff would obey. A minus is written so that it can be copied to a shell: troff would print a hyphen. An
// empty line ends a paragraph, and a line that begins with a blank is not filled.
func roff(text string) string {
	lines := strings.Split(strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(text), "\n")
	// troff looks for requests at the beginning of each line, so every line is judged by itself.
	for i, line := range lines {
		line = ascii(line)
		lines[i] = line
		switch {
		case line == "":
			lines[i] = ".PP"
		// A dot would begin a request, and \& is a character without width before it.
		case line[0] == '.':
			lines[i] = `\&` + line
		// Indented lines are commands to be copied, and filling would join them.
		case line[0] == ' ' || line[0] == '\t':
			lines[i] = ".nf\n" + line + "\n.fi"
		}
	}
	return strings.Join(lines, "\n")
}

// ascii writes characters that are no ASCII by their numbers: without a preprocessor groff reads its input as Latin-1, and would
// print two wrong characters for each one of UTF-8.
func ascii(line string) string {
	var b strings.Builder
	for _, r := range line {
		if r < utf8.RuneSelf {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\[u%04X]`, r)
		}
	}
	return b.String()
}

// flagLabel is how documents name a flag: with both of its names.
func flagLabel(f *pflag.Flag) string {
	if f.Shorthand != "" {
		return "-" + f.Shorthand + ", --" + f.Name
	}
	return "--" + f.Name
}
