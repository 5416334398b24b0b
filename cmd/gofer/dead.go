package main

import (
	"context"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs/client"
)

// deadCommand is the group of verbs about dead letters: failed jobs that are kept for inspection.
func (a *app) deadCommand() *cobra.Command {
	return verbGroup("dead", "List, show, replay and purge the jobs that failed",
		a.deadLsCommand(), a.deadShowCommand(), a.deadReplayCommand(), a.deadPurgeCommand())
}

// letterFacts is a dead letter as --json prints it. Payload hides that of the embedded letter: lists leave it out, because
// it may be large.
type letterFacts struct {
	client.DeadLetter
	Error    string `json:"error"`
	Attempts int    `json:"attempts"`
	Payload  string `json:"payload,omitempty"`
	// PayloadBase64 is a payload that no JSON string can hold unchanged.
	PayloadBase64 []byte `json:"payload_base64,omitempty"`
}

// deadLsCommand lists the dead letters, with the flags by which replay and purge find them: the list shows what those would act
// on. It reads all of them with their payloads, so its time grows with their size.
func (a *app) deadLsCommand() *cobra.Command {
	var f letterFlags
	cmd := &cobra.Command{
		Use: "ls", Short: "List the dead letters, the oldest first", Args: args(cobra.NoArgs),
		Long: "Lists the dead letters that fit every flag given, the oldest first: those that 'gofer dead replay' and 'gofer dead purge' find by the same flags.",
		RunE: a.verb("dead ls", func(ctx context.Context, s *session, _ []string) error {
			f.readSite()
			letters, _, err := a.findLetters(ctx, s, f, nil)
			if err != nil {
				return err
			}
			var rows []table.Row
			list := []letterFacts{} // JSON prints [] for an empty one, not null
			for _, l := range letters {
				list = append(list, letterFacts{DeadLetter: l, Error: l.Result.Error, Attempts: l.Result.AttemptCount})
				rows = append(rows, table.Row{l.Seq, l.Key, age(l.StoredAt), l.Result.Error, l.Reason})
			}
			if a.json {
				return a.printJSON(list)
			}
			return a.list(table.Row{"letter", "job", "for", "error", "reason"}, rows, "No dead letters.")
		}),
	}
	f.addFilters(cmd.Flags(), "letters")
	return cmd
}

// deadShowCommand prints the facts to standard error and the payload alone to standard output, so that the payload can be piped
// into gofer submit. With --json both are one object on standard output. The payload is what was published, byte by byte: a job
// that was refused as invalid has to be looked at as it is.
func (a *app) deadShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show one dead letter: the reason, and the job as it was published", Args: args(cobra.ExactArgs(1)),
		Long: `Shows why the job failed on standard error, and the job as it was published on standard output. What a terminal would obey is
shown in Go's notation (\x1b). With --json the job is "payload", or "payload_base64" if it is not UTF-8 text.`,
		RunE: a.verb("dead show", func(ctx context.Context, s *session, args []string) error {
			list, unknown, err := findLettersNamed(ctx, s, letterFlags{payloads: true}, args)
			// One name gives one letter or an error.
			if err = errors.Join(append(unknown, err)...); err != nil {
				return err
			}
			l := list[0]
			if a.json {
				facts := letterFacts{DeadLetter: l, Error: l.Result.Error, Attempts: l.Result.AttemptCount, Payload: string(l.Payload)}
				// A JSON string would silently replace the bytes that are not UTF-8.
				if !utf8.Valid(l.Payload) {
					facts.Payload, facts.PayloadBase64 = "", l.Payload
				}
				return a.printJSON(facts)
			}
			// The facts are for people. A failure to write them must not keep the payload from being printed.
			_ = a.err.line("letter %d, job %s, since %s: %s %s", l.Seq, l.Key, l.StoredAt.UTC().Format(time.RFC3339), l.Result.Error, l.Reason)
			// A terminal gets the payload with its control characters made visible; a pipe gets it unchanged.
			return a.out.block(string(l.Payload))
		}),
	}
}
