package overdue_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker"
	"github.com/gofer-mq/gofer/worker/overdue"
	"github.com/gofer-mq/gofer/worker/stream"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// world is a cluster of three servers, a worker, and the jobs that it runs.
type world struct {
	*testing.T
	cluster  *testenv.Killable
	nc       *nats.Conn
	js       jetstream.JetStream
	client   *bus.Client
	luck     *rand.Rand
	replicas int
	found    atomic.Int64 // overdue jobs
	stop     func()       // ends the worker
	log      []string     // what was done, for a failure

	mu   sync.Mutex
	runs map[string]*waited
}

// waited is a job that waits once.
type waited struct {
	until, ran time.Time
	attempts   int // that the run after the wait knows
}

const (
	ackWait = 3 * time.Second
	queue   = jobs.DefaultQueue
)

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{T: t, cluster: testenv.StartKillable(t), luck: rand.New(rand.NewPCG(seed, 0)), replicas: 1, runs: map[string]*waited{}}
	w.nc = w.cluster.Connect()
	w.client = w.newClient(w.nc)
	w.js = w.client.JetStream()
	w.retry("set up", func(ctx context.Context) error { return w.client.Ensure(ctx, bus.Settings{AckWait: ackWait}) })
	return w
}

func (w *world) newClient(nc *nats.Conn) *bus.Client {
	w.Helper()
	names, err := jobs.NewNames("")
	if err != nil {
		w.Fatal(err)
	}
	client, err := bus.New(nc, names)
	if err != nil {
		w.Fatal(err)
	}
	return client
}

// retry does what a cluster without a leader does not answer.
func (w *world) retry(what string, act func(context.Context) error) {
	w.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(testenv.Patience); ; <-tick.C {
		ctx, cancel := context.WithTimeout(w.Context(), 10*time.Second)
		err := act(ctx)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			w.Fatalf("%s: %v; what was done: %q", what, err, w.log)
		}
	}
}

// start runs a worker that lets each job wait once, and a finder beside it.
func (w *world) start() {
	w.Helper()
	client := w.newClient(w.cluster.Connect())
	set := bus.Settings{AckWait: ackWait}
	wk, err := worker.New(worker.Config{
		Client: client, Queues: []worker.Queue{{Name: queue}}, Concurrency: 16, AckWait: ackWait, DrainTimeout: 5 * time.Second,
		Do: w.do, Log: slog.New(slog.DiscardHandler), Name: "w1",
		Restore: func(ctx context.Context) error { return client.Ensure(ctx, set) },
	})
	if err != nil {
		w.Fatal(err)
	}
	finder := overdue.New(stream.New(client), overdue.Config{
		Released: func(n int) { w.found.Add(int64(n)) }, Log: slog.New(slog.DiscardHandler), Every: time.Second, Grace: 2 * time.Second,
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := wk.Run(ctx); err != nil {
			w.Error(err)
		}
	})
	running.Go(func() { finder.Run(ctx) })
	w.stop = func() {
		cancel()
		running.Wait()
	}
}

func (w *world) do(_ context.Context, job *jobs.Job, progress *jobs.Progress) *jobs.RunOutcome {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.runs[job.ID]
	if len(progress.Attempts) == 0 {
		progress.Attempts = []jobs.Attempt{{Attempt: 1, Proxy: "p1"}}
		return &jobs.RunOutcome{Kind: jobs.RunScheduled, At: r.until, Progress: *progress}
	}
	if r.ran.IsZero() {
		r.ran, r.attempts = time.Now(), len(progress.Attempts)
	}
	return &jobs.RunOutcome{Kind: jobs.RunFinished, Result: jobs.Result{Outcome: jobs.Succeeded, FinishedAt: time.Now(), AttemptCount: len(progress.Attempts)}}
}

// submit publishes a job that waits for some seconds.
func (w *world) submit() {
	w.Helper()
	w.mu.Lock()
	id := fmt.Sprint("j", len(w.runs))
	w.runs[id] = &waited{until: time.Now().Add(2*time.Second + time.Duration(w.luck.IntN(20_000))*time.Millisecond)}
	w.mu.Unlock()
	w.retry("submit", func(ctx context.Context) error {
		_, err := client.New(w.client).Submit(ctx, jobs.Job{ID: id, URL: "http://shop.test/"})
		if errors.Is(err, client.ErrQueued) || errors.Is(err, client.ErrFinished) {
			return nil
		}
		return err
	})
}

