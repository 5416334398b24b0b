package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/rotation/sites"
	"github.com/gofer-mq/gofer/worker/admin"
	"github.com/gofer-mq/gofer/worker/control"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// operator is what the HTTP API does for the fleet. It acts as the worker's NATS user, and can do what that user may.
func (d *daemon) operator() admin.Operator {
	// It is the same for the page and for programs: both go through the HTTP API.
	return admin.Operator{
		PauseQueue: func(ctx context.Context, queue string) error {
			defer d.counts.forgetAnswer()
			return d.asClient(func(c *client.Client) error { return c.Pause(ctx, queue, time.Time{}) })
		},
		ResumeQueue: func(ctx context.Context, queue string) error {
			defer d.counts.forgetAnswer()
			return d.asClient(func(c *client.Client) error { return c.Resume(ctx, queue) })
		},
		Queues: d.queues, Workers: d.fleetWorkers, DrainWorker: d.drainWorker, Jobs: d.listJobs, Story: d.story, Letters: d.letters, DeadGroups: d.deadGroups, FindJob: d.findJob,
		CancelJob: func(ctx context.Context, queue, id string) error {
			return d.asClient(func(c *client.Client) error { return c.Cancel(ctx, client.Key{Queue: queue, ID: id}) })
		},
		PurgeLetters: d.purgeLetters,
		ReplayLetter: func(ctx context.Context, seq uint64) error {
			return d.withLetter(ctx, seq, func(c *client.Client, l client.DeadLetter) error {
				_, err := c.Replay(ctx, l)
				return err
			})
		},
		PurgeLetter: func(ctx context.Context, seq uint64) error {
			return d.withLetter(ctx, seq, func(c *client.Client, l client.DeadLetter) error { return c.RemoveDeadLetter(ctx, l) })
		},
	}
}

// asClient lets act use a client on the worker's connection. Its errors are those that the API knows.
func (d *daemon) asClient(act func(*client.Client) error) error {
	conn := d.connected.Load()
	if conn == nil || !conn.nc.IsConnected() {
		return bus.ErrUnreachable
	}
	// A client is cheap to make and holds no state, so each call has its own.
	err := act(client.New(conn.client))
	switch {
	case errors.Is(err, client.ErrNotFound), errors.Is(err, client.ErrReplayed):
		return fmt.Errorf("%w: %w", admin.ErrUnknown, err)
	// admin maps its two sentinels to 404 and 409.
	case errors.Is(err, client.ErrFinished):
		return fmt.Errorf("%w: %w", admin.ErrEnded, err)
	}
	return err
}

// fleetWorkers asks all workers how they stand, and names those that run and have not answered.
func (d *daemon) fleetWorkers(ctx context.Context) (all any, missing []string, err error) {
	conn := d.connected.Load()
	if conn == nil || !conn.nc.IsConnected() {
		// A worker without a connection still shows itself.
		return []control.Status{d.ownStatus()}, nil, nil
	}
	list, silent, err := control.AskAll[control.Status](ctx, conn.nc, d.names, control.Workers, nil)
	for _, w := range silent {
		missing = append(missing, w.Worker)
	}
	for i := range list {
		if list[i].Reasons == nil {
			list[i].Reasons = []string{}
		}
	}
	return list, missing, err
}

// fleetSample is how all workers stand and what they did lately, for the page.
func (d *daemon) fleetSample(ctx context.Context, recent, minutes int) ([]admin.Worker, error) {
	conn := d.connected.Load()
	list := []control.Status{}
	var err error
	if conn == nil || !conn.nc.IsConnected() {
		own := d.ownStatus()
		own.Recent, own.Minutes = d.book.Steps(rollup.ShortStep, recent), d.book.Steps(rollup.LongStep, minutes)
		list = append(list, own)
	} else {
		request := control.WorkersRequest{Recent: recent, Minutes: minutes}
		list, err = control.Ask[control.Status](ctx, conn.nc, control.Subject(d.names, control.Workers), request, 0)
	}
	out := make([]admin.Worker, len(list))
	for i, s := range list {
		out[i] = admin.Worker{
			Worker: s.Worker, Version: s.Version, StartedAt: s.StartedAt.UTC(), Slots: s.Slots, InFlight: s.Running(), Draining: s.Draining, Ready: s.Ready,
			Reasons: append([]string{}, s.Reasons...), Proxies: s.Proxies, Queues: []string{}, Recent: s.Recent, Minutes: s.Minutes,
		}
		for _, q := range s.Queues {
			out[i].Queues = append(out[i].Queues, q.Queue)
		}
	}
	return out, err
}

