package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
)

// jobCommand prints the story of one job from what the streams still hold.
func (a *app) jobCommand() *cobra.Command {
	var queue string
	cmd := &cobra.Command{
		Use: "job ID", Short: "Tell a job's whole story: queued, each attempt, waits, result",
		Long: `ID may be QUEUE/ID. Tells what the streams still know of the job, in the order in which it happened: when it was queued,
each attempt with its proxy and what went wrong, the waits, the result. Events are kept for 24 hours. When a finished job
was queued is known only by an id that has a time in it, such as those that 'gofer submit' gives.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: a.verb("job", func(ctx context.Context, s *session, args []string) error {
			// The place of the job is found first: all that follows needs its queue.
			k, err := jobKey(ctx, s, queue, args[0])
			if err != nil {
				return err
			}
			t, err := readStory(ctx, s, k, a.note)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(t)
			}
			return a.printStory(t)
		}),
	}
	cmd.Flags().StringVar(&queue, "queue", "", "`QUEUE` of the job")
	return cmd
}

// jobKey is key that also finds a job of which only a dead letter is left. Errors: those of key; a usage error if several
// queues have dead letters of the id.
func jobKey(ctx context.Context, s *session, queue, name string) (client.Key, error) {
	// Only an id that no stream of jobs and results has is looked up among the dead letters.
	k, err := key(ctx, s, queue, name)
	if !errors.Is(err, client.ErrNotFound) {
		return k, err
	}
	// The subject of a dead letter has queue and id, so a wildcard for the queue finds all of this id. CountBySubject does not read
	// the letters, which may be large.
	letters, letterErr := s.bus.CountBySubject(ctx, s.names.Stream("DEAD"), s.names.Dead("*", name))
	if letterErr != nil {
		return k, err
	}
	var queues []string
	for subject := range letters {
		if in, _, ok := jobs.SplitSubject(subject); ok {
			queues = append(queues, in)
		}
	}
	switch len(queues) {
	case 0:
		return k, err
	case 1:
		return client.Key{Queue: queues[0], ID: name}, nil
	}
	// Sorted, so that the message is the same each time.
	slices.Sort(queues)
	return k, usage("%w", &client.AmbiguousError{ID: name, Queues: queues})
}

// printStory prints the state of the job, its moments in the order of time, and what is wrong with it now. Every moment is
// one line that begins with its time, so sort and grep work on it.
func (a *app) printStory(t *story) error {
	// Lines are gathered before they are printed, so an error prints no half of a story.
	lines := []string{fmt.Sprintf("job %s is %s", t.Key, t.whereabouts())}
	if t.Result != nil && t.Result.URL != "" {
		lines = append(lines, "url "+t.Result.URL)
	}
	// Moments are in the order of time already.
	for _, m := range t.Moments {
		lines = append(lines, m.At.UTC().Format("2006-01-02T15:04:05.000Z")+"  "+t.sentence(m))
	}
	if t.Waiting != nil {
		lines = append(lines, t.waitLine())
	}
	if line := t.secondLine(); line != "" {
		lines = append(lines, line)
	}
	for _, h := range t.Unsettled {
		lines = append(lines, h.String())
	}
	lines = append(lines, t.Obstacles...)
	// The letter is named by its number, because an id may have several letters.
	if t.DeadLetter != 0 {
		then := "gofer dead replay %[1]d runs it again"
		// A replay publishes the same bytes, so an invalid job would fail again.
		if t.Result != nil && t.Result.Error == jobs.ErrInvalidJob {
			then = "correct what publishes it; gofer dead purge %[1]d removes this one"
		}
		lines = append(lines, fmt.Sprintf("dead letter %d: gofer dead show %[1]d prints the job; "+then, t.DeadLetter))
	}
	if t.Result != nil {
		lines = append(lines, t.bodyLines()...)
	}
	for _, line := range lines {
		// line makes control characters visible: a detail may hold what a server sent.
		if err := a.out.line("%s", line); err != nil {
			return err
		}
	}
	return nil
}

// bodyLines says what of the result could not be stored, and how its body is printed if it has one.
func (t *story) bodyLines() (lines []string) {
	if len(t.Result.Omitted) > 0 {
		lines = append(lines, omittedText(t.Result.Omitted))
	}
	if t.Result.Outcome == jobs.Succeeded && !slices.Contains(t.Result.Omitted, "body") {
		lines = append(lines, fmt.Sprintf("gofer results %s prints the body", t.Key))
	}
	return lines
}

// secondLine says what becomes of two jobs of this id, if there are two: the id was published again while its job waited. The
// stream refuses an id only while its job is queued, and a job that waits lies in another stream.
func (t *story) secondLine() string {
	switch {
	case !slices.Contains(t.Places, client.Waiting):
		return ""
	case slices.Contains(t.Places, client.Finished):
		return "a second job of this id waits; it will store nothing, because the result is kept"
	case t.isTakeable():
		return "two jobs have this id: the one that ends first stores the result, and the other one stores nothing"
	}
	return ""
}

// sentence is a moment in words. The caller escapes it.
func (t *story) sentence(m client.Moment) string {
	// A kind that is not listed is the end of the job.
	switch m.What {
	case client.MomentQueued:
		if m.Source != "" { // the message of the job is gone
			return "queued, as the job's id tells"
		}
		return "queued"
	case client.MomentAttempt:
		return attemptSentence(m)
	case client.MomentWait:
		return waitSentence(m)
	case client.MomentDue:
		return "its time has come"
	case client.MomentDuplicate:
		return "another job of this id came later, and stored nothing"
	}
	return t.endSentence(m)
}

// attemptSentence is an attempt in words. A status and an error may come together, as with an incomplete response.
func attemptSentence(m client.Moment) string {
	// Events of older workers lack some of the parts.
	text := fmt.Sprintf("attempt %d", m.Attempt)
	if m.MaxAttempts > 0 {
		text += fmt.Sprintf(" of %d", m.MaxAttempts)
	}
	if m.Proxy == "" {
		text += " directly"
	} else {
		text += " via " + m.Proxy
	}
	if m.Status != 0 {
		text += fmt.Sprintf(": %d", m.Status)
	}
	if m.Error != "" {
		text += ": " + m.Error
	}
	if m.Fault != jobs.FaultNone {
		text += fmt.Sprintf(" (fault: %s)", m.Fault)
	}
	if m.Duration > 0 {
		text += ", took " + shortDuration(m.Duration.Std()).String()
	}
	return text
}

// waitSentence is a wait in words: for how long, until when, and where the job is meanwhile.
func waitSentence(m client.Moment) string {
	if m.Kind == client.KindSite {
		return "waits for its site " + m.Site + ", in the stream"
	}
	text := "waits"
	switch d := m.Until.Sub(m.At); {
	case m.Until.IsZero():
	case d <= 0:
		text = "is tried again at once"
	default:
		text += fmt.Sprintf(" for %s, until %s", shortDuration(d), clockTime(m.Until, m.At))
	}
	switch m.Kind {
	case jobs.RetryInline:
		text += ", in worker " + m.Worker
	case jobs.RetryScheduled:
		text += ", in the stream"
	}
	if !m.Overdue.IsZero() {
		text += fmt.Sprintf(", overdue since %s: the server has not released it, a worker does within two minutes", clockTime(m.Overdue, m.At))
	}
	return text
}

// endSentence is the result in words. m is the last moment, which exists only if the result does: t.Result is not nil here.
func (t *story) endSentence(m client.Moment) string {
	r := t.Result
	text := r.Outcome
	// "cancelled" is both an outcome and an error.
	if r.Error != "" && r.Error != r.Outcome {
		text += ", " + r.Error
	}
	if r.Status != 0 {
		text += fmt.Sprintf(" %d", r.Status)
	}
	if r.Detail != "" {
		text += ": " + r.Detail
	}
	return text + fmt.Sprintf(" (attempts %d, %d bytes, %s, by %s)", r.Attempts, r.Bytes, shortDuration(m.Duration.Std()), m.Worker)
}
