package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/daemon"
)

const (
	fleetSlots  = 4
	fleetRate   = 50 // jobs a second, whatever the number of workers: this part is about what workers say to each other
	fleetLoad   = 15 * time.Second
	startAtOnce = 20
)

// fleets runs many real workers in this process, each with a connection of its own. What a server notices of a worker is
// all there: pulls, watches, findings, rollups, its micro service.
func (b *bench) fleets(ctx context.Context, sizes []int) (table.Writer, error) {
	t := table.NewWriter()
	t.AppendHeader(table.Row{"workers", "all started after", "subscriptions", "server", "its CPU idle", "requests/s idle", "CPU of the workers idle",
		"who answers a ping", "within", "result after, 99 %", "server's CPU busy", "slow consumers", "all CPU idle, busy", "load"})
	for _, n := range sizes {
		if err := b.fleet(ctx, t, n); err != nil {
			return t, fmt.Errorf("%d workers: %w", n, err)
		}
	}
	return t, nil
}

func (b *bench) fleet(ctx context.Context, t table.Writer, n int) error {
	s, err := b.start(ctx, 1)
	if err != nil {
		return err
	}
	defer s.close()
	list, stop, err := site()
	if err != nil {
		return err
	}
	defer stop()
	began := time.Now()
	end, err := s.join(ctx, n, list)
	defer end()
	if err != nil {
		return err
	}
	if err := s.answering(ctx, n); err != nil {
		return err
	}
	started := time.Since(began)
	settle := func() error { return b.pause(ctx, 15*time.Second) } // what follows a start
	idle, err := s.between(ctx, []int{os.Getpid()}, settle, func() error { return b.pause(ctx, 2*idleTime) })
	if err != nil {
		return err
	}
	before, after := idle[0], idle[1]
	answered, within, err := s.ping(ctx, n)
	if err != nil {
		return err
	}
	busy := usageOf(s.pids()...)
	slow, err := s.flow(ctx, b.long(fleetLoad))
	if err != nil {
		return err
	}
	last := usageOf(s.pids()...)
	final, err := s.counted(ctx)
	if err != nil {
		return err
	}
	t.AppendRow(table.Row{
		n, started.Round(100 * time.Millisecond), after.Subscriptions, fmt.Sprint(mebibytes(s.pids()[0]), " MiB"), fmt.Sprintf("%.0f %%", 100*after.servers.cores(before.servers)),
		fmt.Sprintf("%.0f", idle.requests()),
		fmt.Sprintf("%.0f %%", 100*after.workers.cores(before.workers)), fmt.Sprintf("%d of %d", answered, n), within.Round(time.Millisecond), slow.Round(time.Millisecond),
		fmt.Sprintf("%.0f %%", 100*last.cores(busy)), final.SlowConsumers,
		fmt.Sprintf("%.0f %%, %.0f %%", after.workers.percent(before.workers), last.percent(busy)), loadAverage(),
	})
	fmt.Fprintf(b.progress, "%d workers started after %s\n", n, started)
	return nil
}

// join starts n workers, some at once, and returns how to end them all.
func (s *installation) join(ctx context.Context, n int, list string) (end func(), err error) {
	proxies, err := proxylist.ParseList(strings.NewReader(strings.ReplaceAll(list, ",", "\n")))
	if err != nil {
		return func() {}, err
	}
	working, drain := context.WithCancel(ctx)
	var all sync.WaitGroup
	end = func() { drain(); all.Wait() }
	room, failed := make(chan struct{}, startAtOnce), make(chan error, n)
	for i := range n {
		select {
		case room <- struct{}{}:
		case err := <-failed:
			return end, err
		}
		var once sync.Once
		leave := func() { once.Do(func() { <-room }) }
		all.Go(func() {
			defer leave()
			failed <- daemon.Run(working, daemon.Config{
				NATS: bus.Dial{URL: s.url()}, Name: fmt.Sprint("w", i), Concurrency: fleetSlots, Proxies: proxies, Started: leave, DrainTimeout: 10 * time.Second,
			})
		})
	}
	return end, nil
}

// ping counts the workers that answer the ping of their micro service, and says when the last one did.
func (s *installation) ping(ctx context.Context, n int) (answered int, within time.Duration, err error) {
	inbox := s.nc.NewInbox()
	sub, err := s.nc.SubscribeSync(inbox)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	began := time.Now()
	if err := s.nc.PublishRequest("$SRV.PING.gofer", inbox, nil); err != nil {
		return 0, 0, err
	}
	for answered < n {
		limited, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := sub.NextMsgWithContext(limited)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrNoResponders) {
			break
		}
		if err != nil {
			return answered, within, err
		}
		answered, within = answered+1, time.Since(began)
	}
	return answered, within, nil
}

// flow publishes jobs at a steady rate, and returns the time that 99 of 100 have their result within.
func (s *installation) flow(ctx context.Context, long time.Duration) (time.Duration, error) {
	var mu sync.Mutex
	sent, took := map[string]time.Time{}, []time.Duration{}
	var ended atomic.Int64
	sub, err := s.nc.Subscribe("gofer.results.>", func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		took = append(took, time.Since(sent[m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]]))
		ended.Add(1)
	})
	if err != nil {
		return 0, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	n := int(fleetRate * long.Seconds())
	tick := time.NewTicker(time.Second / fleetRate)
	defer tick.Stop()
	for i := range n {
		id := fmt.Sprint("flow-", i)
		mu.Lock()
		sent[id] = time.Now()
		mu.Unlock()
		if _, err := s.bus.JetStream().PublishAsync("gofer.jobs.default."+id, fmt.Appendf(nil, "http://s%d.test/", i%5)); err != nil {
			return 0, err
		}
		<-tick.C
	}
	err = poll(ctx, time.Minute, func() error {
		if have := int(ended.Load()); have < n {
			return fmt.Errorf("%d of %d jobs have ended", have, n)
		}
		return nil
	})
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(took)
	if len(took) == 0 {
		return 0, err
	}
	return took[len(took)*99/100], err
}
