package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/worker/admin"
	"github.com/gofer-mq/gofer/worker/control"
	"github.com/gofer-mq/gofer/worker/doctor"
	"github.com/gofer-mq/gofer/worker/waiting"
)

// holder is a worker that holds a job and cannot settle it. Step is what the worker fails to do, such as storing the result. A
// permanent failure lasts until somebody changes something.
type holder struct {
	Worker string `json:"worker"`
	// Since is when the step failed first, by the worker's clock.
	Since time.Time `json:"since"`
	Step  string    `json:"step"`
	// Reason is the latest error.
	Reason    string `json:"reason"`
	Permanent bool   `json:"permanent"`
}

// String is the sentence that gofer job prints.
func (h holder) String() string {
	text := fmt.Sprintf("worker %s holds it, and has failed to %s since %s: %s", h.Worker, h.Step, h.Since.UTC().Format(time.RFC3339), h.Reason)
	if h.Permanent {
		text += " (this lasts until somebody changes it)"
	}
	return text
}

// story is a job's story as it is printed. Result hides that of client.Story, whose body may be large.
type story struct {
	client.Story
	// State is the state of a job that has not ended; empty for one that has, and while it cannot be read.
	State  string        `json:"state,omitempty"`
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
		// The body is left out: it may have megabytes, and gofer results prints it.
		facts := known.Result.Summary()
		t.Result = &facts
	}
	t.readState(ctx, s)
	// The workers are asked last: the streams hold the truth, and a fleet without workers still has a story.
	workers, silence := t.readHolders(ctx, s)
	t.readObstacles(ctx, s, workers, silence)
	t.readSite(ctx, s)
	return t, nil
}

// readState names the state of a job without a result. The message of a job that waits tells it; whether a worker holds a job
// is asked of its consumer, which not every user may ask.
func (t *story) readState(ctx context.Context, s *session) {
	switch {
	case t.Result != nil:
	case t.isTakeable():
		if job, err := s.client.StateOf(ctx, t.Key); err == nil {
			t.State = job.State
		}
	case t.Waiting != nil:
		t.State = t.Waiting.Why
	}
}

// whereabouts says in words where the job is: in its state if that is known, and else in which streams.
func (t *story) whereabouts() string {
	switch {
	case len(t.Places) == 0:
		return "in no stream any more" // all of it has expired
	case len(t.Places) == 1 && t.State != "":
		return t.State
	}
	// Two jobs may have the id, each in a state of its own.
	places := make([]string, len(t.Places))
	for i, p := range t.Places {
		places[i] = string(p)
	}
	return strings.Join(places, " and ")
}

// readSite asks the workers about the site that the job waits for, because each failure there moves the next test. If no worker
// answers, the story keeps what the stream says.
func (t *story) readSite(ctx context.Context, s *session) {
	// Only a job that waits for its site is affected by what the workers know.
	if t.Waiting == nil || t.Waiting.Why != jobs.StateSiteDown {
		return
	}
	// The message of the job names the test that was planned when the job began to wait. Every failed test since then has moved it.
	workers, err := askSites(ctx, s, control.SiteRequest{Site: t.Waiting.Site})
	if err != nil {
		return
	}
	// The name is that of the job's site, so the sums of seen are of one site.
	seen := admin.NewFleetSite(t.Waiting.Site)
	for _, w := range workers {
		for _, site := range w.Sites {
			seen.Add(site)
		}
	}
	if seen.NextTestTime != nil {
		t.Waiting.Until = *seen.NextTestTime
	}
	switch {
	// Each worker decides about a site by itself, so the answers may differ. The worst state decides what is printed.
	case seen.Resting() > 0:
		t.Waiting.Detail = fmt.Sprintf("the site %s does not answer (%s); %d of %d workers let it rest", t.Waiting.Site, doctor.SiteReason(seen.Reason), seen.Resting(), len(workers))
	case seen.Workers["up"] > 0:
		t.Waiting.Detail = fmt.Sprintf("the site %s answers again, and its jobs come back one after the other", t.Waiting.Site)
	case seen.Workers["new"] > 0:
		t.Waiting.Detail = fmt.Sprintf("the site %s is new: until it answers, few jobs at once are tried", t.Waiting.Site)
	}
}

// waitLine says in words why the job waits, since when and until when, and names the command that helps, if there is one.
func (t *story) waitLine() string {
	w := t.Waiting
	text := w.Detail
	if !w.Since.IsZero() {
		text += ", the job has waited since " + w.Since.UTC().Format(time.RFC3339)
	}
	// At a resting site only tests run, one at a time, and the next one may be that of another job.
	next := "try"
	if w.Why == jobs.StateSiteDown {
		next = "test"
	}
	if !w.Until.IsZero() {
		text += ", the next " + next + " is at " + clockTime(w.Until, time.Now())
	}
	switch w.Why {
	case jobs.StateSiteDown:
		text += "; gofer sites show " + w.Site + " shows more; once it answers, gofer sites reset " + w.Site + " ends its rest"
	case jobs.StateNoProxy:
		text += "; " + jobs.NoProxyRemedy
	}
	return text
}

// readHolders asks the workers whether one of them holds the job and cannot settle it, and returns their answers. It asks only
// about a job that a worker may hold. If no worker answers, nothing is added; the error says why.
func (t *story) readHolders(ctx context.Context, s *session) (workers []control.Status, err error) {
	// No worker holds a job that waits or has ended, so nobody is asked. A fleet that does not answer would cost 3 s.
	if !t.isTakeable() {
		return nil, nil
	}
	workers, err = askWorkers(ctx, s, control.WorkersRequest{})
	if err != nil {
		return nil, err
	}
	for _, w := range workers {
		for _, job := range w.Unsettled {
			// An id is unique within a queue only. Several workers may hold a job whose lease has ended meanwhile.
			if job.Queue == t.Queue && job.ID == t.ID {
				t.Unsettled = append(t.Unsettled, holder{w.Worker, job.Since, job.Step, job.Reason, job.Permanent})
			}
		}
	}
	return workers, nil
}

// isTakeable reports whether a worker may take the job, or holds it.
func (t *story) isTakeable() bool {
	return slices.Contains(t.Places, client.Queued) || slices.Contains(t.Places, client.Due)
}

// readObstacles says why nobody takes the job: what is the matter with its queue, and which workers take no jobs. What this user
// may not ask is left out. silence is why no worker answered.
func (t *story) readObstacles(ctx context.Context, s *session, workers []control.Status, silence error) {
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
		if trouble := doctor.Trouble(s.names, &q, &waiting.Queue{}, doctor.IsServed(&q, workers, silence)); q.Queue == t.Queue && trouble != "" {
			t.Obstacles = append(t.Obstacles, "queue "+q.Queue+": "+trouble)
		}
	}
	for _, f := range doctor.Unready(workers) {
		t.Obstacles = append(t.Obstacles, f.Name+": "+f.Detail)
	}
}
