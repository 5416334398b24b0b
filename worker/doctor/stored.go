package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
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

// Letters says how many jobs have failed in a day, how most of the latest ones did, and what to do. many means that these are a
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
	remedy := "when the cause is gone, gofer dead replay --since 24h runs them again"
	// A replay publishes the same bytes.
	if cause.code == jobs.ErrInvalidJob {
		remedy = "correct what publishes them; gofer dead purge --reason invalid_job removes them"
	}
	said = fmt.Sprintf("%d jobs have failed in 24 h%s: gofer dead ls says why; %s", letters, cause, remedy)
	// A fault needs both: many letters in number, so that a small installation is not alarmed by one, and more
	// than a tenth of the results of the same day.
	return said, letters >= manyLetters && letters*10 > results, nil
}

// cause is why dead letters were written: the code and the queue of most of them, and the sentence of the latest one. The zero
// value is no cause.
type cause struct {
	code, queue, detail string
	count, of           int
}

// String is the cause as a part of a sentence.
func (c cause) String() string {
	if c.count == 0 {
		return ""
	}
	said := fmt.Sprintf(", %d of the latest %d as %s in queue %s", c.count, c.of, text.Printable(c.code), text.Printable(c.queue))
	if c.detail != "" {
		said += " (" + text.Printable(bus.Clip(c.detail)) + ")"
	}
	return said
}

// commonCause says how most of the latest dead letters since a time failed.
func commonCause(ctx context.Context, b *bus.Client, since time.Time) (most cause, err error) {
	state, err := b.StateOf(ctx, "DEAD")
	if err != nil {
		return most, err
	}
	causes, read := map[string]cause{}, 0
	page := bus.Page{Stream: b.Names().Stream("DEAD"), Subject: ">", After: state.LastSeq - min(state.LastSeq, sampledLetters), Limit: sampledLetters}
	_, _, err = b.ReadPage(ctx, page, func(msg *nats.Msg) error {
		if at, err := time.Parse(time.RFC3339Nano, msg.Header.Get(jetstream.TimeStampHeaer)); err == nil && at.Before(since) {
			return nil
		}
		c := cause{code: jobs.ParseResult(msg.Header, nil).Error, queue: queueOf(msg), detail: msg.Header.Get(jobs.HeaderReason)}
		c.count = causes[c.code+" "+c.queue].count + 1
		causes[c.code+" "+c.queue] = c
		read++
		return nil
	})
	// Sorted, so that of two causes of one number the same one is named each time.
	for _, name := range slices.Sorted(maps.Keys(causes)) {
		if causes[name].count > most.count {
			most = causes[name]
		}
	}
	most.of = read
	return most, b.Explain("read dead letters", err)
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
	average := size / max(kept, 1)
	// The rate of the last hour is held constant over the whole retention. kept is the lower bound: more were
	// stored per hour earlier. An unlimited MaxAge is extrapolated over one hour only.
	later := max(kept, hour*uint64(max(info.Config.MaxAge, time.Hour)/time.Hour))
	if hour > 0 {
		text += fmt.Sprintf("; at the rate of the last hour (%d) up to %d, %s on disk and %s of the server's memory", hour, later, mebibytes(later*average), mebibytes(later*bytesPerID))
	}
	limits := []limit{
		{"GOFER_RESULTS_MAX_BYTES", uint64(max(0, info.Config.MaxBytes)), size, later * average, hour * average},
		{"max_msgs", uint64(max(0, info.Config.MaxMsgs)), kept, later, hour},
	}
	// The limit that is reached first counts: the other one may never be.
	first := slices.MinFunc(limits, func(a, b limit) int { return cmp.Compare(a.left(), b.left()) })
	if first.left() == never {
		return []Finding{{name, true, text}}
	}
	when := "which is reached in " + first.left().Round(time.Minute).String() + ": then workers take no jobs"
	if first.left() == 0 {
		when = "which is reached: workers take no jobs"
	}
	return []Finding{{name, first.left() > soon, fmt.Sprintf("%s, but the limit is %s, %s; %s, and see what gofer setup --dry-run says", text, first, when, first.remedy())}}
}

// limit is a limit of the results stream: the variable or the stream's field, its value, how much of it is used, how much will
// be, and how much more each hour brings. A zero max is none.
type limit struct {
	name                       string
	max, used, later, eachHour uint64
}

// never is how long a limit holds that is not reached.
const never = time.Duration(math.MaxInt64)

// left is how long it takes until the limit is reached at the rate of the last hour. Without a result in that hour there is no
// rate, and a limit that is not reached now never is.
func (l limit) left() time.Duration {
	switch {
	case l.max == 0:
		return never
	case l.used >= l.max:
		return 0
	case l.later < l.max || l.eachHour == 0:
		return never
	}
	return time.Duration(float64(l.max-l.used) / float64(l.eachHour) * float64(time.Hour))
}

// String is the value with its unit.
func (l limit) String() string {
	if l.name == "max_msgs" {
		return fmt.Sprintf("%d results (max_msgs of the stream)", l.max)
	}
	return mebibytes(l.max)
}

// remedy says how the limit is raised. gofer itself sets no limit of messages.
func (l limit) remedy() string {
	if l.name == "max_msgs" {
		return "run gofer setup, which takes that limit from the stream, or lower GOFER_RESULTS_MAX_AGE"
	}
	return "raise " + l.name + " or lower GOFER_RESULTS_MAX_AGE"
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
