package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/gofer-mq/gofer/jobs"
)

// bulkFlags are the flags of a command that acts on many jobs or dead letters: those that fit all flags given. queue beside
// an ID is no filter, but the queue in which the ID is looked up.
type bulkFlags struct {
	queue, site string
	since       sinceFlag
	yes         bool
}

// add adds the flags to a command. things names in the help text what the command acts on.
func (b *bulkFlags) add(flags *pflag.FlagSet, things string) {
	b.addFilters(flags, things)
	flags.BoolVar(&b.yes, "yes", false, "do not ask")
}

// addFilters adds those that find jobs or letters. A verb that only lists has no others.
func (b *bulkFlags) addFilters(flags *pflag.FlagSet, things string) {
	flags.StringVar(&b.queue, "queue", "", "all "+things+" of this `QUEUE`; with an ID: its queue")
	flags.Var((*siteFlag)(&b.site), "site", "all "+things+" of this `SITE`, such as example.com or example.com:8443")
	// The value is read once, when the flags are parsed: a duration does not move on while the verb runs.
	flags.Var(&b.since, "since", "all "+things+" since this `TIME` (RFC 3339), or for no longer than this duration")
}

// siteFlag is a flag that takes a site and keeps it in the spelling of the workers. It refuses a text that is no site, such as a
// URL: as a filter it would find nothing, which looks like an answer.
type siteFlag string

// String is the site; empty if none is given.
func (s *siteFlag) String() string { return string(*s) }

// Type is how help names the value.
func (s *siteFlag) Type() string { return "string" }

// Set reads the flag.
func (s *siteFlag) Set(written string) error {
	names, err := siteNamesOf(written)
	if err != nil {
		return err
	}
	*s = siteFlag(names[0]) // all names mean the same site
	return nil
}

// sinceFlag is a flag that takes a time, or a duration before the call. The zero value admits every time.
type sinceFlag struct {
	time.Time
	given bool
}

// String is the time; empty if none is given, so that help shows no default.
func (s *sinceFlag) String() string {
	if !s.given {
		return ""
	}
	return s.UTC().Format(time.RFC3339)
}

// Type is how help names the value.
func (s *sinceFlag) Type() string { return "time" }

// Set reads the flag. A time in the future is an error, because nothing could fit it.
func (s *sinceFlag) Set(written string) error {
	at, err := time.Parse(time.RFC3339, written)
	if err != nil {
		d, durationErr := jobs.ParseDuration(written)
		if durationErr != nil || d < 0 {
			return errors.New(`neither a time such as 2026-01-02T15:04:05Z nor a duration such as "1h"`)
		}
		at = time.Now().Add(-d)
	}
	if at.After(time.Now()) {
		return errors.New("that time has not come")
	}
	s.Time, s.given = at, true
	return nil
}

// maxIDs bounds how many IDs one call takes.
const maxIDs = 1_000_000

// ids returns the IDs that the arguments name. "-" stands for the IDs on standard input, one a line. More than maxIDs of
// them are a usage error, so that a wrong file does not fill the memory.
func (a *app) ids(args []string) ([]string, error) {
	var out []string
	for _, arg := range args {
		if arg != "-" {
			out = append(out, arg)
			continue
		}
		// Empty lines and blanks around an id come from other programs' output; eachLine leaves the former out.
		err := eachLine(a.in, func(_ int, line []byte) error {
			if len(out) == maxIDs {
				return usage("standard input has more than %d IDs", maxIDs)
			}
			out = append(out, strings.TrimSpace(string(line)))
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

const (
	// atOnce is how many things are done at the same time. Each takes a few round trips.
	atOnce = 16
	// maxNamed is how many failures are named one by one.
	maxNamed = 10
)

// forEach calls do for each thing, at most atOnce at the same time, and returns how many succeeded. The error names the first
// maxNamed failures. After an interruption it begins no further thing, waits for those that have begun, and returns the cause of
// ctx. A lost connection is such an end, too, because each further thing would wait for it.
func forEach[T any](ctx context.Context, things []T, do func(context.Context, T) error) (done int, err error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	// Each goroutine writes its own element, so the slice needs no lock.
	failures := make([]error, len(things))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, thing := range things {
		// The check stands before Go, which blocks while atOnce are running: an interruption is seen within one
		// of them.
		if ctx.Err() != nil {
			failures[i] = context.Cause(ctx)
			continue
		}
		group.Go(func() error {
			if failures[i] = do(ctx, thing); isConnectionLost(failures[i]) {
				stop(failures[i])
			}
			return nil // an error would end the group
		})
	}
	_ = group.Wait()
	for _, err := range failures {
		if err == nil {
			done++
		}
	}
	if ctx.Err() != nil {
		return done, context.Cause(ctx)
	}
	return done, joinFirst(failures)
}

// joinFirst joins the first maxNamed errors that are not nil, and counts the others. It returns nil if there is none.
func joinFirst(errs []error) error {
	errs = slices.DeleteFunc(slices.Clone(errs), func(err error) bool { return err == nil })
	if len(errs) > maxNamed {
		errs = append(errs[:maxNamed], fmt.Errorf("and %d more", len(errs)-maxNamed))
	}
	return errors.Join(errs...)
}

// count is a number of things in words: "1 job", "3 jobs". thing is a singular whose plural ends in s.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
