package daemon

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/rotation/sites"
	"github.com/gofer-mq/gofer/worker/admin"
	"github.com/gofer-mq/gofer/worker/control"
	"github.com/gofer-mq/gofer/worker/fleet"
	"github.com/gofer-mq/gofer/worker/release"
	"github.com/gofer-mq/gofer/worker/rollup"
	"github.com/gofer-mq/gofer/worker/stream"
)

// newFleetSites shares this worker's findings about sites with the fleet, and reports to the leader of the fleet for which
// sites jobs wait. It returns nil if Config keeps the findings: then each worker tests its sites itself, and jobs wait for a
// time.
func (d *daemon) newFleetSites() *fleet.Sites {
	// A worker that keeps its findings to itself must not make others wait for its sites either.
	if d.cfg.KeepFindings {
		return nil
	}
	return fleet.NewSites(fleet.SitesConfig{
		Table: d.sites, Applied: d.recordSites, NoteWaiting: d.releaser.NoteWaiting, Worker: d.cfg.Name, Log: d.log,
	})
}

// newReleaser makes what releases the jobs that wait for sites. It works only while this worker leads the fleet.
func (d *daemon) newReleaser() *release.Releaser {
	return release.New(release.Config{
		Site: d.siteForRelease, MaxWait: cmp.Or(d.cfg.SiteMaxWait, 3*time.Minute), Released: func(n int) { d.siteReleases.Add(int64(n)) }, Log: d.log,
	})
}

// siteForRelease is what the leader of the fleet has to know of a site.
func (d *daemon) siteForRelease(name string) release.Site {
	// A site that is not known has the zero status: its jobs go as the window allows. So do those of a new site that this
	// worker does not ask: its own room says nothing then of the workers that do.
	s, _ := d.sites.StatusOf(name)
	site := release.Site{
		Rests: rests(s.State), Returns: s.State == sites.Returning, Since: s.Since, Until: s.Until, Failed: s.Failed,
		New: s.State == sites.Fresh && s.Running > 0, Room: max(0, s.Limit-s.Running),
	}
	if s.State == sites.Answering {
		site.Load = s.Running
	}
	return site
}

// rests reports whether no attempt may begin at a site in this state, its test excepted.
func rests(s sites.State) bool { return s == sites.Resting || s == sites.Testing }

// waitForSite reports to the leader of the fleet that a job waits for a site. false lets the job wait for a time
// instead of for the site.
func (d *daemon) waitForSite(site string) bool { return d.fleetSites != nil && d.fleetSites.Wait(site) }

// releaseSites releases jobs that wait for sites until ctx ends. One worker of the fleet does that for all; the others wait to
// take over. Nobody leads while jobs wait for no site: every worker of the fleet learns of the first one at once.
func (d *daemon) releaseSites(ctx context.Context, client *stream.Client) {
	d.sitesLeader.Run(ctx, client.JetStream(), d.names, func(ctx context.Context) {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		var releasing sync.WaitGroup
		defer releasing.Wait()
		releasing.Go(func() { d.releaser.Run(ctx, client) })
		for idle := 0; idle < sitesIdle && ctx.Err() == nil; sleep(ctx, time.Second) {
			if idle++; d.releaser.Sites() > 0 {
				idle = 0
			}
		}
		stop()
	})
}

// sitesIdle is for how many seconds no job has waited for a site when the leader gives up. It is long, so that sites which
// come and go do not make workers lead in turns.
const sitesIdle = 60

// recordSites logs, publishes and shares changes of sites. Every change passes here: those that attempts cause, those that other
// workers found, and resets.
func (d *daemon) recordSites(events []sites.Event) {
	for _, e := range events {
		event := siteEvent(e, d.cfg.Name)
		// Foreign changes were logged by the worker that saw them.
		if event.FromState != event.ToState && !e.Foreign {
			d.log.Warn("site changed", "site", e.Site, "from", event.FromState, "to", event.ToState, "reason", e.Reason)
		}
		// Only changes to or from a rest are events. A site that is new or comes back would make one for each
		// crawl.
		if !e.Foreign && event.FromState != event.ToState && (rests(e.From) || rests(e.State)) {
			d.enqueue(func(ctx context.Context) error { return d.connected.Load().stream.PublishSite(ctx, event) })
		}
		// Told for every change, so that waiting jobs are looked at at once.
		d.releaser.Changed(jobs.SiteKey(e.Site))
	}
	if d.fleetSites != nil {
		d.fleetSites.ShareChanges(events)
	}
}

// siteEvent is a change in the words of the message contract, which has no word for a site that comes back.
func siteEvent(e sites.Event, worker string) jobs.SiteEvent {
	event := jobs.SiteEvent{
		Site: e.Site, FromState: siteState(e.From), ToState: siteState(e.State), Timestamp: e.At.UTC(), Reason: e.Reason, Worker: worker,
	}
	// Only a resting site has a next test; a returning one is released job by job.
	if e.State == sites.Resting && !e.Until.IsZero() {
		next := e.Until.UTC()
		event.NextTestTime = &next
	}
	return event
}

