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

// bulk are the flags of a command that acts on many things at once. Each flag that is given narrows the choice
// further. Commands that act on jobs and on dead letters embed it, so both speak of queue, site and since
// alike. queue with an ID is no filter: it names the queue in which the ID is looked up.
type bulk struct {
	queue, site string
	since       sinceFlag
	yes         bool
}

// add adds the flags to a command. things names in the help text what the command acts on.
func (b *bulk) add(flags *pflag.FlagSet, things string) {
	flags.StringVar(&b.queue, "queue", "", "all "+things+" of this queue; with an ID: its queue")
	flags.Var((*siteFlag)(&b.site), "site", "all "+things+" of this site, such as example.com or example.com:8443")
	// The value is read once, when the flags are parsed: a duration does not move on while the verb runs.
	flags.Var(&b.since, "since", "all "+things+" since this time (RFC 3339), or for no longer than this duration")
	flags.BoolVar(&b.yes, "yes", false, "do not ask")
}

// siteFlag is a flag that takes a site, in the spelling of the workers. What no site can be called, such as a URL, would find
// nothing.
type siteFlag string

// String is the site; empty if none is given.
func (s *siteFlag) String() string { return string(*s) }

// Type is how help names the value.
func (s *siteFlag) Type() string { return "string" }

// Set reads the flag.
func (s *siteFlag) Set(written string) error {
	names, err := sitesOf(written)
	if err != nil {
		return err
	}
	*s = siteFlag(names[0]) // which stands for all of them
	return nil
}

// sinceFlag is a flag that takes a time, or a duration before now. The zero value is not given and admits every time.
type sinceFlag struct {
	time.Time
	given bool
}

// String is the time as it is written; empty if there is none. Help shows no default while it is empty.
func (s *sinceFlag) String() string {
	if !s.given {
		return ""
	}
	return s.UTC().Format(time.RFC3339)
}

// Type is how help names the value.
func (s *sinceFlag) Type() string { return "time" }

// Set reads the flag. A duration counts back from the moment of the call. A time in the future is an error, because
// nothing could fit it.
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
// them are a usage error, so that a wrong file does not fill the memory. IDs that are given twice stay twice; what
// acts on them finds the second one done.
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
	// atOnce is how many things are done at the same time. Each takes a few round trips, so this many keep a
	// connection busy without flooding the server.
	atOnce = 16
	// maxNamed is how many failures are named one by one.
	maxNamed = 10
)

// forEach does something to each of many things, at most atOnce at the same time. It returns how many succeeded. The
// error names the first maxNamed failures. After an interruption no further thing is begun, those that have begun end,
// and the error is the cause of ctx.
func forEach[T any](ctx context.Context, things []T, do func(context.Context, T) error) (done int, err error) {
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
			failures[i] = do(ctx, thing)
			// The group must not stop at the first error, so none is returned to it.
			return nil
		})
	}
	_ = group.Wait() // the failures are in their slice
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

// joinFirst joins the first maxNamed errors that are not nil, and counts the others. It returns nil if there is
// none. The clone keeps the caller's slice as it is: DeleteFunc writes into it.
func joinFirst(errs []error) error {
	errs = slices.DeleteFunc(slices.Clone(errs), func(err error) bool { return err == nil })
	if len(errs) > maxNamed {
		errs = append(errs[:maxNamed], fmt.Errorf("and %d more", len(errs)-maxNamed))
	}
	return errors.Join(errs...)
}

// count is a number of things in words: "1 job", "3 jobs". thing is the singular.
func count(n int, thing string) string {
	// Only plurals in s are needed.
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
