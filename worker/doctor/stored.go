package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/text"
)

const (
	day = 24 * time.Hour
	// manyLetters is how many dead letters of a day are a fault if they are more than a tenth of the results.
	manyLetters = 20
	// sampledLetters is how many of the latest dead letters are read to name the most common cause.
	sampledLetters = 100
	// bytesPerID is what nats-server keeps in memory for each subject of a stream, measured with ids of 26 letters.
	bytesPerID = 184
	// soon is how far ahead a full stream is a fault.
	soon = day
)

// letters says how many jobs have failed in a day.
func (d *doctor) letters(ctx context.Context) []Finding {
	const name = "dead letters"
	said, many, err := Letters(ctx, d.Bus)
	if err != nil {
		return d.failed(name, err)
	}
	return []Finding{{name, !many, said}}
}

// Letters says how many jobs have failed in a day, how most of the latest ones did, and what to do. many tells that these are a
// fault: there are some, and they are more than a tenth of the results of the same day.
//
// Errors: bus.ErrNotSetUp, bus.ErrPermission; any other one may pass.
func Letters(ctx context.Context, b *bus.Client) (said string, many bool, err error) {
	since := time.Now().Add(-day)
	letters, err := b.CountSince(ctx, "DEAD", b.Names().AllDead(), since)
	// Without dead letters the results need not be counted, which costs a question more.
	if err != nil || letters == 0 {
		return "none in 24 h", false, err
	}
	results, err := b.CountSince(ctx, "RESULTS", b.Names().Results(""), since)
	if err != nil {
		return "", false, err
	}
	cause, err := commonCause(ctx, b, since)
	if err != nil {
		return "", false, err
	}
	said = fmt.Sprintf("%d jobs have failed in 24 h%s: gofer dead ls says why; when the cause is gone, gofer dead replay --since 24h runs them again", letters, cause)
	// A fault needs both: many letters in number, so that a small installation is not alarmed by one, and more
	// than a tenth of the results of the same day.
	return said, letters >= manyLetters && letters*10 > results, nil
}

// commonCause says how most of the latest dead letters since a time failed.
func commonCause(ctx context.Context, b *bus.Client, since time.Time) (string, error) {
	state, err := b.StateOf(ctx, "DEAD")
	if err != nil {
		return "", err
	}
	reasons, read := map[string]int{}, 0
	page := bus.Page{Stream: b.Names().Stream("DEAD"), Subject: ">", After: state.LastSeq - min(state.LastSeq, sampledLetters), Limit: sampledLetters}
	_, _, err = b.ReadPage(ctx, page, func(msg *nats.Msg) error {
		if at, err := time.Parse(time.RFC3339Nano, msg.Header.Get(jetstream.TimeStampHeaer)); err == nil && at.Before(since) {
			return nil
		}
		reasons[jobs.ParseResult(msg.Header, nil).Error+" in queue "+queueOf(msg)]++
		read++
		return nil
	})
	// Sorted, so that of two causes of one number the same one is named each time.
	cause, n := "", 0
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		if reasons[reason] > n {
			cause, n = reason, reasons[reason]
		}
	}
	if err != nil || n == 0 {
		return "", b.Explain("read dead letters", err)
	}
	return fmt.Sprintf(", %d of the latest %d as %s", n, read, text.Printable(cause)), nil
}

// queueOf is the queue of a dead letter.
func queueOf(msg *nats.Msg) string {
	queue, _, _ := jobs.SplitSubject(msg.Header.Get(jetstream.SubjectHeader))
	return queue
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
