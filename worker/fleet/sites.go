package fleet

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/rotation/sites"
)

// SiteFinding is the value under the key of a site in the bucket of sites. Its times are counted from when the server stored
// it, so the clocks of two machines are never compared.
type SiteFinding struct {
	Worker string `json:"worker"`
	// Instance identifies one start of the process.
	Instance string `json:"instance"`
	Site     string `json:"site"`
	// State is "resting", "testing" or "returning". A worker that does not know a state leaves the finding out.
	State string `json:"state"`
	// Duration is how long the rest or the test still lasts. Rest is the length of the whole rest.
	Duration jobs.Duration `json:"duration,omitzero"`
	Rest     jobs.Duration `json:"rest,omitzero"`
	// Since is how long ago the rest began. Failed is how long ago a test failed, null if none did.
	Since  jobs.Duration  `json:"since,omitzero"`
	Failed *jobs.Duration `json:"failed,omitempty"`
}

// siteWaits is the value under waitsPrefix and the key of a site. It reports to the leader of the fleet that jobs wait for the
// site. It has the site's name because the key is a hash.
type siteWaits struct {
	Site string `json:"site"`
}

const (
	waitsPrefix = "waits."
	// noteEvery is the shortest time between two such reports about a site: thousands of jobs may begin to wait in a second.
	noteEvery = 2 * time.Second
	// isolatedAfter is how long writes fail before the fleet counts as unreachable.
	isolatedAfter = 5 * time.Second
	// maxFindings bounds the findings of other workers, and the sites that this worker has reported.
	maxFindings = 100_000
	// fewFindings is the least number of findings at which a worker may stop being followed: with fewer, a worker that knows few
	// sites would judge by chance.
	fewFindings = 3
)

// siteTable is what Sites need of this worker's sites; *sites.Table has it.
type siteTable interface {
	Apply(f sites.Finding) []sites.Event
	Counts() sites.Counts
	StatusOf(name string) (sites.Status, bool)
	LeaveTests(on bool)
}

// SitesConfig is what Sites are made of; all fields but NoteWaiting are required.
type SitesConfig struct {
	// Table receives the findings of other workers.
	Table siteTable
	// Applied is called with the changes that these findings make. It must not block, because the bucket's changes wait for it.
	Applied func([]sites.Event)
	// NoteWaiting is called when a worker reports that jobs wait for a site; age is how old the report is. It must not block; nil
	// is allowed.
	NoteWaiting func(key, site string, age time.Duration)
	// Worker is this worker's name.
	Worker string
	Log    *slog.Logger
}

// Sites report to the fleet which sites this worker found resting, apply what others found, and report to the leader of the fleet
// for which sites jobs wait. Make them with NewSites; they may be shared by any number of goroutines.
//
// Another worker is not followed if it has three findings or more, and more findings than there are other sites that this
// worker knows (at least one), resting ones included. It is more likely to have a bad network than to be right. If a finding is
// lost, old or not valid, each worker decides alone.
type Sites struct {
	cfg      SitesConfig
	instance string
	updates  updateQueue[siteUpdate]
	isolated atomic.Bool // what this worker reports does not reach the fleet

	// mu guards the fields below.
	mu        sync.Mutex
	findings  map[string]siteReport // of other workers, by key
	reporters map[string]*reporter  // by worker
	noted     map[string]time.Time  // when this worker reported last that jobs wait, by key
}

// siteReport is a finding of another worker.
type siteReport struct {
	worker, site string
	until        time.Time
	known        bool // this worker knew the site at the latest review
}

// siteUpdate is what is to be written: a finding, or, without a state, that jobs wait for this site. Times are of this machine
// until they are written.
type siteUpdate struct {
	site         string
	state        sites.State
	since, until time.Time
	rest         time.Duration
	failed       time.Time
}

// NewSites makes Sites; Run connects them with the fleet. It calls LeaveTests of the table.
func NewSites(cfg SitesConfig) *Sites {
	if cfg.NoteWaiting == nil {
		cfg.NoteWaiting = func(string, string, time.Duration) {}
	}
	s := &Sites{
		cfg: cfg, instance: rand.Text(), updates: newUpdateQueue[siteUpdate](), findings: map[string]siteReport{},
		reporters: map[string]*reporter{}, noted: map[string]time.Time{},
	}
	s.setIsolated(true) // until the first update is stored: a job must not wait for a leader that does not know of it
	return s
}

// ShareChanges reports changes to the fleet that this worker found. It returns at once, whatever NATS does. What other workers
// found is not shared again, or a finding would go round for ever.
func (s *Sites) ShareChanges(events []sites.Event) {
	for _, e := range events {
		if e.Foreign || e.From == e.State {
			continue
		}
		u := siteUpdate{site: e.Site, state: e.State, since: e.Since, until: e.Until, rest: e.Rest, failed: e.Failed}
		// The rest was a mistake. A finding has no state for that, so it is shared as a return: jobs come back one at a time
		// first.
		if e.State == sites.Fresh || e.State == sites.Answering {
			u.state = sites.Returning
		}
		s.put(jobs.SiteKey(e.Site), u)
	}
}

