package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/control"
)

const (
	answer    = 200 * time.Millisecond // how long a site takes
	rowTime   = 12 * time.Second       // how long the jobs of a row last if nothing but the sites takes time
	idleTime  = 10 * time.Second
	proxies   = 20
	bodyBytes = 1 << 10
)

// site answers after a while, whoever is asked for: it is all proxies and all sites at once.
func site() (list string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	body := make([]byte, bodyBytes)
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		time.Sleep(answer)
		_, _ = rw.Write(body)
	})}
	go func() { _ = server.Serve(l) }()
	var lines []string
	for i := range proxies {
		lines = append(lines, fmt.Sprintf("http://u%d:p@%s", i, l.Addr()))
	}
	return strings.Join(lines, ","), func() { _ = server.Close() }, nil
}

// workers measures worker processes.
func (b *bench) workers(ctx context.Context, nodes, slots, counts []int) (table.Writer, error) {
	t := table.NewWriter()
	t.AppendHeader(table.Row{"servers", "workers × slots", "jobs/s", "efficiency", "CPU a job", "CPU of a server", "requests/s busy", "a job", "requests/s idle", "all CPU", "load"})
	for _, n := range nodes {
		for _, room := range slots {
			for _, count := range counts {
				if err := b.row(ctx, t, n, room, count); err != nil {
					return t, fmt.Errorf("%d servers, %d × %d: %w", n, count, room, err)
				}
			}
		}
	}
	return t, nil
}

// row has new servers. The jobs are there before the workers, so that no publisher takes part.
func (b *bench) row(ctx context.Context, t table.Writer, nodes, slots, count int) error {
	s, err := b.start(ctx, nodes)
	if err != nil {
		return err
	}
	defer s.close()
	list, stop, err := site()
	if err != nil {
		return err
	}
	defer stop()
	expected := float64(count*slots) / answer.Seconds()
	total := int(expected * b.long(rowTime).Seconds())
	if err := s.publish(ctx, "job", total); err != nil {
		return err
	}
	var pids []int
	for i := range count {
		p, err := b.worker(s, fmt.Sprint("w", i), list, slots, nodes)
		if err != nil {
			return err
		}
		defer func() { _ = p.Process.Signal(syscall.SIGTERM); _ = p.Wait() }()
		pids = append(pids, p.Process.Pid)
	}
	if err := s.answering(ctx, count); err != nil {
		return err
	}
	busy, err := s.between(ctx, pids, func() error { return s.reach(ctx, total/5) }, func() error { return s.reach(ctx, total*17/20) })
	if err != nil {
		return err
	}
	load := loadAverage()
	if err := s.reach(ctx, total); err != nil {
		return err
	}
	last := func() error { return b.pause(ctx, 2*time.Second) } // the last acks
	idle, err := s.between(ctx, pids, last, func() error { return b.pause(ctx, idleTime) })
	if err != nil {
		return err
	}
	start, end := busy[0], busy[1]
	done, seconds := float64(end.results-start.results), end.workers.at.Sub(start.workers.at).Seconds()
	requests := busy.requests()
	t.AppendRow(table.Row{
		nodes, fmt.Sprintf("%d × %d", count, slots), fmt.Sprintf("%.0f", done/seconds), fmt.Sprintf("%.3f", done/seconds/expected),
		fmt.Sprintf("%.0f µs", float64((end.workers.cpu-start.workers.cpu).Microseconds())/done),
		fmt.Sprintf("%.0f %%", 100*end.servers.cores(start.servers)/float64(nodes)), fmt.Sprintf("%.0f", requests), fmt.Sprintf("%.1f", requests*seconds/done),
		fmt.Sprintf("%.1f", idle.requests()), fmt.Sprintf("%.0f %%", end.workers.percent(start.workers)), load,
	})
	fmt.Fprintf(b.progress, "%d servers, %d × %d: %.0f jobs/s\n", nodes, count, slots, done/seconds)
	return nil
}

// sampled is how far everything was at a moment.
type sampled struct {
	counters
	results          int
	workers, servers usage
}

// span is a stretch of time: how far everything was at its begin and its end.
type span [2]sampled

// requests is how many messages clients sent to the servers in a second.
func (s span) requests() float64 {
	return float64(s[1].Received-s[0].Received) / s[1].workers.at.Sub(s[0].workers.at).Seconds()
}

// between samples when each of two waits is over.
func (s *installation) between(ctx context.Context, pids []int, waits ...func() error) (out span, err error) {
	for i, wait := range waits {
		if err := wait(); err != nil {
			return out, err
		}
		if out[i], err = s.sample(ctx, pids); err != nil {
			return out, err
		}
	}
	return out, nil
}

func (s *installation) sample(ctx context.Context, pids []int) (out sampled, err error) {
	if out.results, err = s.results(ctx); err != nil {
		return out, err
	}
	if out.counters, err = s.counted(ctx); err != nil {
		return out, err
	}
	out.workers, out.servers = usageOf(pids...), usageOf(s.pids()...)
	return out, nil
}

// worker starts a gofer worker.
func (b *bench) worker(s *installation, name, proxies string, slots, replicas int) (*exec.Cmd, error) {
	p := exec.Command(b.Gofer, "worker")
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GOFER_") {
			p.Env = append(p.Env, v)
		}
	}
	p.Env = append(p.Env, "GOFER_NATS_URL="+s.url(), "GOFER_PROXIES="+proxies, "GOFER_HTTP_ADDR=127.0.0.1:0", "GOFER_WORKER_NAME="+name,
		"GOFER_LOG_LEVEL=error", fmt.Sprint("GOFER_CONCURRENCY=", slots), fmt.Sprint("GOFER_REPLICAS=", replicas))
	p.Stderr = os.Stderr
	return p, p.Start()
}

// answering waits until so many workers answer as a micro service.
func (s *installation) answering(ctx context.Context, count int) error {
	names, err := jobs.NewNames("")
	if err != nil {
		return err
	}
	return poll(ctx, 5*time.Minute, func() error {
		all, err := control.Ask[control.Status](ctx, s.nc, control.Subject(names, control.Workers), nil, count)
		if err == nil && len(all) < count {
			err = fmt.Errorf("%d of %d workers answer", len(all), count)
		}
		return err
	})
}
