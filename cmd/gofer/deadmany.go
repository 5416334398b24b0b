package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/jobs/text"
)

// letterFlags say which dead letters a command acts on: those that fit all flags given.
type letterFlags struct {
	bulkFlags
	// reason is an error code; empty fits all.
	reason string
	// sites are the spellings that --site stands for.
	sites []string
	// all selects every letter: a call without any flag must not do that.
	all bool
	// payloads is true if the command needs the jobs themselves. Without them a letter is small.
	payloads bool
}

// actOnLetters does something to dead letters, of which there may be none. It goes on after a failure. Its error names the first
// letters that it failed for.
type actOnLetters func(ctx context.Context, s *session, list []client.DeadLetter) error

// deadReplayCommand publishes the jobs of dead letters again, each under an id that its letter determines. So a repeated
// call cannot start a job twice.
func (a *app) deadReplayCommand() *cobra.Command {
	return a.letterCommand(&cobra.Command{
		Use: "replay [ID…|-]", Short: "Publish failed jobs again, under the ids replay-<number>",
		Long: `Publishes the job of a dead letter again, unchanged, under the id replay-N, which is printed. N is the number of the dead letter, as
'gofer dead ls' shows it. ID may be that number, the job's id, or QUEUE/ID; - stands for IDs on standard input, one a line. The dead
letter is removed: a replay that fails leaves a new one, and a second replay finds nothing. If the stream of dead letters was deleted
and the number N was replayed before, the time of the dead letter is appended to the id.

Without an ID it replays all letters that fit every flag given. Letters found by flags are always asked about first, and
named ones from two on: --yes skips the question, and is required in its place without a terminal.

A job with an invalid id, such as a.b, leaves a dead letter under that id. If no message can bear that id, the worker makes one:
invalid-HASH.`,
	}, letterFlags{payloads: true}, "Replay", a.replay)
}

// deadPurgeCommand removes dead letters.
func (a *app) deadPurgeCommand() *cobra.Command {
	return a.letterCommand(&cobra.Command{
		Use: "purge [ID…|-]", Short: "Remove dead letters for good",
		Long: `Removes the dead letters that the IDs name: the number that 'gofer dead ls' shows, a job's id, or QUEUE/ID; - stands for IDs on
standard input, one a line. Without an ID it removes all letters that fit every flag given; letters that come meanwhile stay. Letters
found by flags are always asked about first, and named ones from two on: --yes skips the question, and is required in its place
without a terminal.`,
	}, letterFlags{}, "Remove", a.purge)
}

// letterCommand completes replay or purge: it adds the flags, finds the dead letters that the user means, asks about more
// than one, and calls act with them. Names that mean no letter are reported after act.
func (a *app) letterCommand(cmd *cobra.Command, f letterFlags, action string, act actOnLetters) *cobra.Command {
	f.addFilters(cmd.Flags(), "letters")
	cmd.Flags().BoolVar(&f.yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&f.all, "all", false, "all letters")
	// f was bound to the flags above, and has their values by the time RunE is called.
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := f.check(cmd, args); err != nil {
			return err
		}
		return a.verb("dead "+cmd.Name(), func(ctx context.Context, s *session, args []string) error {
			list, unknown, err := a.findLetters(ctx, s, f, args)
			if err != nil {
				return err
			}
			if err := a.confirm(f.yes, len(list), len(args) == 0, action+" "+count(len(list), "dead letter")+"?"); err != nil {
				return err
			}
			// Without a letter, act would print that nothing was removed, which reads like success.
			if len(list) == 0 && len(unknown) > 0 {
				return joinFirst(unknown)
			}
			return errors.Join(act(ctx, s, list), joinFirst(unknown))
		})(cmd, args)
	}
	return cmd
}

// check refuses a call that names no letter, or that names letters in two ways.
func (f *letterFlags) check(cmd *cobra.Command, args []string) error {
	filtered := f.site != "" || f.since.given || f.reason != ""
	switch {
	// --queue beside an ID is allowed, as in cancel.
	case len(args) > 0 && (filtered || f.all):
		return usage("dead %s: --site, --since, --reason and --all find letters: leave out the IDs", cmd.Name())
	case len(args) == 0 && !filtered && !f.all && f.queue == "":
		return usage("dead %s: name IDs, or letters by a flag such as --queue, or --all", cmd.Name())
	}
	f.readSite()
	return nil
}

// addFilters adds the flags that find letters.
func (f *letterFlags) addFilters(flags *pflag.FlagSet, things string) {
	f.bulkFlags.addFilters(flags, things)
	flags.StringVar(&f.reason, "reason", "", "all "+things+" with this error `CODE`, such as attempts_exhausted")
}

// readSite fills in the spellings of --site.
func (f *letterFlags) readSite() {
	if f.site != "" {
		f.sites, _ = jobs.SiteNames(f.site) // the flag has read it
	}
}

// match reports whether a letter fits the flags. Its site is that of its result's URL, which is where the redirects ended;
// a letter without a readable URL has none.
func (f *letterFlags) match(l *client.DeadLetter) bool {
	if len(f.sites) > 0 {
		// The URL of the result is where the redirects ended.
		target, err := jobs.ParseURL(l.Result.URL)
		if err != nil || !slices.Contains(f.sites, target.Site()) {
			return false
		}
	}
	// since is the zero time if it was not given, before which nothing was stored.
	return (f.queue == "" || l.Queue == f.queue) && (f.reason == "" || l.Result.Error == f.reason) && !l.StoredAt.Before(f.since.Time)
}