// Wait reports to the leader of the fleet that a job waits for a site. It returns false if the report does not reach the fleet:
// then nobody would release the job before its time.
func (s *Sites) Wait(site string) bool {
	key := jobs.SiteKey(site)
	s.mu.Lock()
	fresh := time.Since(s.noted[key]) >= noteEvery
	if fresh {
		// Forgetting all of them costs at most one more note for each site.
		if len(s.noted) >= maxFindings {
			clear(s.noted)
		}
		s.noted[key] = time.Now()
	}
	s.mu.Unlock()
	// The report is queued also while the worker is isolated: the first one that is stored ends that.
	if fresh && !s.put(waitsPrefix+key, siteUpdate{site: site}) {
		s.mu.Lock()
		delete(s.noted, key)
		s.mu.Unlock()
		return false
	}
	return !s.isolated.Load()
}

// CountFollowed returns the number of resting sites that this worker knows from others. Workers that are not followed do not
// count.
func (s *Sites) CountFollowed() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.findings {
		if !s.reporters[r.worker].ignored && time.Until(r.until) > 0 {
			n++
		}
	}
	return n
}

// put queues an update. kept is false if too many wait. Then one line is logged, until the queue has been empty.
func (s *Sites) put(key string, u siteUpdate) (kept bool) {
	kept, shouldLog := s.updates.put(key, u)
	if shouldLog {
		s.cfg.Log.Warn("cannot share sites with the fleet, too many changes wait to be published")
	}
	return kept
}

// Run follows the bucket and writes to it until ctx ends. What waits to be written then is lost. A missing bucket is created by
// others. When it returns, this worker tests its resting sites itself.
func (s *Sites) Run(ctx context.Context, js jetstream.JetStream, names jobs.Names) {
	bucket := names.Bucket("sites")
	defer s.setIsolated(true)
	var parts sync.WaitGroup
	parts.Go(func() { newFollower(bucket, s.cfg.Log, s.apply).run(ctx, js) })
	parts.Go(func() { s.write(ctx, js, bucket) })
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			s.review()
		}
	}
	parts.Wait()
}

// setIsolated notes whether the fleet learns what this worker reports. If it does, the leader alone tests resting sites.
func (s *Sites) setIsolated(isolated bool) {
	s.isolated.Store(isolated)
	s.cfg.Table.LeaveTests(!isolated)
}

// write writes the updates one by one until ctx ends. What gets no answer, or a refusal that may pass, is written again.
func (s *Sites) write(ctx context.Context, js jetstream.JetStream, bucket string) {
	var kv jetstream.KeyValue
	for failing := (time.Time{}); ctx.Err() == nil; {
		key, u, ok := s.updates.first(func(siteUpdate) bool { return true })
		if !ok {
			select {
			case <-ctx.Done():
			case <-s.updates.wake:
			}
			continue
		}
		err := nats.ErrDisconnected
		if js.Conn().IsConnected() { // otherwise the client would send the update later, when it is no longer true
			kv, err = s.writeUpdate(ctx, js, bucket, kv, key, u)
		}
		refused := err != nil && !bus.CuredByWaiting(err)
		if err == nil || refused {
			s.updates.done(key, u)
		}
		if err == nil {
			failing = time.Time{}
			s.setIsolated(false)
			continue
		}
		// One warning for each series of failures. A refusal isolates at once, because it does not end by itself.
		if failing.IsZero() {
			failing = time.Now()
			s.cfg.Log.Warn("cannot share sites with the fleet, the other workers judge by themselves", "error", err)
		}
		s.setIsolated(s.isolated.Load() || refused || time.Since(failing) > isolatedAfter)
		sleep(ctx, time.Second)
	}
}

// writeUpdate writes an update, and returns the bucket for the next one. A nil bucket means that it has to be looked up. It
// returns an error of the server as it is, so that the caller can tell whether waiting cures it.
func (s *Sites) writeUpdate(ctx context.Context, js jetstream.JetStream, bucket string, kv jetstream.KeyValue, key string, u siteUpdate) (jetstream.KeyValue, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if kv == nil {
		var err error
		if kv, err = js.KeyValue(ctx, bucket); err != nil {
			return nil, err
		}
	}
	var value any = siteWaits{Site: u.site}
	if !strings.HasPrefix(key, waitsPrefix) {
		value = s.findingOf(u, time.Now())
	}
	data, err := json.Marshal(value)
	if err == nil {
		_, err = kv.Put(ctx, key, data)
	}
	return kv, err
}

// findingOf makes the stored form of a change. Times are durations from now, because clocks of machines differ, and never
// negative: a rest may end while its finding waits to be written.
func (s *Sites) findingOf(u siteUpdate, now time.Time) SiteFinding {
	f := SiteFinding{Worker: s.cfg.Worker, Instance: s.instance, Site: u.site, State: u.state.String(), Rest: jobs.Duration(u.rest)}
	if !u.until.IsZero() {
		f.Duration = jobs.Duration(max(0, u.until.Sub(now)).Round(time.Millisecond))
	}
	if !u.since.IsZero() {
		f.Since = jobs.Duration(max(0, now.Sub(u.since)).Round(time.Millisecond))
	}
	if !u.failed.IsZero() {
		ago := jobs.Duration(max(0, now.Sub(u.failed)).Round(time.Millisecond))
		f.Failed = &ago
	}
	return f
}
