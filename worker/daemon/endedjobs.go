package daemon

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/worker/admin"
)

const (
	// maxSearch bounds how long jobs are searched for one list, and answerTime is what is left of the request's time to send it.
	maxSearch  = 3 * time.Second
	answerTime = time.Second
	// firstPart is how many sequences are read first, and lastPart how many at most in one step.
	firstPart = 1000
	lastPart  = 64_000
)

var (
	// errSearchTime ends a search that takes too long. What it has found is the answer.
	errSearchTime = errors.New("the search takes too long")
	// errBusy refuses a second search at the same time: each of them reads many messages.
	errBusy = errors.New("another list of jobs is being made: ask again")
)

// searchTime bounds a search so that there is time left to answer.
func searchTime(ctx context.Context) (context.Context, context.CancelFunc) {
	end := time.Now().Add(maxSearch)
	if until, bounded := ctx.Deadline(); bounded && until.Add(-answerTime).Before(end) {
		end = until.Add(-answerTime)
	}
	return context.WithDeadlineCause(ctx, end, errSearchTime)
}

// endedSearch looks for jobs that have ended, from the newest back: their results are in the order of time, and few of many may
// fit.
type endedSearch struct {
	bus    *bus.Client
	filter admin.JobFilter
	sites  []string // what filter.Site stands for
	rows   []admin.Job
	// cut means that it has ended with enough rows, before it had looked at all messages.
	cut bool
	// looked is how many messages were read, of total.
	looked, total uint64
}

// findJobs lists jobs that fit a filter, the oldest first: those that have not ended, ended ones by their outcome, or both by
// their URL. A result has only the URL where the job ended, after redirects.
func findJobs(ctx context.Context, c *client.Client, b *bus.Client, f admin.JobFilter, limit int) (found admin.JobsFound, err error) {
	// Outcomes are asked of the results or the dead letters, which are other streams than the jobs.
	isEnded := f.State == jobs.Succeeded || f.State == jobs.Failed || f.State == jobs.Cancelled
	if isEnded || f.URL != "" && f.State == "" {
		ending := ctx
		if !isEnded { // the rest of the time is for the jobs that have not ended
			var cancel context.CancelFunc
			ending, cancel = context.WithTimeoutCause(ctx, maxSearch/2, errSearchTime)
			defer cancel()
		}
		if found, err = listEnded(ending, b, f, limit); isEnded || err != nil {
			return found, err
		}
	}
	live, err := c.Search(ctx, client.ListFilter{Queue: f.Queue, State: f.State, Site: f.Site, URL: f.URL}, limit)
	for _, job := range live.List {
		found.Jobs = append(found.Jobs, liveJob(job))
	}
	found.Looked, found.Total = found.Looked+live.Looked, found.Total+live.Jobs
	found.Jobs, found.Partial = newest(found.Jobs, limit, found.Partial || live.More)
	if errors.Is(err, errSearchTime) {
		found.Partial, err = true, nil
	}
	return found, err
}

// listEnded lists the newest jobs with the outcome or the URL of the filter, the oldest of them first. Failed ones are found by
// their dead letters first, which are fewer than results and are kept for longer, and then by their results: a letter may have
// been replayed or purged. Of what ctx's end leaves out, Partial tells.
func listEnded(ctx context.Context, c *bus.Client, f admin.JobFilter, limit int) (found admin.JobsFound, err error) {
	letters, results := &endedSearch{bus: c, filter: f}, &endedSearch{bus: c, filter: f}
	if f.Site != "" {
		if letters.sites, err = jobs.SiteNames(f.Site); err != nil {
			return found, err
		}
		results.sites = letters.sites
	}
	if f.State == jobs.Failed || f.State == "" {
		err = letters.search(ctx, "DEAD", limit, letters.readLetters)
	}
	if err == nil {
		err = results.search(ctx, "RESULTS", limit, results.readResults)
	}
	if found.Partial = err != nil && errors.Is(context.Cause(ctx), errSearchTime); found.Partial {
		err = nil
	}
	found.Jobs, found.Partial = newest(once(append(results.rows, letters.rows...)), limit, found.Partial || letters.cut || results.cut)
	found.Looked, found.Total = letters.looked+results.looked, letters.total+results.total
	return found, err
}

// newest returns the newest limit rows, the oldest of them first, and whether rows are missing: partial, or if it cuts some off.
func newest(rows []admin.Job, limit int, partial bool) ([]admin.Job, bool) {
	slices.SortStableFunc(rows, func(a, b admin.Job) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Queue, b.Queue), cmp.Compare(a.ID, b.ID))
	})
	return rows[max(0, len(rows)-limit):], partial || len(rows) > limit
}

