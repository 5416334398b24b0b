package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/config"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// check is one run of gofer proxies check.
type check struct {
	app     *app
	list    []proxylist.Proxy
	fetcher *fetch.Fetcher
	job     jobs.Job // for any proxy
	bar     *progressbar.ProgressBar
	widths  [2]int // of ids and addresses

	mu     sync.Mutex // held while a line is written
	times  []time.Duration
	failed int
}

// newCheck makes a check of a list. The caller closes its fetcher.
func (a *app) newCheck(ctx context.Context, c *config.Config, f checkFlags, list []proxylist.Proxy) (*check, error) {
	job, err := jobs.PageJob(f.target)
	if err != nil {
		return nil, usage("--target: %w", err)
	}
	pool := rotation.New(rotation.Config{})
	k := &check{app: a, list: list, job: job, bar: a.progress(len(list) > 1, len(list), "proxies")}
	k.fetcher = fetch.New(fetch.Config{
		Pool: pool, Policy: onceOnly, AttemptTimeout: f.timeout, MaxBodyBytes: c.MaxBodyBytes, AllowPrivateTargets: c.AllowPrivateTargets,
	})
	// While the pool is empty nothing is fetched, but a target that may not be fetched is refused: once, not for each proxy.
	if o := k.fetcher.Do(ctx, job, jobs.Progress{}); o.Result.Error == jobs.ErrTargetDenied {
		k.fetcher.Close()
		return nil, usage("--target: %s, unless GOFER_ALLOW_PRIVATE_TARGETS is set", o.Result.Detail)
	}
	pool.Replace(list)
	for _, p := range list {
		k.widths[0], k.widths[1] = max(k.widths[0], len(p.ID)), max(k.widths[1], len(p.Addr()))
	}
	return k, nil
}

// onceOnly is the policy of one attempt that takes no error page for an answer.
func onceOnly() jobs.Policy {
	p := jobs.DefaultPolicy()
	p.MaxAttempts, p.RetryStatusCodes = 1, nil
	for status := 400; status < 600; status++ {
		p.RetryStatusCodes = append(p.RetryStatusCodes, status)
	}
	return p
}

// checked is what became of one proxy. The address never holds user information.
type checked struct {
	ID       string        `json:"id"`
	Addr     string        `json:"addr"`
	OK       bool          `json:"ok"`
	Status   int           `json:"status"`
	Duration jobs.Duration `json:"duration"`
	Fault    jobs.Fault    `json:"fault"`
	Error    string        `json:"error"`
}

// run checks every proxy, so many at a time, until ctx ends.
func (k *check) run(ctx context.Context, parallel int) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	todo := make(chan proxylist.Proxy)
	var lanes sync.WaitGroup
	for range min(parallel, len(k.list)) {
		lanes.Go(func() {
			for p := range todo {
				if r, known := k.through(ctx, p); known {
					if err := k.tell(r); err != nil {
						stop(err)
					}
				}
			}
		})
	}
	for i := 0; i < len(k.list) && ctx.Err() == nil; i++ {
		select {
		case todo <- k.list[i]:
		case <-ctx.Done():
		}
	}
	close(todo)
	lanes.Wait()
	_ = k.bar.Exit()
	return k.verdict(context.Cause(ctx))
}

// through fetches the page through one proxy; known is false when ctx ended first.
func (k *check) through(ctx context.Context, p proxylist.Proxy) (r checked, known bool) {
	job := k.job
	job.Proxy.ID = p.ID
	o := k.fetcher.Do(ctx, job, jobs.Progress{})
	if o.Kind != jobs.RunFinished {
		return r, false
	}
	r = checked{
		ID: p.ID, Addr: p.Addr(), OK: o.Result.Outcome == jobs.Succeeded,
		Duration: jobs.Duration(o.Result.Duration), Error: o.Result.Detail,
	}
	if n := len(o.Result.Attempts); n > 0 {
		last := o.Result.Attempts[n-1]
		r.Status, r.Duration, r.Fault, r.Error = last.Status, last.Duration, last.Fault, last.Error
	}
	return r, true
}

// tell prints what became of a proxy, and counts it.
func (k *check) tell(r checked) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r.OK {
		k.times = append(k.times, r.Duration.Std())
	} else {
		k.failed++
	}
	k.bar.Describe(fmt.Sprintf("%d failed", k.failed))
	_ = k.bar.Clear()
	return errors.Join(k.print(r), k.bar.Add(1))
}

func (k *check) print(r checked) error {
	if k.app.json {
		return k.app.printJSON(r)
	}
	word, status, why := "ok", "-", ""
	if r.Status != 0 {
		status = fmt.Sprint(r.Status)
	}
	if !r.OK {
		word, why = "failed", " "+r.Error
	}
	if r.Fault != jobs.FaultNone {
		why = " " + string(r.Fault) + ": " + r.Error
	}
	return k.app.out.line("%-*s %-*s %-6s %3s %s%s", k.widths[0], r.ID, k.widths[1], r.Addr, word, status, milliseconds(r.Duration), why)
}

// verdict sums up: a word on standard error, and the exit code.
func (k *check) verdict(stopped error) error {
	slices.Sort(k.times)
	text := fmt.Sprintf("%d ok, %d failed", len(k.times), k.failed)
	if n := len(k.times); n > 0 {
		text += ", median time " + k.times[n/2].Round(time.Millisecond).String()
	}
	left := len(k.list) - len(k.times) - k.failed
	switch {
	case stopped != nil && !errors.Is(stopped, context.Canceled) && !errors.Is(stopped, errInterrupted):
		return stopped
	case left > 0:
		return fmt.Errorf("%w: %s, %d not checked", errInterrupted, text, left)
	case k.failed > 0:
		return &failure{code: exitSomeFailed, err: errors.New(text)}
	}
	k.app.note("%s", text)
	return nil
}