// siteState is the state in the words of the message contract: a site that comes back is "up", as one that answers.
func siteState(s sites.State) string {
	switch s {
	case sites.Fresh:
		return "new"
	case sites.Resting:
		return "resting"
	case sites.Testing:
		return "testing"
	// Both are up to everybody who is not a worker.
	case sites.Answering, sites.Returning:
	}
	return "up"
}

// siteView is a site as the HTTP API shows it.
func siteView(s sites.Status) admin.Site {
	n := &s.Tally
	classes, faults := n.Classes, n.Faults
	out := admin.Site{
		Site: s.Site, State: siteState(s.State), Reason: s.Reason, Attempts: int64(n.Attempts), Bans: int64(n.Bans),
		Classes: rollup.Classes{
			Status2xx: int64(classes[sites.Class2xx-1]), Status3xx: int64(classes[sites.Class3xx-1]), Status4xx: int64(classes[sites.Class4xx-1]),
			Status5xx: int64(classes[sites.Class5xx-1]), None: int64(classes[sites.ClassNone-1]),
		},
		Failures: map[string]int64{
			string(jobs.FaultProxy): int64(faults[sites.FaultProxy-1]), string(jobs.FaultTarget): int64(faults[sites.FaultTarget-1]),
			string(jobs.FaultPair): int64(faults[sites.FaultPair-1]), string(jobs.FaultUnclear): int64(faults[sites.FaultUnclear-1]),
		},
		LastError: s.LastError,
	}
	if !s.LastErrorAt.IsZero() {
		at := s.LastErrorAt.UTC()
		out.LastErrorAt = &at
	}
	if s.State == sites.Resting && !s.Until.IsZero() {
		until := s.Until.UTC()
		out.NextTestTime = &until
	}
	if !s.Changed.IsZero() {
		changed := s.Changed.UTC()
		out.LastStateChange = &changed
	}
	return out
}

// listSites lists at most so many sites, those that rest first, and counts all. The limit is applied by the table, which
// orders the sites.
func (d *daemon) listSites(limit int) (list []admin.Site, total int) {
	status := d.sites.Status(limit)
	out := make([]admin.Site, len(status))
	for i, s := range status {
		out[i] = siteView(s)
	}
	return out, d.sites.Counts().Known
}

// findSite finds a site that this worker remembers.
func (d *daemon) findSite(name string) (admin.Site, bool) {
	s, known := d.sites.StatusOf(name)
	if !known {
		return admin.Site{}, false
	}
	return siteView(s), true
}

// answerSites lists the sites for the control service, or the one that is named.
func (d *daemon) answerSites(name string, limit int) (list any, total int) {
	if name == "" {
		return d.listSites(limit)
	}
	if site, known := d.findSite(name); known {
		return []admin.Site{site}, 1
	}
	return []admin.Site{}, 0
}

// resetSiteHere ends the rest of a site in this worker, and reports whether it is known here.
func (d *daemon) resetSiteHere(name string) bool {
	// A site that is not known has no events.
	events, known := d.sites.Reset(name)
	d.recordSites(events)
	return known
}

// resetSite ends the rest of a site in this worker, also without a connection, and then in every other one. known reports whether
// any worker remembers the site; the others are waited for only if this one does not. Errors: those of broadcast and of
// control.Ask.
func (d *daemon) resetSite(ctx context.Context, name string) (known bool, err error) {
	request := control.SiteRequest{Site: name}
	if d.resetSiteHere(name) {
		return true, d.broadcast(ctx, control.ResetSite, request)
	}
	answers, err := askWorkers[control.SiteReset](ctx, d, control.ResetSite, request)
	if errors.Is(err, control.ErrNoWorkers) { // not even this one, which may lack the right
		err = nil
	}
	return slices.ContainsFunc(answers, func(a control.SiteReset) bool { return a.Known }), err
}

// sitesOfWorkers asks every worker, this one included, for at most limit of its sites.
func (d *daemon) sitesOfWorkers(ctx context.Context, limit int) ([]admin.WorkerSites, error) {
	return askWorkers[admin.WorkerSites](ctx, d, control.Sites, control.SiteRequest{Limit: limit})
}

// askWorkers asks every worker, this one included. Errors: bus.ErrUnreachable without a connection; those of control.Ask.
func askWorkers[T any](ctx context.Context, d *daemon, verb string, request any) ([]T, error) {
	conn := d.connected.Load()
	if conn == nil || !conn.nc.IsConnected() {
		return nil, bus.ErrUnreachable
	}
	return control.Ask[T](ctx, conn.nc, control.Subject(d.names, verb), request, 0)
}

// countSites counts the sites that this worker remembers by state, and followedSites those that rest by the word of others.
func (d *daemon) countSites() map[string]int {
	c := d.sites.Counts()
	// The three labels are disjoint and sum up to all known sites.
	return map[string]int{"resting": c.Resting, "returning": c.Returning, "other": c.Known - c.Resting - c.Returning}
}

// followedSites is the gauge of sites that rest by a finding of another worker.
func (d *daemon) followedSites() int {
	if d.fleetSites == nil {
		return 0
	}
	return d.fleetSites.CountFollowed()
}
