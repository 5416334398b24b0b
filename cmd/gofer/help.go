package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
)

// helpCommand is help for any verb. cobra's own prints the help of gofer for a verb that does not exist; this one refuses
// it with exit code 2.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [VERB]", Short: "Help about any verb",
		RunE: func(cmd *cobra.Command, verbs []string) error {
			// rest is what stands behind the longest path that exists.
			found, rest, err := cmd.Root().Find(verbs)
			if err != nil || len(rest) > 0 {
				return unknownVerb(found, rest[0])
			}
			found.InitDefaultHelpFlag() // cobra adds it only when a command runs
			// People look for the members of a job in the help of the verb job.
			if err := found.Help(); err != nil || found.Name() != "job" {
				return err
			}
			return printFields(cmd.OutOrStdout())
		},
	}
}

// printFields prints the members of a job. jobs/README.md is made from the same tables, so the two cannot differ.
func printFields(out io.Writer) error {
	var text strings.Builder
	text.WriteString("\nA job's payload is a URL or a JSON object with these fields:\n")
	for _, part := range []struct {
		title  string
		fields []jobs.Field
	}{
		// The order is that of the sections of jobs/README.md.
		{"", jobs.JobFields()},
		{"proxy", jobs.ProxyFields()},
		{"ban", jobs.BanFields()},
		{"retry", jobs.PolicyFields()},
	} {
		if part.title != "" {
			fmt.Fprintf(&text, "\nFields of %s:\n", part.title)
		}
		for _, f := range part.fields {
			fmt.Fprintf(&text, "  %-20s %s\n", f.Name, plainField(f))
		}
	}
	text.WriteString("\nDurations are strings such as \"1.5s\" or numbers of seconds. Times are RFC 3339.\n" +
		"For programs: a worker serves JSON Schemas of a job and of all messages under /api/v1/schemas/, such as job.json.\n")
	// One write, so that a closed pipe gives one error.
	_, err := io.WriteString(out, text.String())
	return err
}

// plainField is a field's description without the marks of Markdown: the meaning, then in parentheses type, default and
// bounds.
func plainField(f jobs.Field) string {
	parts := []string{f.Type, "default " + f.Default}
	if f.Default == "required" {
		parts[1] = f.Default
	}
	if f.Bounds != "" {
		parts = append(parts, f.Bounds)
	}
	return strings.ReplaceAll(f.Meaning+" ("+strings.Join(parts, "; ")+")", "`", "")
}
