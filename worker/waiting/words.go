package waiting

import (
	"fmt"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/text"
)

// OldestSeconds returns for how long the oldest job of each state has been in it; zero for a state without jobs. Every
// state is in the map, because a metric that disappears looks like a failed scrape.
func (q *Queue) OldestSeconds(now time.Time) map[string]float64 {
	out := map[string]float64{}
	for _, state := range jobs.States() {
		out[state] = 0
		// A server's clock behind the worker's would give a negative age.
		if since, found := q.Since[state]; found {
			out[state] = max(0, now.Sub(since).Round(time.Millisecond).Seconds())
		}
	}
	return out
}

// Oldest returns since when the oldest job of the queue has been in its state; zero for a queue without jobs.
func (q *Queue) Oldest() (since time.Time) {
	for _, at := range q.Since {
		if since.IsZero() || at.Before(since) {
			since = at
		}
	}
	return since
}

// String says what the jobs wait for, in a sentence without a final dot. Text of publishers is quoted where it is not
// plain.
func (r Reason) String() string {
	count, at := "1 job waits", "its site"
	if r.Jobs != 1 {
		count, at = fmt.Sprintf("%d jobs wait", r.Jobs), "several sites"
	}
	if r.Site != "" {
		at = text.Printable(r.Site)
	}
	if r.State == jobs.StateSiteDown {
		if r.Site == "" {
			return fmt.Sprintf("%s for %s, which rest or are new: gofer sites ls names them", count, at)
		}
		return fmt.Sprintf("%s for %s, which does not answer, or is new and has its share of slots: gofer sites show %s says which; once it answers, gofer sites reset %s ends its rest", count, at, at, at)
	}
	sentence := fmt.Sprintf("%s for a proxy at %s", count, at)
	if r.Detail != "" {
		sentence += ": " + text.Printable(r.Detail)
	}
	if !r.Until.IsZero() {
		sentence += "; the next try is at " + r.Until.UTC().Format("15:04:05Z")
	}
	return sentence
}
