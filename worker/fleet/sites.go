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

// SiteFinding is what stands in the bucket of sites under the key of a site. Its times are counted from when the server stored
// it.
type SiteFinding struct {
	Worker string `json:"worker"`
	// Instance is the run of the worker.
	Instance string `json:"instance"`
	Site     string `json:"site"`
	// State is "resting", "testing" or "returning".
	State string `json:"state"`
	// Duration is how long the rest or the test lasts, Rest how long the whole rest.
	Duration jobs.Duration `json:"duration,omitzero"`
	Rest     jobs.Duration `json:"rest,omitzero"`
	// Since is how long ago the rest began. Failed is how long ago a test failed, null if none did.
	Since  jobs.Duration  `json:"since,omitzero"`
	Failed *jobs.Duration `json:"failed,omitempty"`
}

// siteWaits is what stands under the key of a site after waitsPrefix: jobs wait for it, and the leader of the fleet is to look at
// them.
type siteWaits struct {
	Site string `json:"site"`
}

const (
	waitsPrefix = "waits."
	// noteEvery is how often a worker tells that jobs wait for a site.
	noteEvery = 2 * time.Second
	// cutAfter is how long writes fail before the fleet counts as not reached.
	cutAfter = 5 * time.Second
	// maxFindings bounds the findings of other workers, and the sites of which this worker told.
	maxFindings = 100_000
	// fewFindings of a worker are never too many.
	fewFindings = 3
)

// siteTable is what Sites ask of the sites that this worker knows; *sites.Table has it.
type siteTable interface {
	Apply(f sites.Finding) []sites.Event
	Counts() sites.Counts
	StatusOf(name string) (sites.Status, bool)
	LeaveTests(on bool)
}

// SitesConfig is what Sites are made of; all fields but Waits are required.
type SitesConfig struct {
	// Table receives the findings of other workers.
	Table siteTable
	// Applied is told of what they change.
	Applied func([]sites.Event)
	// Waits is told that jobs wait for a site, by its key, and how long ago somebody told so; nil is allowed. It must not block.
	Waits func(key, site string, age time.Duration)
	// Worker is this worker's name.
	Worker string
	Log    *slog.Logger
}

// Sites tell the fleet which sites rest by what this worker found, let this worker know what others found, and tell the leader of
// the fleet for which sites jobs wait. Make them with NewSites; they may be shared by any number of goroutines.
//
// A worker of which this one knows three findings or more, and more findings than sites that do not rest, is more likely to have
// a bad network than to be right: its findings are not followed. A finding that is lost, old or not valid leaves each worker to
// its own judgement.
type Sites struct {
	cfg      SitesConfig
	instance string
	updates  updateQueue[siteUpdate]
	cut      atomic.Bool // the fleet does not learn what this worker tells

	// mu guards the fields below.
	mu        sync.Mutex
	findings  map[string]siteReport // of other workers, by key
	reporters map[string]*reporter  // by worker
	noted     map[string]time.Time  // when this worker told last that jobs wait, by key
}

// siteReport is a finding of another worker.
type siteReport struct {
	worker, site string
	until        time.Time
	known        bool // this worker knew the site when it looked last
}

// siteUpdate is what is to be written: a finding, or without a state that jobs wait for the site.
type siteUpdate struct {
	site         string
	state        sites.State
	since, until time.Time
	rest         time.Duration
	failed       time.Time
}

// NewSites makes Sites; Run connects them with the fleet.
func NewSites(cfg SitesConfig) *Sites {
	if cfg.Waits == nil {
		cfg.Waits = func(string, string, time.Duration) {}
	}
	s := &Sites{
		cfg: cfg, instance: rand.Text(), updates: newUpdateQueue[siteUpdate](), findings: map[string]siteReport{},
		reporters: map[string]*reporter{}, noted: map[string]time.Time{},
	}
	s.setCut(true) // until the first update is stored: a job must not wait for a leader that never hears of it
	return s
}

// ShareChanges reports changes to the fleet that this worker found. It returns at once, whatever NATS does.
func (s *Sites) ShareChanges(events []sites.Event) {
	for _, e := range events {
		if e.Foreign || e.From == e.State {
			continue
		}
		u := siteUpdate{site: e.Site, state: e.State, since: e.Since, until: e.Until, rest: e.Rest, failed: e.Failed}
		if e.State == sites.Fresh || e.State == sites.Answering {
			u.state = sites.Returning // the rest was a mistake
		}
		s.put(jobs.SiteKey(e.Site), u)
	}
}

// Wait tells the leader of the fleet that a job waits for a site. It reports false if the fleet cannot be told: then nobody would
// look at the job before its time.
func (s *Sites) Wait(site string) bool {
	key := jobs.SiteKey(site)
	s.mu.Lock()
	fresh := time.Since(s.noted[key]) >= noteEvery
	if fresh {
		if len(s.noted) >= maxFindings {
			clear(s.noted)
		}
		s.noted[key] = time.Now()
	}
	s.mu.Unlock()
	// Also if the fleet could not be told before: it may be told now.
	if fresh && !s.put(waitsPrefix+key, siteUpdate{site: site}) {
		s.mu.Lock()
		delete(s.noted, key)
		s.mu.Unlock()
		return false
	}
	return !s.cut.Load()
}

// CountFollowed is the number of resting sites that this worker knows from others.
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

// put queues an update. kept is false if too many wait; then a line is logged once.
func (s *Sites) put(key string, u siteUpdate) (kept bool) {
	kept, worthALine := s.updates.put(key, u)
	if worthALine {
		s.cfg.Log.Warn("sites not shared, too many changes wait to be published")
	}
	return kept
}

// Run follows the bucket and writes to it until ctx ends. What waits to be written then is lost. A missing bucket is created
// by others.
func (s *Sites) Run(ctx context.Context, js jetstream.JetStream, names jobs.Names) {
	bucket := names.Bucket("sites")
	defer s.setCut(true)
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

// setCut notes whether the fleet learns what this worker reports. Only if it does, other attempts leave the tests of
// resting sites to the leader.
func (s *Sites) setCut(cut bool) {
	s.cut.Store(cut)
	s.cfg.Table.LeaveTests(!cut)
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
		if js.Conn().IsConnected() { // a client that is cut off would send it later, when it is no longer true
			kv, err = s.writeUpdate(ctx, js, bucket, kv, key, u)
		}
		refused := err != nil && !bus.CuredByWaiting(err)
		if err == nil || refused {
			s.updates.done(key, u)
		}
		if err == nil {
			failing = time.Time{}
			s.setCut(false)
			continue
		}
		if failing.IsZero() {
			failing = time.Now()
			s.cfg.Log.Warn("sites not shared, the other workers judge by themselves", "error", err)
		}
		s.setCut(s.cut.Load() || refused || time.Since(failing) > cutAfter)
		sleep(ctx, time.Second)
	}
}

// writeUpdate returns the bucket for the next update. A nil bucket means that it has to be looked up.
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

// findingOf makes the stored form of a change. Times are durations from now, because clocks of machines differ.
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
