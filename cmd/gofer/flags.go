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

// durationFlag is a flag that reads durations as the environment does: "1.5s", "2m" or a number of seconds. It
// is never negative. It implements pflag.Value; the zero value is no duration. Its bounds are checked by the verb,
// since they differ.
type durationFlag time.Duration

// String is the duration as Go writes it.
func (d *durationFlag) String() string { return time.Duration(*d).String() }

// Type is how help names the value.
func (d *durationFlag) Type() string { return "duration" }

// Set reads the flag.
func (d *durationFlag) Set(written string) error {
	v, err := jobs.ParseDuration(written)
	// Its text names the limit.
	if errors.Is(err, jobs.ErrTooLong) {
		return err
	}
	if err != nil || v < 0 {
		return errors.New(`not a duration: write "1.5s", "2m" or a number of seconds`)
	}
	*d = durationFlag(v)
	return nil
}

// checkFlagTexts refuses flags that no verb can use. An empty flag usually comes from a shell variable that is not set.
// If it counted as a flag that was not given, the verb would do something else, such as cancel the jobs of all
// queues. It runs before every verb that has flags. Names with a rule of their own are checked here for every verb,
// so their errors are the same.
func checkFlagTexts(cmd *cobra.Command, _ []string) (err error) {
	// Visit goes over the flags that were given. Of several wrong ones the last is reported.
	cmd.Flags().Visit(func(f *pflag.Flag) {
		value := f.Value.String()
		switch {
		// Flags of other types have refused an empty text by themselves.
		case f.Value.Type() != "string", f.Name == "data": // a body may be empty
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

// wholeFlag is a flag that reads whole numbers in decimal digits, as the environment does. pflag's own would
// read 010 as eight. It implements pflag.Value.
type wholeFlag int

// String is the number in decimal digits.
func (n *wholeFlag) String() string { return strconv.Itoa(int(*n)) }

// Type is how help names the value.
func (n *wholeFlag) Type() string { return "number" }

// Set reads the flag.
func (n *wholeFlag) Set(written string) error {
	v, err := text.Int(strings.TrimSpace(written))
	// On every machine the same range, also where an int has 64 bits.
	if err != nil || v != int64(int32(v)) {
		return errors.New("not a whole number, in decimal digits")
	}
	*n = wholeFlag(v)
	return nil
}