// findLetters returns the dead letters that the arguments name or the flags find, in the order of the stream. unknown holds
// an error for each name that means no letter.
func (a *app) findLetters(ctx context.Context, s *session, f letterFlags, args []string) (list []client.DeadLetter, unknown []error, err error) {
	if len(args) == 0 {
		reasons := map[string]bool{} // of all letters
		err := s.client.DeadLetters(ctx, func(l client.DeadLetter) error {
			reasons[l.Result.Error] = true
			if f.match(&l) {
				list = append(list, f.withoutUnneeded(l))
			}
			return nil
		})
		if err == nil {
			err = f.checkReason(reasons)
		}
		return list, nil, err
	}
	// Standard input is read before the stream: the names may come slowly, and the letters have to be current.
	names, err := a.ids(args)
	if err != nil {
		return nil, nil, err
	}
	return findLettersNamed(ctx, s, f, names)
}

// checkReason refuses a reason that is misspelt: no letter has it, and no worker of this version gives it. A worker of another
// version may give others, so the letters decide first.
func (f *letterFlags) checkReason(kept map[string]bool) error {
	known := jobs.ErrorCodes()
	if f.reason == "" || kept[f.reason] || slices.Contains(known, f.reason) {
		return nil
	}
	err := fmt.Errorf("no dead letter has the reason %q", text.Printable(f.reason))
	if near := text.Nearest(strings.ToLower(f.reason), append(slices.Sorted(maps.Keys(kept)), known...), 2); near != "" {
		return fmt.Errorf("%w, did you mean %s?", err, text.Printable(near))
	}
	if len(kept) == 0 {
		return fmt.Errorf("%w: there are no dead letters", err)
	}
	return fmt.Errorf("%w: those that are kept have %s", err, text.Printable(strings.Join(slices.Sorted(maps.Keys(kept)), ", ")))
}

// withoutUnneeded returns a letter without a payload that the command does not need: those of many letters would fill the
// memory.
func (f *letterFlags) withoutUnneeded(l client.DeadLetter) client.DeadLetter {
	if !f.payloads {
		l.Payload = nil
	}
	return l
}

// findLettersNamed returns the letters that the names mean, in the order of the names. It reads the stream once, however many
// names there are. A name that means several letters is a usage error.
func findLettersNamed(ctx context.Context, s *session, f letterFlags, names []string) (list []client.DeadLetter, unknown []error, err error) {
	matches := make(map[string][]client.DeadLetter, len(names))
	// The keys are the names that are looked for, so a name without a letter has an empty entry.
	for _, name := range names {
		matches[name] = nil
	}
	err = s.client.DeadLetters(ctx, func(l client.DeadLetter) error {
		// A letter can be named by its number, by the id of its job, and by QUEUE/ID.
		for _, name := range []string{strconv.FormatUint(l.Seq, 10), l.ID, l.String()} {
			if known, named := matches[name]; named && (f.queue == "" || l.Queue == f.queue) {
				matches[name] = append(known, f.withoutUnneeded(l))
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		l, err := oneLetter(name, matches[name])
		switch {
		case err == nil:
			list = append(list, l)
		// A name of several letters ends the call before anything is done.
		case exitCode(err) == exitUsage:
			return nil, nil, err
		default:
			unknown = append(unknown, err)
		}
	}
	return list, unknown, nil
}

// oneLetter returns the letter that a name means. A number means the letter of that number, before a job of that id. Errors:
// client.ErrNotFound; a usage error if several letters match.
func oneLetter(name string, matches []client.DeadLetter) (client.DeadLetter, error) {
	for _, l := range matches {
		// A job's id may be a number, too.
		if strconv.FormatUint(l.Seq, 10) == name {
			return l, nil
		}
	}
	switch len(matches) {
	case 0:
		return client.DeadLetter{}, fmt.Errorf("dead letter %s: %w: gofer dead ls lists those that are kept", name, client.ErrNotFound)
	case 1:
		return matches[0], nil
	}
	return client.DeadLetter{}, usage("%s names %d dead letters: name one as QUEUE/ID", name, len(matches))
}

// replay publishes the jobs again and prints the key of each replay, as soon as the server has it.
func (a *app) replay(ctx context.Context, s *session, list []client.DeadLetter) error {
	if len(list) == 0 {
		return a.err.line("No dead letters fit.") // silence would read like a replay
	}
	// Each replay prints its own line at once, so an interruption leaves a record of what was done.
	_, err := forEach(ctx, list, func(ctx context.Context, l client.DeadLetter) error {
		answered := s.noteSilence(func(text string) { a.note("%s", text) })
		ack, err := s.client.Replay(ctx, l)
		answered() // before anything is printed, because a slow reader of the output is no silence
		if err != nil {
			return fmt.Errorf("replay of %s: %w", l.Key, err)
		}
		return a.printDone(map[string]any{"replay_of": l.Key, "queue": ack.Queue, "id": ack.ID}, "%s", ack.Key)
	})
	return err
}

// purge removes the letters and prints their number, or the name of a single one. A letter that is gone already counts as
// removed. A letter that cannot be removed does not keep the others.
func (a *app) purge(ctx context.Context, s *session, list []client.DeadLetter) error {
	done, err := forEach(ctx, list, s.client.RemoveDeadLetter)
	if err != nil && done == 0 {
		return err
	}
	facts := map[string]any{"purged": done}
	sentence := fmt.Sprintf("Removed: %s.", count(done, "dead letter"))
	if len(list) == 1 {
		// One letter is answered with its name, several with their number.
		facts["purged"], sentence = list[0].Key, fmt.Sprintf("The dead letter of %s is removed.", list[0].Key)
	}
	return errors.Join(a.printDone(facts, "%s", sentence), err)
}
