package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/text"
)

// Operator acts on jobs, queues, workers and dead letters of the whole fleet. Each function asks NATS and ends with its
// context. The route of a nil function answers 501. An error that wraps ErrUnknown is answered with 404, one that wraps
// ErrEnded with 409, any other one with 503. The daemon fills it. It exists so that this package needs no NATS
// connection and can be tested with functions.
type Operator struct {
	// Queues returns the fields of the answer: the queues, and how current the count is.
	Queues                  func(context.Context) (any, error)
	PauseQueue, ResumeQueue func(ctx context.Context, queue string) error
	// Workers returns the value of the field workers, and the names of running workers that have not answered.
	Workers     func(context.Context) (list any, missing []string, err error)
	DrainWorker func(ctx context.Context, worker string) error
	// Jobs returns at most limit jobs that fit a filter, the oldest first: the oldest ones that have not ended, the newest ended
	// ones, or the newest of both by their URL.
	Jobs func(ctx context.Context, f JobFilter, limit int) (JobsFound, error)
	// FindJob returns the jobs of an id, one for each queue that has it.
	FindJob func(ctx context.Context, id string) ([]Job, error)
	// Story returns the whole story of a job as a value in JSON.
	Story     func(ctx context.Context, queue, id string) (any, error)
	CancelJob func(ctx context.Context, queue, id string) error
	// DeadGroups groups the dead letters that are kept, the largest group first, and counts all.
	DeadGroups func(context.Context) (groups []DeadGroup, count uint64, err error)
	// Letters calls use for each dead letter that exists when it begins, the oldest first. It stops at an error of use
	// and returns that error. use may replay or purge the letter.
	Letters func(ctx context.Context, use func(Letter) error) error
	// ReplayLetter runs the job of a dead letter again; PurgeLetter removes the letter.
	ReplayLetter, PurgeLetter func(ctx context.Context, seq uint64) error
	// PurgeLetters removes all present letters of a queue, or of all queues if it is empty, and returns their number.
	PurgeLetters func(ctx context.Context, queue string) (count uint64, err error)
}

// The errors of the functions of an Operator. They come wrapped, so compare with errors.Is.
var (
	ErrUnknown = errors.New("there is nothing of that name")
	ErrEnded   = errors.New("the job has ended")
)

// JobFilter says which jobs are listed; an empty field fits all.
type JobFilter struct {
	// State is a state of the message contract, or the outcome of a job that has ended.
	State string
	Queue string
	// Site is read by jobs.SiteNames.
	Site string
	// URL is compared as jobs.ParseURL writes it: with the URL of a job that has not ended, and with the one where the job ended,
	// after redirects; with both for a dead letter.
	URL string
}

// JobsFound are jobs that fit a filter, and how far the search for them has come.
type JobsFound struct {
	Jobs []Job `json:"jobs"`
	// Partial means that others may fit: the search has ended before it had looked at all of them, because that takes too long,
	// or because enough have been found.
	Partial bool `json:"partial"`
	// Looked is how many jobs, results and dead letters it has looked at, of about Total.
	Looked uint64 `json:"looked"`
	Total  uint64 `json:"total"`
}

// Job is a job in a list.
type Job struct {
	Queue string    `json:"queue"`
	ID    string    `json:"id"`
	State string    `json:"state"`
	Site  string    `json:"site"`
	Since time.Time `json:"since"`
	// Until is when a waiting job is tried again, and Why its state. For other jobs Until is zero, null in JSON, and Why is
	// empty.
	Until time.Time `json:"until"`
	Why   string    `json:"why"`
}

// MarshalJSON writes every field: readers need not ask whether one is there.
func (j Job) MarshalJSON() ([]byte, error) {
	type fields Job
	return json.Marshal(struct {
		fields
		Until *time.Time `json:"until"`
		Why   string     `json:"why"`
	}{fields(j), timeOrNull(j.Until), j.Why})
}

// Letter is a dead letter in a list. Seq is the letter's sequence in its stream, and its name in the API.
type Letter struct {
	Seq      uint64    `json:"seq"`
	Queue    string    `json:"queue"`
	ID       string    `json:"id"`
	StoredAt time.Time `json:"stored_at"`
	Error    string    `json:"error"`
	Reason   string    `json:"reason"`
	Attempts int       `json:"attempts"`
	Site     string    `json:"-"`
}

