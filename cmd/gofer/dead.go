package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs/client"
)

func (a *app) deadCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "dead", Short: "List, show, replay and purge the jobs that failed", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.deadLsCommand(), a.deadShowCommand(), a.deadReplayCommand(), a.deadPurgeCommand())
	return cmd
}

// letterFacts is a dead letter in JSON.
type letterFacts struct {
	client.DeadLetter
	Error    string `json:"error"`
	Attempts int    `json:"attempts"`
	Payload  string `json:"payload,omitempty"`
	// PayloadBase64 is a payload that no JSON string can hold unchanged.
	PayloadBase64 []byte `json:"payload_base64,omitempty"`
}

func (a *app) deadLsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List the dead letters, the oldest first", Args: args(cobra.NoArgs),
		RunE: a.verb("dead ls", func(ctx context.Context, s *session, _ []string) error {
			var rows []table.Row
			list := []letterFacts{}
			err := s.client.DeadLetters(ctx, func(l client.DeadLetter) error {
				list = append(list, letterFacts{DeadLetter: l, Error: l.Result.Error, Attempts: l.Result.AttemptCount})
				rows = append(rows, table.Row{l.Seq, l.Key, l.StoredAt.UTC().Format(time.RFC3339), l.Result.Error, l.Reason})
				return nil
			})
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(list)
			}
			return a.out.table(table.Row{"letter", "job", "since", "error", "reason"}, rows)
		}),
	}
}

func (a *app) deadShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show one dead letter: the reason, and the job as it was published", Args: args(cobra.ExactArgs(1)),
		Long: `Shows why the job failed on standard error, and the job as it was published on standard output. What a terminal would obey is
shown in Go's notation (\x1b). With --json the job is "payload", or "payload_base64" if it is not UTF-8 text.`,
		RunE: a.verb("dead show", func(ctx context.Context, s *session, args []string) error {
			l, err := letter(ctx, s, args[0])
			if err != nil {
				return err
			}
			if a.json {
				facts := letterFacts{DeadLetter: l, Error: l.Result.Error, Attempts: l.Result.AttemptCount, Payload: string(l.Payload)}
				if !utf8.Valid(l.Payload) {
					facts.Payload, facts.PayloadBase64 = "", l.Payload
				}
				return a.printJSON(facts)
			}
			_ = a.err.line("letter %d, job %s, since %s: %s %s", l.Seq, l.Key, l.StoredAt.UTC().Format(time.RFC3339), l.Result.Error, l.Reason)
			return a.out.block(string(l.Payload))
		}),
	}
}

// letter is the dead letter that name means: its number, QUEUE/ID, or an ID.
func letter(ctx context.Context, s *session, name string) (found client.DeadLetter, err error) {
	seq, numberErr := strconv.ParseUint(name, 10, 64)
	matches := 0
	enough := errors.New("found")
	err = s.client.DeadLetters(ctx, func(l client.DeadLetter) error {
		if numberErr == nil && l.Seq == seq {
			found, matches = l, 1
			return enough
		}
		if l.ID == name || l.String() == name {
			found = l
			matches++
		}
		return nil
	})
	switch {
	case err != nil && !errors.Is(err, enough):
		return client.DeadLetter{}, err
	case matches == 0:
		return client.DeadLetter{}, fmt.Errorf("dead letter %s: %w", name, client.ErrNotFound)
	case matches > 1:
		return client.DeadLetter{}, usage("%s names %d dead letters: name one as QUEUE/ID", name, matches)
	}
	return found, nil
}

func (a *app) deadReplayCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "replay [ID]", Short: "Publish a failed job again, under the id replay-<letter>",
		Long: `Publishes the job of a dead letter again, unchanged, under the id replay-LETTER, which is printed; LETTER is the number
that 'gofer dead ls' shows. ID may be that number, the job's id, or QUEUE/ID. The dead letter is removed: a replay that fails
leaves one of its own, and a second replay finds nothing.

A job whose id is none leaves a letter under that id, such as a.b, or under one made by the worker, invalid-HASH, if no
message can bear it.`,
		Args: args(cobra.MaximumNArgs(1)),
	}
	cmd.Flags().BoolVar(&all, "all", false, "replay every dead letter")
	cmd.RunE = a.verb("dead replay", func(ctx context.Context, s *session, args []string) error {
		if all == (len(args) == 1) {
			return usage("dead replay: name one ID, or --all")
		}
		if !all {
			l, err := letter(ctx, s, args[0])
			if err != nil {
				return err
			}
			return a.replay(ctx, s, l)
		}
		// Read first, then replay: a replay that fails writes a new letter.
		var list []client.DeadLetter
		if err := s.client.DeadLetters(ctx, func(l client.DeadLetter) error { list = append(list, l); return nil }); err != nil {
			return err
		}
		var errs []error
		for _, l := range list {
			errs = append(errs, a.replay(ctx, s, l))
		}
		return errors.Join(errs...)
	})
	return cmd
}

func (a *app) replay(ctx context.Context, s *session, l client.DeadLetter) error {
	ack, err := s.client.Replay(ctx, l)
	if err != nil {
		return fmt.Errorf("replay of %s: %w", l.Key, err)
	}
	return a.say(map[string]any{"replay_of": l.Key, "queue": ack.Queue, "id": ack.ID}, "%s", ack.Key)
}

func (a *app) deadPurgeCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "purge [ID]", Short: "Remove a dead letter for good", Args: args(cobra.MaximumNArgs(1)),
	}
	cmd.Flags().BoolVar(&all, "all", false, "remove every dead letter")
	cmd.RunE = a.verb("dead purge", func(ctx context.Context, s *session, args []string) error {
		switch {
		case all == (len(args) == 1):
			return usage("dead purge: name one ID, or --all")
		case all:
			if err := s.client.PurgeDeadLetters(ctx); err != nil {
				return err
			}
			return a.say(map[string]any{"purged": "all"}, "All dead letters are removed.")
		}
		l, err := letter(ctx, s, args[0])
		if err != nil {
			return err
		}
		if err := s.client.RemoveDeadLetter(ctx, l); err != nil {
			return err
		}
		return a.say(map[string]any{"purged": l.Key}, "The dead letter of %s is removed.", l.Key)
	})
	return cmd
}