// ownStatus is how this worker stands, for when it cannot ask.
func (d *daemon) ownStatus() control.Status {
	s := d.status()
	s.Worker, s.Version = d.cfg.Name, d.cfg.Version
	return s
}

// drainWorker lets the worker of that name drain, this one included.
func (d *daemon) drainWorker(ctx context.Context, name string) error {
	// The own name is not asked over NATS, so a drain works without a connection, too.
	if name == d.cfg.Name {
		d.drain(errDrainAsked)
		return nil
	}
	conn := d.connected.Load()
	if conn == nil || !conn.nc.IsConnected() {
		return bus.ErrUnreachable
	}
	// One answer is enough. If several workers bear the name, each of them drains.
	_, err := control.Ask[control.DrainResponse](ctx, conn.nc, control.Subject(d.names, control.Drain), control.DrainRequest{Worker: name}, 1)
	if errors.Is(err, control.ErrNoWorkers) {
		return admin.ErrUnknown
	}
	return err
}

// listJobs lists jobs that have not ended, ended ones by their outcome, or both by their URL.
func (d *daemon) listJobs(ctx context.Context, f admin.JobFilter, limit int) (found admin.JobsFound, err error) {
	err = d.asClient(func(c *client.Client) error {
		select {
		case d.listing <- struct{}{}:
			defer func() { <-d.listing }()
		case <-ctx.Done():
			return errBusy
		}
		searching, cancel := searchTime(ctx)
		defer cancel()
		found, err = findJobs(searching, c, d.connected.Load().client, f, limit)
		return err
	})
	return found, err
}

// liveJob is a job that has not ended.
func liveJob(job client.Listed) admin.Job {
	row := admin.Job{Queue: job.Queue, ID: job.ID, State: job.State, Site: job.Site, Since: job.Since.UTC(), Until: job.Until}
	if job.State != jobs.StateQueued && job.State != jobs.StateRunning {
		row.Why = job.State
	}
	return row
}

// siteOfURL is the site of a URL; empty if that is none.
func siteOfURL(text string) string {
	u, err := jobs.ParseURL(text)
	if err != nil {
		return ""
	}
	return u.Site()
}

// jobStory is a job's story in the API.
type jobStory struct {
	Queue string `json:"queue"`
	ID    string `json:"id"`
	// State is a state of the message contract or an outcome; empty if only events are left of the job.
	State   string          `json:"state"`
	Waiting *jobWait        `json:"waiting,omitempty"`
	Story   []client.Moment `json:"story"`
	Result  *jobs.Summary   `json:"result,omitempty"`
	Body    *bodyPreview    `json:"body,omitempty"`
	// DeadLetter is the sequence of the job's dead letter; zero if there is none.
	DeadLetter uint64 `json:"dead_letter,omitempty"`
}

// jobWait says why a job waits.
type jobWait struct {
	Why     string    `json:"why"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until,omitzero"`
	Site    string    `json:"site"`
	Proxies []string  `json:"proxies"`
	Detail  string    `json:"detail"`
}