// DeadGroup are the dead letters of one reason, site and queue.
type DeadGroup struct {
	// Reason is the error code.
	Reason string    `json:"reason"`
	Site   string    `json:"site"`
	Queue  string    `json:"queue"`
	Count  int       `json:"count"`
	Oldest time.Time `json:"oldest"`
	Newest time.Time `json:"newest"`
}

// operatorRoutes are the routes that act through the Operator.
func (a *admin) operatorRoutes() []route {
	get, post, del := http.MethodGet, http.MethodPost, http.MethodDelete
	return []route{
		{get, "/api/v1/queues", reader, a.queueList},
		{post, "/api/v1/queues/{queue}/pause", changer, a.pauseQueue},
		{post, "/api/v1/queues/{queue}/resume", changer, a.resumeQueue},
		{get, "/api/v1/workers", reader, a.workers},
		{post, "/api/v1/workers/{name}/drain", changer, a.drainWorker},
		{get, "/api/v1/jobs", reader, a.jobs},
		{get, "/api/v1/jobs/{queue}/{id}", reader, a.story},
		{del, "/api/v1/jobs/{queue}/{id}", changer, a.cancelJob},
		{get, "/api/v1/dead", reader, a.dead},
		{post, "/api/v1/dead/replay", changer, a.replayLetters},
		{post, "/api/v1/dead/purge", changer, a.purgeLetters},
	}
}

func (a *admin) pauseQueue(w http.ResponseWriter, r *http.Request) error {
	return a.setPaused(w, r, a.Operator.PauseQueue, true)
}

func (a *admin) resumeQueue(w http.ResponseWriter, r *http.Request) error {
	return a.setPaused(w, r, a.Operator.ResumeQueue, false)
}

// setPaused pauses a queue or ends its pause. A queue without consumers is answered with 404.
func (a *admin) setPaused(w http.ResponseWriter, r *http.Request, act func(context.Context, string) error, paused bool) error {
	queue := r.PathValue("queue")
	// A name that no queue can have never reaches NATS, where it could be a wildcard.
	if !jobs.ValidQueue(queue) {
		return unknown("no queue has this name")
	}
	if act == nil {
		return notHere("queues cannot be paused here")
	}
	if err := change(r, func(ctx context.Context) error { return act(ctx, queue) }); err != nil {
		return explain(err, "no queue has this name")
	}
	a.Log.Info("queue changed", "queue", queue, "paused", paused, "peer", r.RemoteAddr)
	return reply(w, map[string]any{"queue": queue, "paused": paused})
}

// drainWorker asks a worker to drain. The answer does not wait for the end of its jobs.
func (a *admin) drainWorker(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	if a.Operator.DrainWorker == nil {
		return notHere("workers cannot be drained here")
	}
	if err := change(r, func(ctx context.Context) error { return a.Operator.DrainWorker(ctx, name) }); err != nil {
		return explain(err, "no worker has this name")
	}
	// The name is untrusted text.
	a.Log.Info("drain was asked for over HTTP", "worker", text.Printable(name), "peer", r.RemoteAddr)
	return reply(w, map[string]any{"worker": name, "draining": true})
}

// jobs answers with jobs that fit the parameters. A partial list is a valid answer: what it has is true.
func (a *admin) jobs(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	f := JobFilter{State: query.Get("state"), Queue: query.Get("queue"), Site: query.Get("site")}
	limit, err := limitOf(r)
	if err == nil && f.Site != "" {
		var names []string
		if names, err = sitesOf(f.Site); err == nil {
			f.Site = names[0] // which stands for all of them
		}
	}
	if written := query.Get("url"); err == nil && written != "" {
		url, wrong := jobs.ParseURL(written)
		if wrong != nil {
			return badRequest(wrong.Error())
		}
		f.URL = url.String()
	}
	switch {
	case err != nil:
		return err
	// An id is looked up by its subject; filters need to read the streams.
	case query.Has("id"):
		return a.findJob(w, r, query.Get("id"))
	case f.State != "" && !slices.Contains(jobs.States(), f.State) && !slices.Contains(jobs.Outcomes(), f.State):
		return badRequest("state: " + strconv.Quote(clip(f.State)) + " is neither a state nor an outcome")
	case f.Queue != "" && !jobs.ValidQueue(f.Queue):
		return badRequest("queue: " + strconv.Quote(clip(f.Queue)) + " is not the name of a queue")
	case a.Operator.Jobs == nil:
		return notHere("jobs are not listed here")
	}
	ctx, cancel := context.WithTimeout(r.Context(), changeTimeout)
	defer cancel()
	found, err := a.Operator.Jobs(ctx, f, limit)
	if err != nil {
		return err
	}
	found.Jobs = orEmpty(found.Jobs)
	return reply(w, found)
}