// act does something to the cluster or to the worker.
func (w *world) act() {
	w.Helper()
	node := w.luck.IntN(3)
	switch what := w.luck.IntN(7); what {
	case 0:
		replicas := 4 - w.replicas
		w.note("scale to ", replicas)
		w.retry("scale", func(ctx context.Context) error {
			_, err := w.client.Apply(ctx, bus.Settings{AckWait: ackWait, Replicas: replicas})
			return err
		})
		w.replicas = replicas
		w.current()
	case 1:
		w.note("edit the stream")
		w.retry("edit", func(ctx context.Context) error {
			stream, err := w.js.Stream(ctx, "GOFER_RETRIES")
			if err != nil {
				return err
			}
			config := stream.CachedInfo().Config
			config.Description = fmt.Sprint(w.luck.Uint64())
			_, err = w.js.UpdateStream(ctx, config)
			return err
		})
	case 2:
		w.note("another leader")
		_, _ = w.nc.Request("$JS.API.STREAM.LEADER.STEPDOWN.GOFER_RETRIES", nil, 5*time.Second) // with one replica it is refused
	case 3:
		w.note("restart the worker")
		w.stop()
		w.start()
	case 4, 5, 6:
		w.note([]string{"kill ", "kill, with its timers, ", "kill, with its disk, "}[what-4], node)
		w.cluster.Kill(node)
		switch {
		case what == 5:
			w.cluster.ForgetTimers(node, "GOFER_RETRIES")
		case what == 6 && w.replicas == 3:
			w.cluster.Wipe(node)
		}
		w.cluster.Start(node)
		w.current()
	}
}

func (w *world) note(what ...any) { w.log = append(w.log, fmt.Sprint(what...)) }

// current waits until every replica of each stream has everything: a second fault is for then.
func (w *world) current() {
	w.Helper()
	w.retry("wait for the replicas", func(ctx context.Context) error {
		lister := w.js.ListStreams(ctx)
		n := 0
		for info := range lister.Info() {
			n++
			if info.Cluster == nil || info.Cluster.Leader == "" || len(info.Cluster.Replicas) != w.replicas-1 || info.Cluster.Desired != nil {
				return fmt.Errorf("%s has %+v", info.Config.Name, info.Cluster)
			}
			for _, r := range info.Cluster.Replicas {
				if !r.Current || r.Offline {
					return fmt.Errorf("%s: %s is behind", info.Config.Name, r.Name)
				}
			}
		}
		if n != 12 && lister.Err() == nil {
			return fmt.Errorf("%d streams answer", n)
		}
		return lister.Err()
	})
}

// done reports how many jobs have their result.
func (w *world) done() (n uint64) {
	stream, err := w.js.Stream(w.Context(), "GOFER_RESULTS")
	if err == nil {
		n = stream.CachedInfo().State.Msgs
	}
	return n
}

// TestWaitingJobsRunAtTheirTimeWhateverHappensToTheCluster takes the number of seeds from WAITING_SEEDS; -run with /seed_3 at its
// end runs one of them.
func TestWaitingJobsRunAtTheirTimeWhateverHappensToTheCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: it takes a minute")
	}
	seeds, err := strconv.ParseUint(os.Getenv("WAITING_SEEDS"), 10, 64)
	if err != nil {
		seeds = 1
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			w := newWorld(t, seed)
			w.start()
			defer func() { w.stop() }()
			for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
				for range 5 {
					w.submit()
				}
				w.act()
			}
			w.check()
		})
	}
}

// check waits for the jobs. With a grace of 2 s and a pass each second, what a server forgot is found much sooner than within
// the two minutes of a real fleet.
func (w *world) check() {
	w.Helper()
	n := uint64(len(w.runs))
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(2 * time.Minute); w.done() < n; <-tick.C {
		if time.Now().After(end) {
			w.Errorf("%d results are stored of %d jobs after two minutes", w.done(), n)
			w.diagnose()
			break
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var latest time.Duration
	for id, r := range w.runs {
		late := r.ran.Sub(r.until)
		latest = max(latest, late)
		switch {
		case r.ran.IsZero():
			w.Errorf("job %s of %s did not run", id, r.until.Format(time.TimeOnly))
		case late < 0:
			w.Errorf("job %s ran %s early", id, -late)
		case late > 2*time.Minute:
			w.Errorf("job %s ran %s late", id, late)
		case r.attempts != 1:
			w.Errorf("job %s knows of %d attempts after its wait, want 1", id, r.attempts)
		}
	}
	w.Logf("%d jobs, %d of them overdue, the latest by %s", n, w.found.Load(), latest.Round(time.Millisecond))
	if w.Failed() {
		w.Logf("what was done: %q", w.log)
	}
}

// diagnose logs where the jobs without a result are.
func (w *world) diagnose() {
	w.Helper()
	queues, err := client.New(w.client).Queues(w.Context())
	w.Logf("queues: %+v, %v", queues, err)
	for id := range w.runs {
		found, err := client.New(w.client).Find(w.Context(), client.Key{Queue: queue, ID: id})
		w.Logf("%s: %v, %v", id, found, err)
	}
	for _, name := range []string{"GOFER_JOBS", "GOFER_RETRIES", "GOFER_RESULTS"} {
		stream, err := w.js.Stream(w.Context(), name)
		if err != nil {
			w.Logf("%s: %v", name, err)
			continue
		}
		w.Logf("%s: %+v", name, stream.CachedInfo().State)
		for info := range stream.ListConsumers(w.Context()).Info() {
			w.Logf("%s: %+v, %+v", name, info, info.Cluster)
		}
	}
}
