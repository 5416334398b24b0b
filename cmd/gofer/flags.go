package main

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/text"
)

// durationFlag is a flag that reads durations as the environment does: "1.5s", "2m" or a number of seconds. It is never
// negative. The verb checks its bounds.
type durationFlag time.Duration

// String is the duration as Go writes it; empty for zero, so that help names no default of "0s".
func (d *durationFlag) String() string {
	if *d == 0 {
		return ""
	}
	return time.Duration(*d).String()
}

// Type is how help names the value.
func (d *durationFlag) Type() string { return "DURATION" }

// Set reads the flag.
func (d *durationFlag) Set(written string) error {
	v, err := jobs.ParseDuration(written)
	if errors.Is(err, jobs.ErrTooLong) {
		return err // its text names the limit
	}
	if err != nil || v < 0 {
		return errors.New(`not a duration: write "1.5s", "2m" or a number of seconds`)
	}
	*d = durationFlag(v)
	return nil
}

// checkFlagTexts refuses empty flags, and names of queues and jobs that are not valid; it runs before every verb. An empty
// flag mostly comes from a shell variable that is not set. As a flag that was not given it would, for instance, cancel the
// jobs of all queues.
func checkFlagTexts(cmd *cobra.Command, _ []string) (err error) {
	// Visit goes over the flags that were given, by name. Of several wrong ones the last is reported.
	cmd.Flags().Visit(func(f *pflag.Flag) {
		value := f.Value.String()
		switch {
		case f.Value.Type() != "string", f.Name == "data": // other types refuse an empty text themselves, and a body may be empty
		case value == "":
			err = usage("--%s: empty", f.Name)
		case f.Name == "queue" && !jobs.ValidQueue(value):
			err = usage("--queue: %q is not the name of a queue, [a-z0-9_-]{1,32}", value)
		case f.Name == "id" && !jobs.ValidID(value):
			err = usage("--id: %q is not an id, [A-Za-z0-9_-]{1,128}", value)
		}
	})
	return err
}

// wholeFlag is a flag that reads whole numbers in decimal digits, as the environment does. pflag's own would read 010 as eight.
type wholeFlag int

// String is the number in decimal digits.
func (n *wholeFlag) String() string { return strconv.Itoa(int(*n)) }

// Type is how help names the value.
func (n *wholeFlag) Type() string { return "number" }

// Set reads the flag.
func (n *wholeFlag) Set(written string) error {
	v, err := text.Int(strings.TrimSpace(written))
	if err != nil || v != int64(int32(v)) { // the same range on every machine
		return errors.New("not a whole number, in decimal digits")
	}
	*n = wholeFlag(v)
	return nil
}
