package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// scenario is what goes wrong while jobs run.
type scenario struct {
	name     string
	nodes    int
	replicas int     // of the streams at first; zero means one for each node
	disk     bool    // on a small disk
	hostile  bool    // sites and publishers attack, and the disk is small only where one can be mounted
	halves   bool    // the second half of the jobs comes when wreck calls resume
	orders   mix     // the load; nil means the usual one
	from, to release // the version that the workers begin with, and the one that replaces it
	// wreck breaks things until the load ends, and says what it did.
	wreck func(ctx context.Context, w *world) (string, error)
}

func scenarios() []scenario {
	return []scenario{
		{name: "worker-kill", nodes: 1, wreck: killWorkers},
		{name: "worker-freeze", nodes: 1, wreck: freezeWorkers},
		{name: "worker-cut", nodes: 1, wreck: cutWorkers},
		{name: "server-kill", nodes: 1, wreck: killServer},
		{name: "cluster", nodes: 3, wreck: shakeCluster},
		{name: "disk-full", nodes: 1, disk: true, wreck: fillDisk},
		{name: "rolling-restart", nodes: 1, wreck: rollWorkers},
		{name: "rolling-servers", nodes: 3, wreck: rollServers},
		{name: "upgrade", nodes: 1, halves: true, orders: aged, from: before, wreck: upgrade},
		{name: "upgrade-newer-jobs", nodes: 1, orders: early, to: tomorrow, wreck: mixed},
		{name: "all-together", nodes: 3, disk: true, wreck: everything},
		{name: "hostile-answers", nodes: 1, disk: true, hostile: true, wreck: disturb},
		{name: "hostile-owner", nodes: 1, hostile: true, wreck: disturbAndOwn},
		{name: "hostile-growth", nodes: 3, replicas: 1, hostile: true, halves: true, wreck: grow},
	}
}

// outcome is a line of the table.
type outcome struct {
	name, done                              string
	jobs, results, lost, seconds, refetched int
	refused                                 int           // jobs that the server did not take
	replays                                 int           // jobs that were published from a dead letter
	given                                   int           // jobs that were in a stream which was deleted
	letters                                 int           // dead letters that are missing
	recovery                                time.Duration // the longest time from a job's ack to its stored result
	largest                                 int64         // bytes of the largest worker
	faults                                  []string      // whatever else must not be
}

// broken is the error of a promise that was not kept.
func (o outcome) broken() error {
	if o.lost == 0 && o.seconds == 0 && o.letters == 0 && len(o.faults) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %d jobs lost, %d second results, %d dead letters missing; %s", o.name, o.lost, o.seconds, o.letters, strings.Join(o.faults, "; "))
}

// play runs the scenario and counts.
func (s scenario) play(ctx context.Context, set setting) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	w, err := newWorld(ctx, set, s)
	if err != nil {
		return outcome{}, err
	}
	defer w.close()
	watcher, err := w.watch()
	if err != nil {
		return outcome{}, err
	}
	defer watcher.nc.Close()

	orders := plainOrder
	switch {
	case s.hostile:
		orders = hostileOrder
	case s.orders != nil:
		orders = s.orders
	}
	published := make(chan error, 1)
	loading, loaded := context.WithCancel(ctx)
	publishing, quit := context.WithCancel(ctx)
	defer quit()
	go func() { defer loaded(); published <- w.publish(publishing, orders) }()
	go w.tell(ctx)
	done, err := s.wreck(loading, w)
	if err != nil {
		quit() // jobs that wait for the second half would wait for ever
	}
	w.heal()
	if err = errors.Join(err, <-published); err != nil {
		return outcome{}, err
	}
	o, err := w.verdict(ctx, s, watcher)
	o.name, o.done = s.name, done
	return o, err
}

