package daemon

import (
	"context"
	"log/slog"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/rotation/sites"
	"github.com/gofer-mq/gofer/worker/admin"
	"github.com/gofer-mq/gofer/worker/release"
)

// Worker is a daemon whose outbox a test fills.
type Worker struct{ d *daemon }

// New builds a worker.
func New(c Config) (*Worker, error) {
	d, err := newDaemon(c.withDefaults())
	return &Worker{d}, err
}

// Run is the package's, on the worker.
func (w *Worker) Run(ctx context.Context) error {
	defer w.d.fetcher.Close()
	return w.d.run(ctx)
}

// Send puts an event into the outbox.
func (w *Worker) Send(publish func(context.Context) error) { w.d.enqueue(publish) }

// Enter begins an attempt at a site.
func (w *Worker) Enter(site string) (sites.Visit, *sites.Refusal) {
	visit, refused, _ := w.d.sites.Enter(site, sites.Ask{Released: true})
	return visit, refused
}

// SiteForRelease is the daemon's.
func (w *Worker) SiteForRelease(site string) release.Site { return w.d.siteForRelease(site) }

// ListEnded is the package's.
func ListEnded(ctx context.Context, c *bus.Client, f admin.JobFilter, limit int) ([]admin.Job, bool, error) {
	found, err := listEnded(ctx, c, f, limit)
	return found.Jobs, found.Partial, err
}

// FindJobs is the package's.
func FindJobs(ctx context.Context, c *bus.Client, f admin.JobFilter, limit int) (admin.JobsFound, error) {
	return findJobs(ctx, client.New(c), c, f, limit)
}

// SearchTime is the package's.
func SearchTime(ctx context.Context) (context.Context, context.CancelFunc) { return searchTime(ctx) }

// Journal is the package's, for tests.
type Journal struct{ *journal }

// NewJournal makes one.
func NewJournal(log *slog.Logger) Journal { return Journal{newJournal(log)} }

// AddRetry is the journal's.
func (j Journal) AddRetry(e jobs.RetryEvent) { j.addRetry(e) }

// AddJob is the journal's.
func (j Journal) AddJob(r jobs.Result) { j.addJob(&r) }

// Run is the journal's.
func (j Journal) Run(ctx context.Context, proxies func() (usable, known bool, detail string)) {
	j.run(ctx, func() proxyState {
		usable, known, detail := proxies()
		return proxyState{usable, known, detail}
	})
}