// search reads a stream from its newest message back until it has found limit jobs.
func (s *endedSearch) search(ctx context.Context, kind string, limit int, read func(ctx context.Context, after, upTo uint64) error) error {
	info, err := s.bus.StreamInfo(ctx, s.bus.Names().Stream(kind))
	if err != nil {
		return s.bus.Explain("list jobs", err)
	}
	if s.total = info.State.Msgs; kind == "RESULTS" && s.filter.Queue != "" {
		// The server leaves out those of other queues.
		if s.total, err = s.bus.CountFrom(ctx, kind, s.bus.Names().Results(s.filter.Queue), 1); err != nil {
			return err
		}
	}
	return backwards(info.State, func(after, upTo uint64) (enough bool, err error) {
		err = read(ctx, after, upTo)
		enough = len(s.rows) >= limit
		s.cut = enough && after >= info.State.FirstSeq
		return enough, err
	})
}

// once leaves out each job that is listed before.
func once(rows []admin.Job) []admin.Job {
	seen := make(map[bus.Key]bool, len(rows))
	return slices.DeleteFunc(rows, func(job admin.Job) bool {
		key := bus.Key{Queue: job.Queue, ID: job.ID}
		before := seen[key]
		seen[key] = true
		return before
	})
}

// backwards calls read for parts of a stream from its newest message back, until it has enough. The parts grow, because each one
// costs a request.
func backwards(state jetstream.StreamState, read func(after, upTo uint64) (enough bool, err error)) error {
	size := uint64(firstPart)
	for upTo := state.LastSeq; upTo > 0 && upTo >= state.FirstSeq; size = min(4*size, lastPart) {
		after := upTo - min(size, upTo)
		if enough, err := read(after, upTo); enough || err != nil {
			return err
		}
		upTo = after
	}
	return nil
}

// readResults looks at the results of a part of the stream, without their bodies.
func (s *endedSearch) readResults(ctx context.Context, after, upTo uint64) error {
	names := s.bus.Names()
	return s.bus.ReadHeaders(ctx, names.Stream("RESULTS"), names.Results(s.filter.Queue), after, upTo, func(msg jetstream.Msg) {
		s.add(jobs.ParseResult(msg.Headers(), nil), nil)
	})
}

// readLetters looks at the dead letters of a part of the stream. A worker may have no right to make a consumer for these.
func (s *endedSearch) readLetters(ctx context.Context, after, upTo uint64) error {
	// For all messages the server knows how many are left; for a filter it would look at each subject.
	page := bus.Page{Stream: s.bus.Names().Stream("DEAD"), Subject: ">", After: after, Limit: firstPart}
	for more := true; more && page.After < upTo; {
		page.Limit = int(min(firstPart, upTo-page.After))
		var err error
		page.After, more, err = s.bus.ReadPage(ctx, page, func(msg *nats.Msg) error {
			seq, _ := strconv.ParseUint(msg.Header.Get(jetstream.SequenceHeader), 10, 64) // the server always sets it
			if seq > upTo {
				return nil // it was read before
			}
			r := jobs.ParseResult(msg.Header, nil)
			r.Queue, r.ID, _ = jobs.SplitSubject(msg.Header.Get(jetstream.SubjectHeader))
			s.add(r, msg.Data)
			return nil
		})
		if err != nil {
			return s.bus.Explain("read dead letters", err)
		}
	}
	return nil
}

// add keeps a result that fits the filter. Filters that are empty admit every result. job is the job itself in a dead letter,
// else nil.
func (s *endedSearch) add(r jobs.Result, job []byte) {
	s.looked++
	site, f := siteOfURL(r.URL), &s.filter
	if f.State != "" && f.State != r.Outcome || f.Queue != "" && f.Queue != r.Queue || f.Site != "" && !slices.Contains(s.sites, site) ||
		f.URL != "" && f.URL != r.URL && f.URL != urlOfJob(r.Queue, r.ID, job) {
		return
	}
	s.rows = append(s.rows, admin.Job{Queue: r.Queue, ID: r.ID, State: r.Outcome, Site: site, Since: r.FinishedAt.UTC()})
}

// urlOfJob is the URL that a job names, before any redirect; empty for none.
func urlOfJob(queue, id string, payload []byte) string {
	job, err := jobs.Decode(queue, id, payload)
	if err != nil {
		return ""
	}
	return job.Target().String()
}