// findJob lists the jobs of an id.
func (a *admin) findJob(w http.ResponseWriter, r *http.Request, id string) error {
	switch {
	case !jobs.ValidID(id):
		return badRequest("id: " + strconv.Quote(clip(id)) + " is not the id of a job")
	case a.Operator.FindJob == nil:
		return notHere("jobs are not found here")
	}
	ctx, cancel := context.WithTimeout(r.Context(), changeTimeout)
	defer cancel()
	list, err := a.Operator.FindJob(ctx, id)
	if err != nil {
		return err
	}
	return reply(w, JobsFound{Jobs: orEmpty(list), Looked: uint64(len(list)), Total: uint64(len(list))})
}

// The story is read from several streams, so it is no single moment of the job.
func (a *admin) story(w http.ResponseWriter, r *http.Request) error {
	queue, id, err := jobOf(r)
	if err != nil {
		return err
	}
	if a.Operator.Story == nil {
		return notHere("jobs are not shown here")
	}
	ctx, cancel := context.WithTimeout(r.Context(), changeTimeout)
	defer cancel()
	story, err := a.Operator.Story(ctx, queue, id)
	if err != nil {
		return explain(err, "no job has this name")
	}
	return reply(w, story)
}

// cancelJob ends a job with a cancelled result. A job that has ended is answered with 409.
func (a *admin) cancelJob(w http.ResponseWriter, r *http.Request) error {
	queue, id, err := jobOf(r)
	if err != nil {
		return err
	}
	if a.Operator.CancelJob == nil {
		return notHere("jobs cannot be cancelled here")
	}
	// Two cancels of one job: the second one gets 409, since the result is stored.
	if err := change(r, func(ctx context.Context) error { return a.Operator.CancelJob(ctx, queue, id) }); err != nil {
		return explain(err, "no job has this name")
	}
	a.Log.Info("job cancelled", "queue", queue, "job", id, "peer", r.RemoteAddr)
	return reply(w, map[string]any{"queue": queue, "id": id, "outcome": jobs.Cancelled})
}

// jobOf reads the name of a job in the path. A name that no job can have is answered with 404.
func jobOf(r *http.Request) (queue, id string, err error) {
	queue, id = r.PathValue("queue"), r.PathValue("id")
	if !jobs.ValidQueue(queue) || !jobs.ValidID(id) {
		return "", "", unknown("no job has this name")
	}
	return queue, id, nil
}

// explain turns an error of the Operator into its answer. nothing is the message for ErrUnknown. Other errors
// are passed on, and fail makes them 503.
func explain(err error, nothing string) error {
	switch {
	case errors.Is(err, ErrUnknown):
		return unknown(nothing)
	case errors.Is(err, ErrEnded):
		return failure{status: http.StatusConflict, code: "ended", message: err.Error()}
	}
	return err
}

// unknown is 404 for a thing that the fleet does not have.
func unknown(message string) error {
	return failure{status: http.StatusNotFound, code: "not_found", message: message}
}

// orEmpty returns the list, or an empty one for nil, so that JSON shows [] and clients can always iterate.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// readBody decodes the JSON object of a request; without a body, an empty object. An unknown member is answered with 400, because
// a misspelt filter would select other letters.
func readBody(r *http.Request, into any) error {
	data, err := readDocument(r.Body)
	if err != nil {
		return err
	}
	// The caller says what an object without members lacks.
	if len(bytes.TrimSpace(data)) == 0 {
		data = []byte("{}")
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return badRequest("the body is not valid: " + err.Error())
	}
	return nil
}
