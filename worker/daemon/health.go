package daemon

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// longestTest bounds one test of a proxy: one that takes longer for a page made for that is of little use.
const longestTest = 10 * time.Second

// health finds out whether proxies whose open time is over work again, by fetches of its own.
type health struct {
	pool    *rotation.Pool
	fetcher *fetch.Fetcher
	page    jobs.Job
	lanes   int
	log     *slog.Logger
}

// checkHealth looks at the proxies at every interval until ctx ends, if the owner has named a page for that.
func (d *daemon) checkHealth(ctx context.Context) {
	if d.cfg.HealthPage == "" {
		return
	}
	page, err := jobs.PageJob(d.cfg.HealthPage)
	if err != nil {
		d.log.Error("proxies are not tested", "error", err) // the configuration was checked
		return
	}
	// A fetcher of its own, because tests are no attempts: they count nowhere, and take nothing from any budget.
	h := &health{pool: d.pool, page: page, log: d.log, lanes: max(1, d.cfg.Concurrency/4), fetcher: fetch.New(fetch.Config{
		Pool: d.pool, Policy: jobs.DefaultPolicy, OnBreaker: d.breakersChanged, Denied: d.settings.Denied,
		AttemptTimeout: min(d.cfg.AttemptTimeout, longestTest), UserAgent: d.cfg.UserAgent, MaxBodyBytes: d.cfg.MaxBodyBytes,
		AllowPrivateTargets: d.cfg.AllowPrivateTargets, Worker: d.cfg.Name, Trusted: true,
	})}
	defer h.fetcher.Close()
	h.pool.LeaveTests(true)
	defer h.pool.LeaveTests(false)
	for ctx.Err() == nil {
		h.look(ctx)
		sleep(ctx, d.cfg.HealthInterval)
	}
}

// look tests each proxy that is due. If the page itself does not come through a proxy that works, a test would show nothing
// about the others: then jobs find out, as they do without health checks.
func (h *health) look(ctx context.Context) {
	due := h.pool.Due()
	if len(due) == 0 {
		return
	}
	h.pool.LeaveTests(true)
	if o := h.fetch(ctx, "", 2); o.Result.Outcome != jobs.Succeeded && ctx.Err() == nil {
		h.log.Warn("proxies are not tested: the page for that cannot be fetched", "error", o.Result.Error, "detail", o.Result.Detail)
		h.pool.LeaveTests(false)
		return
	}
	todo := make(chan string)
	var lanes sync.WaitGroup
	for range min(h.lanes, len(due)) {
		lanes.Go(func() {
			for id := range todo {
				h.fetch(ctx, id, 1)
			}
		})
	}
	for i := 0; i < len(due) && ctx.Err() == nil; i++ {
		todo <- due[i]
	}
	close(todo)
	lanes.Wait()
}

// fetch fetches the page through one proxy, or through any. The fetcher judges the proxy by it and tells of its breaker.
func (h *health) fetch(ctx context.Context, proxy string, attempts int) jobs.RunOutcome {
	job, soon := h.page, jobs.Duration(jobs.MinBaseDelay)
	job.Proxy.ID = proxy
	job.Retry = &jobs.Override{MaxAttempts: &attempts, BaseDelay: &soon}
	return h.fetcher.Do(ctx, job, jobs.Progress{})
}