// verdict waits for the results and compares them with what was acknowledged.
func (w *world) verdict(ctx context.Context, s scenario, v *watcher) (o outcome, err error) {
	limit := 3*w.pace.ackWait + 20*time.Second
	if s.to == tomorrow {
		limit += newerDelay
	}
	if s.hostile {
		limit = w.pace.patience
	}
	if err := w.settled(ctx, limit); err != nil {
		return o, err
	}
	l := w.ledger
	lost := l.lost()
	o.jobs, o.results, o.lost, o.given, o.refused = len(l.jobs), len(l.results), len(lost), len(l.mayLose), l.refused
	for _, job := range l.jobs {
		if job.replay {
			o.replays++
		}
	}
	var again []string
	o.seconds, again = l.seconds(v.all())
	o.recovery, o.refetched = l.recovery(), w.origin.refetched()
	if o.letters, err = w.letters(ctx); err != nil {
		return o, err
	}
	if len(v.all()) == 0 {
		return o, errors.New("the plain subscriber saw nothing at all")
	}
	if len(lost) > 0 {
		o.faults = append(o.faults, fmt.Sprintf("lost: %.500q", lost))
		if err := w.report(ctx, lost, v.all()); err != nil {
			return o, err
		}
	}
	if len(again) > 0 {
		o.faults = append(o.faults, fmt.Sprintf("second results: %.5000q", again))
	}
	for why, n := range l.unsound {
		o.faults = append(o.faults, fmt.Sprintf("%d sound jobs: %s", n, why))
	}
	return o, w.inspect(ctx, s, &o)
}

// inspect looks for whatever must not be, results apart.
func (w *world) inspect(ctx context.Context, s scenario, o *outcome) error {
	for _, text := range w.ledger.foreign {
		o.faults = append(o.faults, "foreign bytes: "+text)
	}
	if n := w.canary.Load(); n > 0 {
		o.faults = append(o.faults, fmt.Sprintf("%d requests reached a denied target", n))
	}
	late, err := w.overdue(ctx)
	if err != nil {
		return err
	}
	if len(late) > 0 {
		o.faults = append(o.faults, fmt.Sprintf("overdue: %.500q", late))
	}
	if n := w.ledger.invalid(); n > 0 && s.orders != nil {
		o.faults = append(o.faults, fmt.Sprintf("%d valid jobs ended as invalid", n))
	}
	if !s.hostile {
		return nil
	}
	leaking, err := w.leaks(ctx)
	o.faults = append(o.faults, leaking...)
	o.largest = w.largest.Load()
	return err
}

