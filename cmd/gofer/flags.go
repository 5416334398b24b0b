package main

import (
	"errors"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// durationFlag reads durations as the environment does: "1.5s", "2m" or a number of seconds.
type durationFlag time.Duration

// String is the duration as Go writes it.
func (d *durationFlag) String() string { return time.Duration(*d).String() }

// Type is how help names the value.
func (d *durationFlag) Type() string { return "duration" }

// Set reads the flag.
func (d *durationFlag) Set(text string) error {
	v, err := jobs.ParseDuration(text)
	if err != nil || v < 0 {
		return errors.New(`not a duration: write "1.5s", "2m" or a number of seconds`)
	}
	*d = durationFlag(v)
	return nil
}
