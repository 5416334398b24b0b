package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/worker/control"
	"github.com/gofer-mq/gofer/worker/doctor"
	"github.com/gofer-mq/gofer/worker/waiting"
)

// holder is a worker that holds a job and cannot settle it, such as one that waits for room for the result. It
// is the answer of control.Workers, reduced to one job. Step is what the worker has failed to do, such as storing
// the result. Permanent failures last until somebody changes something.
type holder struct {
	Worker    string    `json:"worker"`
	Since     time.Time `json:"since"`
	Step      string    `json:"step"`
	Reason    string    `json:"reason"`
	Permanent bool      `json:"permanent"`
}

// String is the sentence that gofer job prints.
func (h holder) String() string {
	text := fmt.Sprintf("worker %s holds it, and has failed to %s since %s: %s", h.Worker, h.Step, h.Since.UTC().Format(time.RFC3339), h.Reason)
	if h.Permanent {
		text += " (this lasts until somebody changes it)"
	}
	return text
}

// story is a job's story as it is printed. Result here hides that of client.Story, whose body may be large.
type story struct {
	client.Story
	Result *jobs.Summary `json:"result,omitempty"`
	// Unsettled are the workers that hold the job and cannot settle it.
	Unsettled []holder `json:"unsettled,omitempty"`
	// Obstacles are sentences that say why nobody takes the job.
	Obstacles []string `json:"obstacles,omitempty"`
}

// readStory gathers a job's story from the streams and from the workers. What this user may not read is left out, and
// note is called with the reason.
func readStory(ctx context.Context, s *session, key client.Key, note func(format string, args ...any)) (*story, error) {
	known, err := s.client.Story(ctx, key)
	if err != nil {
		return nil, err
	}
	// A story with gaps is still a story, so this is no error.
	for _, err := range known.Unread {
		note("%v", err)
	}
	// It is copied, so that what the workers say can be filled in.
	t := &story{Story: *known}
	if known.Result != nil {
		facts := known.Result.Summary()
		t.Result = &facts
	}
	// The workers are asked last: the streams hold the truth, and a fleet without workers still has a story.
	workers := t.readHolders(ctx, s)
	t.readObstacles(ctx, s, workers)
	t.readSite(ctx, s)
	return t, nil
}

// readSite asks the workers until when the site rests for which the job waits. If no worker answers, the story keeps what
// the stream says. The workers know when the next test is planned, which moves with each failure.
func (t *story) readSite(ctx context.Context, s *session) {
	// Only a job that waits for its site is affected by what the workers know.
	if t.Waiting == nil || t.Waiting.Why != jobs.StateSiteDown {
		return
	}
	workers, err := askSites(ctx, s, control.SiteRequest{Site: t.Waiting.Site})
	if err != nil {
		return
	}
	// The name is that of the job's site, so the sums of seen are of one site.
	seen := newFleetSite(t.Waiting.Site)
	for _, w := range workers {
		for _, site := range w.Sites {
			seen.add(site)
		}
	}
	if seen.NextTestTime != nil {
		t.Waiting.Until = *seen.NextTestTime
	}
	switch {
	// The worst state decides what is said.
	case seen.resting() > 0:
		t.Waiting.Detail = fmt.Sprintf("the site %s does not answer (%s); %d of %d workers let it rest", t.Waiting.Site, seen.Reason, seen.resting(), len(workers))
	case seen.Workers["up"] > 0:
		t.Waiting.Detail = fmt.Sprintf("the site %s answers again, and its jobs come back one after the other", t.Waiting.Site)
	case seen.Workers["new"] > 0:
		t.Waiting.Detail = fmt.Sprintf("the site %s is new: until it answers, few jobs at once are tried", t.Waiting.Site)
	}
}

// waitLine says in words why the job waits, since when and until when. The last part names the command that helps,
// if there is one.
func (t *story) waitLine() string {
	w := t.Waiting
	text := w.Detail
	if !w.Since.IsZero() {
		text += ", the job waits since " + w.Since.UTC().Format(time.RFC3339)
	}
	next := "try"
	if w.Why == jobs.StateSiteDown {
		next = "test"
	}
	if !w.Until.IsZero() {
		text += ", the next " + next + " is at " + w.Until.UTC().Format("15:04:05.000Z")
	}
	switch w.Why {
	case jobs.StateSiteDown:
		text += "; gofer sites show " + w.Site + " tells more; once it answers, gofer sites reset " + w.Site + " ends its rest"
	case jobs.StateNoProxy:
		text += "; gofer proxies ls says how each proxy stands; add others with gofer proxies add URL, or wait"
	}
	return text
}

// readHolders asks the workers whether one of them holds the job and cannot settle it, and returns their answers. It asks only
// about a job that a worker may hold. If no worker answers, nothing is added.
func (t *story) readHolders(ctx context.Context, s *session) []control.Status {
	// A waiting job lies in no worker's hands.
	if !t.isTakeable() {
		return nil
	}
	workers, err := askWorkers(ctx, s, control.WorkersRequest{})
	if err != nil {
		return nil
	}
	for _, w := range workers {
		for _, job := range w.Unsettled {
			if job.Queue == t.Queue && job.ID == t.ID {
				t.Unsettled = append(t.Unsettled, holder{w.Worker, job.Since, job.Step, job.Reason, job.Permanent})
			}
		}
	}
	return workers
}

// isTakeable reports whether a worker may take the job, or holds it. A due job is one, too: the consumer may
// deliver it at any moment.
func (t *story) isTakeable() bool {
	return slices.Contains(t.Places, client.Queued) || slices.Contains(t.Places, client.Due)
}

// readObstacles says why nobody takes the job: what is the matter with its queue, and which workers take no jobs. What this user
// may not ask is left out.
func (t *story) readObstacles(ctx context.Context, s *session, workers []control.Status) {
	// A worker that holds the job is the whole reason; the state of the queue would distract from it.
	if !t.isTakeable() || len(t.Unsettled) > 0 {
		return
	}
	queues, err := s.client.ConsumedQueues(ctx)
	if err != nil {
		return
	}
	for _, q := range queues {
		// Jobs that wait for a proxy hinder no queued one, so the count of the fleet is left out.
		if trouble := doctor.Trouble(s.names, &q, &waiting.Queue{}); q.Queue == t.Queue && trouble != "" {
			t.Obstacles = append(t.Obstacles, "queue "+q.Queue+": "+trouble)
		}
	}
	for _, f := range doctor.Unready(workers) {
		t.Obstacles = append(t.Obstacles, f.Name+": "+f.Detail)
	}
}
