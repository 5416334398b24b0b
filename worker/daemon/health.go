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

// probeTimeout bounds one probe. A proxy that takes longer for a page that was made for probes is of little use.
const probeTimeout = 10 * time.Second

// probeMemory is what the pages of probes may take together, in bytes.
const probeMemory = 32 << 20

// prober finds out whether proxies whose open time is over work again, by fetches of its own.
type prober struct {
	pool     *rotation.Pool
	fetcher  *fetch.Fetcher
	page     jobs.Job
	parallel int // probes at a time
	log      *slog.Logger
}

// probeProxies probes the proxies at every interval until ctx ends, if Config names a page for that.
func (d *daemon) probeProxies(ctx context.Context) {
	if d.cfg.HealthPage == "" {
		return
	}
	page, err := jobs.PageJob(d.cfg.HealthPage)
	if err != nil {
		d.log.Error("proxies are not probed", "error", err) // unreachable: Run has checked the page
		// Kept as a log line and not a panic, because a worker without probes still works.
		return
	}
	// A fetcher of its own: a probe is no attempt of a job, so it counts nowhere and uses up no retry budget. Only the breakers
	// that it changes are recorded. A quarter of the slots bounds how many connections probes use beside the
	// jobs.
	p := &prober{pool: d.pool, page: page, log: d.log, parallel: max(1, d.cfg.Concurrency/4), fetcher: fetch.New(fetch.Config{
		Pool: d.pool, Policy: jobs.DefaultPolicy, Observer: fetch.Observer{BreakersChanged: d.recordBreakers}, Denied: d.settings.IsDenied,
		AttemptTimeout: min(d.cfg.AttemptTimeout, probeTimeout), UserAgent: d.cfg.UserAgent, MaxBodyBytes: d.cfg.MaxBodyBytes, MaxMemory: probeMemory,
		AllowPrivateTargets: d.cfg.AllowPrivateTargets, Worker: d.cfg.Name, Trusted: true,
	})}
	defer p.fetcher.Close()
	// From now on no job is spent on a proxy whose open time is over. When the prober ends, jobs probe again.
	// Deferred before the loop, so jobs probe again even if the prober panics.
	p.pool.LeaveProbes(true)
	defer p.pool.LeaveProbes(false)
	for ctx.Err() == nil {
		p.probeAll(ctx)
		sleep(ctx, d.cfg.HealthInterval)
	}
}

// probeAll probes each proxy whose open time is over. First it fetches the page through any proxy that works: if the page itself
// is down, a probe says nothing about its proxy. Then jobs probe, as they do without a page, until the next interval.
func (p *prober) probeAll(ctx context.Context) {
	probeable := p.pool.Probeable()
	if len(probeable) == 0 {
		return
	}
	// Jobs may have been allowed to probe since the last interval failed.
	p.pool.LeaveProbes(true)
	// Two attempts, through two proxies: one bad proxy must not stand for the page.
	if o := p.fetch(ctx, "", 2); o.Result.Outcome != jobs.Succeeded && ctx.Err() == nil {
		p.log.Warn("proxies are not probed: the page for that cannot be fetched", "error", o.Result.Error, "detail", o.Result.Detail)
		p.pool.LeaveProbes(false)
		return
	}
	todo := make(chan string)
	var probes sync.WaitGroup
	for range min(p.parallel, len(probeable)) {
		// Each probe is one attempt through one named proxy, so its result is about that proxy alone.
		probes.Go(func() {
			for id := range todo {
				p.fetch(ctx, id, 1)
			}
		})
	}
	// The channel has no buffer, so the loop ends within one probe of the end of ctx.
	for i := 0; i < len(probeable) && ctx.Err() == nil; i++ {
		todo <- probeable[i]
	}
	close(todo)
	probes.Wait()
}

// fetch fetches the page through one proxy, or through any if none is named. The fetcher reports the verdict to the pool, which
// updates the breaker.
func (p *prober) fetch(ctx context.Context, proxy string, attempts int) *jobs.RunOutcome {
	job, soon := p.page, jobs.Duration(jobs.MinBaseDelay)
	job.Proxy.ID = proxy
	// The shortest delay that a policy may have: the second attempt of the check follows at once.
	job.Retry = &jobs.Override{MaxAttempts: &attempts, BaseDelay: &soon}
	o := p.fetcher.Do(ctx, &job, &jobs.Progress{})
	// Nobody reads the body, so its memory is given back.
	o.Release()
	return o
}