// killWorkers kills one and starts it again, as its supervisor would.
func killWorkers(ctx context.Context, w *world) (string, error) {
	n := 0
	for ; ctx.Err() == nil; n++ {
		sleep(ctx, w.pace.between)
		p := w.victim()
		p.kill()
		if err := p.start(); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("a worker killed with -9 %d times", n), nil
}

// freezeWorkers stops a worker for longer than its lease lasts; it goes on as if nothing had happened.
func freezeWorkers(ctx context.Context, w *world) (string, error) {
	n := 0
	for ; ctx.Err() == nil; n++ {
		p := w.victim()
		p.signal(syscall.SIGSTOP)
		sleep(ctx, w.pace.freeze)
		p.signal(syscall.SIGCONT)
		sleep(ctx, time.Second)
	}
	return fmt.Sprintf("%d × a worker stopped for %s, then continued", n, w.pace.freeze), nil
}

// cutWorkers cuts one worker from its server, in both directions.
func cutWorkers(ctx context.Context, w *world) (string, error) {
	n, long := 0, w.pace.freeze*3/2
	for ; ctx.Err() == nil; n++ {
		k := w.links[w.rng.IntN(len(w.links))]
		k.cut()
		sleep(ctx, long)
		k.join()
		sleep(ctx, time.Second)
	}
	return fmt.Sprintf("%d × a worker cut from its server for %s", n, long), nil
}

func killServer(ctx context.Context, w *world) (string, error) {
	for range w.pace.kills {
		sleep(ctx, w.pace.load/time.Duration(w.pace.kills+1))
		if err := w.servers.restart(ctx, 0, 200*time.Millisecond); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("the server killed with -9 %d times", w.pace.kills), nil
}

// drainLimit is when a worker must have ended whose drain timeout is 10 s; a busy machine is late.
const drainLimit = 30 * time.Second

// minKills is how many nodes shakeCluster kills at least: a slow machine needs longer for one round than the load lasts.
const minKills = 3

// shakeCluster moves the leaders and kills one node after the other.
func shakeCluster(ctx context.Context, w *world) (string, error) {
	steps, kills := 0, 0
	for i := 0; ctx.Err() == nil || kills < minKills; i++ {
		sleep(ctx, w.pace.between)
		steps += w.stepDown(ctx)
		if i%2 == 1 {
			if err := w.servers.restart(context.WithoutCancel(ctx), kills%len(w.servers.nodes), time.Second); err != nil {
				return "", err
			}
			kills++
			if err := w.caughtUp(ctx); err != nil {
				return "", err
			}
		}
	}
	return fmt.Sprintf("three nodes, R3: leaders moved %d times, %d × a node killed with -9", steps, kills), nil
}

// stepDown makes the streams and the consumers choose other leaders, and returns how many did. There may be none now.
func (w *world) stepDown(ctx context.Context) (moved int) {
	names := w.client.Names()
	for _, of := range []string{
		"STREAM.LEADER.STEPDOWN.GOFER_JOBS", "STREAM.LEADER.STEPDOWN.GOFER_RESULTS", "STREAM.LEADER.STEPDOWN.GOFER_RETRIES",
		"CONSUMER.LEADER.STEPDOWN.GOFER_JOBS." + names.WorkerConsumer(jobs.DefaultQueue),
		"CONSUMER.LEADER.STEPDOWN.GOFER_RETRIES." + names.DueConsumer(jobs.DefaultQueue),
	} {
		ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		answer, err := w.nc.RequestWithContext(ask, "$JS.API."+of, nil)
		cancel()
		var did struct{ Success bool }
		if err == nil && json.Unmarshal(answer.Data, &did) == nil && did.Success {
			moved++
		}
	}
	return moved
}

// caughtUp waits until every stream and consumer has all its replicas, as a careful operator does between two restarts: two nodes
// of three gone at once is a power cut.
func (w *world) caughtUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	return w.client.AwaitReplicas(ctx, w.settings, func([]bus.ReplicaLag) {})
}

// fillDisk fills the server's disk, makes room again and restarts the server, as its owner has to: a server that could
// not write may have switched JetStream off.
func fillDisk(ctx context.Context, w *world) (string, error) {
	sleep(ctx, w.pace.load/4)
	if err := w.fullFor(ctx, 0, w.pace.load/4); err != nil {
		return "", err
	}
	return fmt.Sprintf("the server's disk full for %s, then room made and the server restarted", w.pace.load/4), nil
}

func (w *world) fullFor(ctx context.Context, node int, d time.Duration) error {
	if err := w.servers.disks[node].fill(); err != nil {
		return err
	}
	sleep(ctx, d)
	if err := w.servers.disks[node].free(); err != nil {
		return err
	}
	return w.servers.restart(ctx, node, 200*time.Millisecond)
}

// rollWorkers restarts one worker after the other with SIGTERM, as a deployment does.
func rollWorkers(ctx context.Context, w *world) (string, error) {
	n := 0
	for i := 0; ctx.Err() == nil; i++ {
		p := w.workers[i%len(w.workers)]
		p.signal(syscall.SIGTERM)
		if !p.wait(drainLimit) {
			return "", fmt.Errorf("%s did not end within its drain timeout", p.name)
		}
		if err := p.start(); err != nil {
			return "", err
		}
		n++
		sleep(ctx, w.pace.between/2)
	}
	return fmt.Sprintf("%d × a worker ended with SIGTERM and started again", n), nil
}
