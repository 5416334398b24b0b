package main

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const storedSlots = 64

// stored measures the memory of a server and of a worker with many waiting jobs and kept results.
func (b *bench) stored(ctx context.Context, n int) (table.Writer, error) {
	t := table.NewWriter()
	t.AppendHeader(table.Row{"kept results", "waiting jobs", "server", "worker", "jobs/s of the worker", "all CPU", "load"})
	s, err := b.start(ctx, 1)
	if err != nil {
		return t, err
	}
	defer s.close()
	line := func(results, waiting int, rest ...any) {
		t.AppendRow(append(table.Row{results, waiting, fmt.Sprint(mebibytes(s.pids()[0]), " MiB")}, rest...))
		fmt.Fprintf(b.progress, "%d results, %d jobs\n", results, waiting)
	}
	line(0, 0)
	if err := s.keep(ctx, n); err != nil {
		return t, err
	}
	line(n, 0)
	if err := s.publish(ctx, "waiting", n); err != nil {
		return t, err
	}
	line(n, n)
	list, stop, err := site()
	if err != nil {
		return t, err
	}
	defer stop()
	p, err := b.worker(s, "w", list, storedSlots, 1)
	if err != nil {
		return t, err
	}
	defer func() { _ = p.Process.Signal(syscall.SIGTERM); _ = p.Wait() }()
	if err := s.reach(ctx, n+1000); err != nil {
		return t, err
	}
	start, err := s.sample(ctx, nil)
	if err != nil {
		return t, err
	}
	if err := b.pause(ctx, 2*idleTime); err != nil {
		return t, err
	}
	end, err := s.sample(ctx, nil)
	if err != nil {
		return t, err
	}
	done := end.results - start.results
	line(end.results, n-(end.results-n), fmt.Sprint(mebibytes(p.Process.Pid), " MiB"), fmt.Sprintf("%.0f", float64(done)/end.workers.at.Sub(start.workers.at).Seconds()),
		fmt.Sprintf("%.0f %%", end.workers.percent(start.workers)), loadAverage())
	return t, nil
}

// keep stores n results of 1 KiB as workers do.
func (s *installation) keep(ctx context.Context, n int) error {
	js, body := s.bus.JetStream(), make([]byte, bodyBytes)
	for i := range n {
		m := &nats.Msg{
			Subject: fmt.Sprintf("_gofer.results.default.kept-%d", i), Data: body,
			Header: nats.Header{"Gofer-Outcome": {"succeeded"}, "Gofer-Status": {"200"}, "Gofer-Finished-At": {time.Now().UTC().Format(time.RFC3339Nano)}},
		}
		if _, err := js.PublishMsgAsync(m, jetstream.WithStallWait(time.Minute)); err != nil {
			return fmt.Errorf("store result %d: %w", i, err)
		}
	}
	select {
	case <-js.PublishAsyncComplete():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
