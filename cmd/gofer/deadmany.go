package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
)

// letterFlags say which dead letters a command acts on. The zero value names none. bulk's filters and these are
// joined by and. all is --all, which is demanded before a command acts on every letter.
type letterFlags struct {
	bulk
	reason   string
	sites    []string // what --site stands for
	all      bool
	payloads bool // the command needs the jobs themselves
}

// actOnLetters does something to dead letters. The list may be empty. It reports one error for all letters,
// which names the first few.
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

Without an ID it replays all letters that fit every flag given. More than one letter is asked about first: --yes skips the question,
and is required without a terminal.

A job with an invalid id, such as a.b, leaves a dead letter under that id. If no message can bear that id, the worker makes one:
invalid-HASH.`,
	}, letterFlags{payloads: true}, "Replay", a.replay)
}

// deadPurgeCommand removes dead letters. It needs no payloads, so it holds little of many letters.
func (a *app) deadPurgeCommand() *cobra.Command {
	return a.letterCommand(&cobra.Command{
		Use: "purge [ID…|-]", Short: "Remove dead letters for good",
		Long: `Removes the dead letters that the IDs name: the number that 'gofer dead ls' shows, a job's id, or QUEUE/ID; - stands for IDs on
standard input, one a line. Without an ID it removes all letters that fit every flag given; letters that come meanwhile stay. More than
one letter is asked about first: --yes skips the question, and is required without a terminal.`,
	}, letterFlags{}, "Remove", a.purge)
}

// letterCommand gives a command its flags, finds the dead letters that the user means, asks about more than one, and
// calls act with them. Names that mean no letter are reported after act, so that they do not keep the others
// from it. It is shared by replay and purge, which differ in the act only.
func (a *app) letterCommand(cmd *cobra.Command, f letterFlags, action string, act actOnLetters) *cobra.Command {
	f.add(cmd.Flags(), "letters")
	cmd.Flags().StringVar(&f.reason, "reason", "", "all letters with this error code, such as attempts_exhausted")
	cmd.Flags().BoolVar(&f.all, "all", false, "all letters")
	// f was bound to the flags above, and has their values by the time RunE is called.
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := f.check(cmd, args); err != nil {
			return err
		}
		return a.verb("dead "+cmd.Name(), func(ctx context.Context, s *session, args []string) error {
			list, unknown, err := a.letters(ctx, s, f, args)
			if err != nil {
				return err
			}
			if err := a.confirm(f.yes, len(list), len(args) == 0, action+" "+count(len(list), "dead letter")+"?"); err != nil {
				return err
			}
			// Only unknown names: act would print that nothing was removed, which reads like success.
			if len(list) == 0 && len(unknown) > 0 {
				return joinFirst(unknown)
			}
			return errors.Join(act(ctx, s, list), joinFirst(unknown))
		})(cmd, args)
	}
	return cmd
}

// check refuses a call that names no letter, or that names letters in two ways. To act on all letters, --all must be
// given.
func (f *letterFlags) check(cmd *cobra.Command, args []string) error {
	filtered := f.site != "" || f.since.given || f.reason != ""
	switch {
	// --queue beside an ID is allowed, as in cancel.
	case len(args) > 0 && (filtered || f.all):
		return usage("dead %s: --site, --since, --reason and --all find letters: leave out the IDs", cmd.Name())
	case len(args) == 0 && !filtered && !f.all && f.queue == "":
		return usage("dead %s: name IDs, or letters by a flag such as --queue, or --all", cmd.Name())
	}
	if f.site != "" {
		f.sites, _ = jobs.SiteNames(f.site) // the flag has read it
	}
	return nil
}

// fits reports whether the flags mean a letter. The site is compared with the URL of the letter's result; a letter
// without a readable URL is of no site.
func (f *letterFlags) fits(l *client.DeadLetter) bool {
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

// letters returns the dead letters that the arguments name or the flags find, in the order of the stream. unknown holds
// an error for each name that means no letter.
func (a *app) letters(ctx context.Context, s *session, f letterFlags, args []string) (list []client.DeadLetter, unknown []error, err error) {
	if len(args) == 0 {
		err := s.client.DeadLetters(ctx, func(l client.DeadLetter) error {
			// Filtering happens while the stream is read, so only letters that fit are kept in memory.
			if f.fits(&l) {
				list = append(list, f.kept(l))
			}
			return nil
		})
		return list, nil, err
	}
	// Reads standard input, so it comes before the stream is read.
	names, err := a.ids(args)
	if err != nil {
		return nil, nil, err
	}
	return lettersNamed(ctx, s, f, names)
}

// kept returns a letter without what the command does not need: the payloads of many letters would fill the
// memory. l is a copy, so the letter of the caller keeps its payload.
func (f *letterFlags) kept(l client.DeadLetter) client.DeadLetter {
	if !f.payloads {
		l.Payload = nil
	}
	return l
}

// lettersNamed returns the letters that the names mean, in the order of the names. It reads the stream once, however many
// names there are. A name that means several letters is a usage error.
func lettersNamed(ctx context.Context, s *session, f letterFlags, names []string) (list []client.DeadLetter, unknown []error, err error) {
	matches := make(map[string][]client.DeadLetter, len(names))
	// A nil entry marks a name that was asked for.
	for _, name := range names {
		matches[name] = nil
	}
	err = s.client.DeadLetters(ctx, func(l client.DeadLetter) error {
		// A letter can be named in three ways. All are looked up, so one pass over the stream suffices.
		for _, name := range []string{strconv.FormatUint(l.Seq, 10), l.ID, l.String()} {
			if known, named := matches[name]; named && (f.queue == "" || l.Queue == f.queue) {
				matches[name] = append(known, f.kept(l))
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

// oneLetter returns the letter that a name means. A number is the number of a letter first, and only then the id of a
// job. Errors: client.ErrNotFound, or a usage error if several letters match.
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
	// Each replay prints its own line at once, so an interruption leaves a record of what was done.
	_, err := forEach(ctx, list, func(ctx context.Context, l client.DeadLetter) error {
		ack, err := s.client.Replay(ctx, l)
		if err != nil {
			return fmt.Errorf("replay of %s: %w", l.Key, err)
		}
		return a.say(map[string]any{"replay_of": l.Key, "queue": ack.Queue, "id": ack.ID}, "%s", ack.Key)
	})
	return err
}

// purge removes the letters and says how many are gone. A letter that is gone by then counts as removed. Errors of
// single letters are joined and the others are removed.
func (a *app) purge(ctx context.Context, s *session, list []client.DeadLetter) error {
	// Removing needs the sequence only.
	done, err := forEach(ctx, list, s.client.RemoveDeadLetter)
	if err != nil && done == 0 {
		return err
	}
	facts := map[string]any{"purged": done}
	said := fmt.Sprintf("Removed: %s.", count(done, "dead letter"))
	if len(list) == 1 {
		// One letter is answered with its name, several with their number.
		facts["purged"], said = list[0].Key, fmt.Sprintf("The dead letter of %s is removed.", list[0].Key)
	}
	return errors.Join(a.say(facts, "%s", said), err)
}
