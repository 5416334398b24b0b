package client_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker"
)

// serverURL is the server of the examples. A worker serves the queues default and reports there.
var serverURL string

func TestMain(m *testing.M) {
	stop, err := serve()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	stop()
	os.Exit(code)
}

// serve starts the server and its worker.
func serve() (stop func(), err error) {
	var stopServer func()
	if serverURL, stopServer, err = testenv.OpenNATS(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	nc, err := bus.Connect(ctx, bus.Dial{URL: serverURL}, nil)
	if err != nil {
		cancel()
		stopServer()
		return nil, err
	}
	var running sync.WaitGroup
	stop = func() {
		cancel()
		running.Wait()
		nc.Close()
		stopServer()
	}
	names, err := jobs.NewNames("")
	if err != nil {
		return stop, err
	}
	b, err := bus.New(nc, names)
	if err != nil {
		return stop, err
	}
	if err := b.Ensure(ctx, bus.Settings{Queues: []string{"default", "reports"}}); err != nil {
		return stop, err
	}
	w, err := worker.New(worker.Config{
		Client: b, Queues: []worker.Queue{{Name: "default"}, {Name: "reports"}}, Do: pretend, DrainTimeout: time.Second,
		Log: slog.New(slog.DiscardHandler), Name: "w1",
	})
	if err != nil {
		return stop, err
	}
	running.Go(func() { _ = w.Run(ctx) })
	return stop, nil
}

// pretend stands in for a fetch: the path of the URL says how it ends.
func pretend(ctx context.Context, job *jobs.Job, _ *jobs.Progress) *jobs.RunOutcome {
	u, _ := url.Parse(job.URL) // a job's URL was checked
	r := jobs.Result{
		Queue: job.Queue, ID: job.ID, URL: job.URL, Outcome: jobs.Succeeded, Status: 200, Worker: "w1", Proxy: "good-1",
		AttemptCount: 1, FinishedAt: time.Now(), Meta: job.Meta, Body: []byte("<h1>" + strings.TrimPrefix(u.Path, "/") + "</h1>"),
	}
	switch u.Path {
	case "/missing":
		r.Status = 404
	case "/broken":
		r.Outcome, r.Error, r.Status, r.Body = jobs.Failed, jobs.ErrAttemptsExhausted, 0, nil
		r.Detail = "every allowed attempt failed"
	case "/large":
		r.Body = []byte(strings.Repeat("x", jobs.MaxInlineBody+1))
	case "/slow":
		<-ctx.Done()
		return &jobs.RunOutcome{Kind: jobs.RunStopped}
	}
	return &jobs.RunOutcome{Kind: jobs.RunFinished, Result: r}
}
