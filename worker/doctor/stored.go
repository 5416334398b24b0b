package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
)

const (
	day = 24 * time.Hour
	// manyLetters is how many dead letters of a day are a fault if they are more than a tenth of the results.
	manyLetters = 20
	// bytesPerID is what nats-server keeps in memory for each subject of a stream, measured with ids of 26 letters.
	bytesPerID = 184
	// soon is how far ahead a full stream is a fault.
	soon = day
)

// letters counts the dead letters of a day.
func (d *doctor) letters(ctx context.Context) []Finding {
	const name = "dead letters"
	since := time.Now().Add(-day)
	letters, err := d.Bus.CountSince(ctx, "DEAD", d.names.AllDead(), since)
	if err != nil {
		return d.failed(name, err)
	}
	// Without dead letters the results need not be counted, which costs a question more.
	if letters == 0 {
		return []Finding{{name, true, "none in 24 h"}}
	}
	text := fmt.Sprintf("%d jobs have failed in 24 h: gofer dead ls says why; gofer dead replay --since 24h runs them again", letters)
	results, err := d.Bus.CountSince(ctx, "RESULTS", d.names.Results(""), since)
	if err != nil {
		return d.failed(name, err)
	}
	// A fault needs both: many letters in number, so that a small installation is not alarmed by one, and more
	// than a tenth of the results of the same day.
	return []Finding{{name, letters < manyLetters || letters*10 <= results, text}}
}

// results says how much the kept results will be, and when they are too many.
func (d *doctor) results(ctx context.Context) []Finding {
	const name = "results"
	info, err := d.Bus.StreamInfo(ctx, d.names.Stream("RESULTS"))
	if err != nil {
		return d.failed(name, d.Bus.Explain("look at the results", err))
	}
	hour, err := d.Bus.CountSince(ctx, "RESULTS", d.names.Results(""), time.Now().Add(-time.Hour))
	if err != nil {
		return d.failed(name, err)
	}
	kept, size := info.State.Msgs, info.State.Bytes
	text := fmt.Sprintf("%d kept, %s", kept, mebibytes(size))
	limit := uint64(max(0, info.Config.MaxBytes))
	// No result in the last hour gives no rate to extrapolate from. Then only a stream that is full already is
	// a fault.
	if hour == 0 || kept == 0 {
		return []Finding{{name, limit == 0 || size < limit, text}}
	}
	// The rate of the last hour is held constant over the whole retention. kept is the lower bound: more were
	// stored per hour earlier. An unlimited MaxAge is extrapolated over one hour only.
	later := max(kept, hour*uint64(max(info.Config.MaxAge, time.Hour)/time.Hour))
	average := size / kept
	text += fmt.Sprintf("; at the rate of the last hour (%d) up to %d, %s on disk and %s of the server's memory", hour, later, mebibytes(later*average), mebibytes(later*bytesPerID))
	if limit == 0 || later*average < limit {
		return []Finding{{name, true, text}}
	}
	// left is how long the free bytes last at that rate. min keeps the subtraction of unsigned numbers from
	// wrapping when the stream is over its limit.
	left := time.Duration(float64(limit-min(limit, size)) / float64(hour*average) * float64(time.Hour))
	return []Finding{{name, left > soon, fmt.Sprintf("%s, but the limit is %s, which is reached in %s: then workers take no jobs; raise GOFER_RESULTS_MAX_BYTES or lower GOFER_RESULTS_MAX_AGE, "+
		"and see what gofer setup --dry-run says", text, mebibytes(limit), left.Round(time.Minute))}}
}

// failed is an error as a finding. What is missing was said with the streams.
func (d *doctor) failed(name string, err error) []Finding {
	// A missing stream has one finding already; one more for each check that needs it would hide the cause.
	if errors.Is(err, bus.ErrNotSetUp) {
		return nil
	}
	return []Finding{{name, false, d.Explain(err)}}
}

func mebibytes(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