// story gathers what is known of a job. The two questions are not of one moment: a job may end in between, and
// then has a story without a state.
func (d *daemon) story(ctx context.Context, queue, id string) (any, error) {
	s := jobStory{Queue: queue, ID: id}
	err := d.asClient(func(c *client.Client) error {
		key := client.Key{Queue: queue, ID: id}
		known, err := c.Story(ctx, key)
		if err != nil {
			return err
		}
		s.Story, s.DeadLetter = known.Moments, known.DeadLetter
		if known.Result != nil {
			facts := known.Result.Summary()
			// A result ends the story: whatever else is found of the job is older.
			s.State, s.Result, s.Body = known.Result.Outcome, &facts, previewOf(known.Result)
			return nil
		}
		job, err := c.StateOf(ctx, key)
		if errors.Is(err, client.ErrNotFound) {
			return nil // it has ended, and its result is no longer kept
		}
		s.State = job.State
		if job.State != jobs.StateQueued && job.State != jobs.StateRunning {
			s.Waiting = d.waitOf(job, known.Waiting)
		}
		return err
	})
	return s, err
}

// waitOf says why a job waits: in its state of this moment, with what its message told a moment before if it
// was in that then. Detail falls back to the state, for jobs of workers that told no reason.
func (d *daemon) waitOf(job client.Listed, known *client.Wait) *jobWait {
	w := &jobWait{Why: job.State, Since: job.Since.UTC(), Until: job.Until, Site: job.Site, Proxies: []string{}, Detail: "the job waits: " + job.State}
	if known == nil || known.Why != job.State {
		return w
	}
	w.Since, w.Detail = known.Since.UTC(), known.Detail
	w.Proxies = append(w.Proxies, known.Proxies...)
	if w.Why == jobs.StateSiteDown {
		d.tellSite(w)
	}
	return w
}

// tellSite says of a job that waits for its site what this worker knows of the site.
func (d *daemon) tellSite(w *jobWait) {
	s, known := d.sites.StatusOf(w.Site)
	switch {
	case !known:
	case s.State == sites.Resting:
		w.Until, w.Detail = s.Until.UTC(), "the site "+w.Site+" does not answer, and rests until its next test"
	case s.State == sites.Testing:
		w.Detail = "the site " + w.Site + " does not answer, and is tested"
	case s.State == sites.Fresh:
		w.Detail = "the site " + w.Site + " is new: until it answers, few of its jobs run at once"
	case s.State == sites.Answering:
		w.Detail = "the site " + w.Site + " answers again, and its jobs come back one after the other"
	}
}

// letters lists the dead letters that are there when it begins: a job that is replayed meanwhile may fail and leave another one.
func (d *daemon) letters(ctx context.Context, use func(admin.Letter) error) error {
	return d.asClient(func(c *client.Client) error {
		state, err := d.connected.Load().client.StateOf(ctx, "DEAD")
		if err != nil {
			return err
		}
		err = c.DeadLetters(ctx, func(l client.DeadLetter) error {
			if l.Seq > state.LastSeq {
				return errNewer
			}
			return use(admin.Letter{
				Seq: l.Seq, Queue: l.Queue, ID: l.ID, StoredAt: l.StoredAt.UTC(), Error: l.Result.Error, Reason: l.Reason, Attempts: l.Result.AttemptCount,
				Site: siteOfURL(l.Result.URL),
			})
		})
		if errors.Is(err, errNewer) {
			return nil
		}
		return err
	})
}

// errNewer ends a list at the first letter that came after its beginning.
var errNewer = errors.New("it came later")

// purgeLetters removes the letters of a queue that are there now, or all if queue is empty.
func (d *daemon) purgeLetters(ctx context.Context, queue string) (count uint64, err error) {
	err = d.asClient(func(c *client.Client) error {
		state, err := d.connected.Load().client.StateOf(ctx, "DEAD")
		if err == nil {
			count, err = c.PurgeDeadLettersOf(ctx, queue, state.LastSeq)
		}
		return err
	})
	return count, err
}

// withLetter lets act use the dead letter of a sequence. The letter is read first: acting on a sequence that is
// gone has to be an error, and act needs the job.
func (d *daemon) withLetter(ctx context.Context, seq uint64, act func(*client.Client, client.DeadLetter) error) error {
	return d.asClient(func(c *client.Client) error {
		l, err := c.DeadLetterAt(ctx, seq)
		if err != nil {
			return err
		}
		return act(c, l)
	})
}
