package release_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker"
	"github.com/gofer-mq/gofer/worker/release"
	"github.com/gofer-mq/gofer/worker/stream"
)

// world is a server, workers whose jobs all ask one site, and that site.
type world struct {
	*testing.T
	connect func() *nats.Conn
	names   jobs.Names
	down    atomic.Bool // the site rests: a job that was not released waits for it
	told    chan string // the sites of which a worker told that jobs wait for them

	mu      sync.Mutex
	running map[string]bool
	ended   map[string]int
	tests   int // released jobs that asked the site while it rested
	now     int // jobs that ask the site now, and the most at the same time while it rested
	most    int
	early   []string // jobs that asked while others did in the test, or ran twice at the same time
}

func newWorld(t *testing.T, connect func() *nats.Conn, s bus.Settings) *world {
	t.Helper()
	w := &world{T: t, connect: connect, running: map[string]bool{}, ended: map[string]int{}, told: make(chan string, 1)}
	var err error
	if w.names, err = jobs.NewNames(""); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the streams to be made", func() bool { return w.client().Ensure(t.Context(), s) == nil })
	return w
}

func (w *world) client() *stream.Client {
	w.Helper()
	b, err := bus.New(w.connect(), w.names)
	if err != nil {
		w.Fatal(err)
	}
	return stream.New(b)
}

// work runs a worker until stop is called.
func (w *world) work(name string) (stop func()) {
	w.Helper()
	return w.workIn(name, "default")
}

// workIn is work for some queues.
func (w *world) workIn(name string, names ...string) (stop func()) {
	w.Helper()
	var queues []worker.Queue
	for _, queue := range names {
		queues = append(queues, worker.Queue{Name: queue})
	}
	wk, err := worker.New(worker.Config{
		Client: w.client().Client, Queues: queues, Concurrency: 32, Do: w.do, Log: slog.New(slog.DiscardHandler), Name: name,
		DrainTimeout: 10 * time.Second,
		WaitForSite: func(site string) bool {
			select {
			case w.told <- site:
			default:
			}
			return true
		},
	})
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := wk.Run(ctx); err != nil {
			w.Error(err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	w.Cleanup(stop)
	return stop
}

// do asks the site, unless it rests and the job was not released.
func (w *world) do(_ context.Context, job *jobs.Job, progress *jobs.Progress) *jobs.RunOutcome {
	down := w.down.Load()
	if progress.SiteSince.IsZero() {
		progress.SiteSince = time.Now().UTC()
	}
	released := progress.Released
	progress.Released = false
	wait := &jobs.RunOutcome{Kind: jobs.RunScheduled, At: time.Now().Add(time.Hour), Progress: *progress, Wait: &jobs.SiteWait{Site: site}}
	if down && !released {
		return wait
	}
	w.enter(job.ID, down)
	defer w.leave(job.ID)
	if down {
		return wait // the test fails
	}
	return &jobs.RunOutcome{Kind: jobs.RunFinished, Result: jobs.Result{Outcome: jobs.Succeeded, FinishedAt: time.Now(), AttemptCount: 1}}
}

func (w *world) enter(id string, test bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now++
	if test {
		w.tests++
		w.most = max(w.most, w.now)
	}
	if w.running[id] {
		w.early = append(w.early, id+" ran twice at the same time")
	}
	w.running[id] = true
}

func (w *world) leave(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now--
	delete(w.running, id)
	w.ended[id]++
}

// waiting counts the jobs that wait for the site.
func (w *world) waiting(c *stream.Client) int {
	n, err := c.CountFrom(w.Context(), "RETRIES", w.names.AllSiteWaits(jobs.SiteKey(site)), 1)
	if err != nil {
		return -1 // no server leads the stream now
	}
	return int(n)
}

func (w *world) results(c *stream.Client) int {
	state, err := c.StateOf(w.Context(), "RESULTS")
	if err != nil {
		return 0 // no server leads the stream now
	}
	return int(state.Messages)
}

// bounded is a stream that counts released jobs. The lock of w guards the counts.
type bounded struct {
	*stream.Client
	w        *world
	released int
	most     int // on their way at the same time
	ahead    int // the largest excess of the released jobs over twice those that have ended
}

func (b *bounded) ReleaseAtSite(ctx context.Context, job bus.WaitingJob) (uint64, error) {
	seq, err := b.Client.ReleaseAtSite(ctx, job)
	if seq != 0 {
		b.w.mu.Lock()
		defer b.w.mu.Unlock()
		b.released++
		ended := 0
		for _, runs := range b.w.ended {
			ended += runs
		}
		b.most = max(b.most, b.released-ended)
		b.ahead = max(b.ahead, b.released-2*ended)
	}
	return seq, err
}

const many = 3000

func TestThousandsOfJobsWaitForASiteAndComeBackOnceEach(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.StartNATS(t, nil).Connect, bus.Settings{})
	w.down.Store(true)
	c := w.client()
	w.work("w1")
	stop2 := w.work("w2")
	w.submit(many)
	w.reach("jobs that wait for the site", many, func() int { return w.waiting(c) })
	if told := <-w.told; told != site {
		t.Errorf("the leader hears of %s, want %s", told, site)
	}
	v := &view{}
	v.set(release.Site{Rests: true, Since: time.Now(), Until: time.Now()})
	stream := &bounded{Client: c, w: w}
	stopLeader := w.lead(stream, v)
	testenv.Eventually(t, "some tests", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.tests >= 3 })
	stopLeader() // the leader dies
	w.mu.Lock()
	if w.most != 1 || stream.most > 2 { // a job that has ended is acked a moment later
		t.Errorf("%d jobs tested the site at the same time, %d were released at the same time; want one", w.most, stream.most)
	}
	w.mu.Unlock()
	w.down.Store(false)
	v.set(release.Site{Returns: true})
	stopLeader = w.lead(stream, v)
	t.Cleanup(stopLeader)
	w.reach("results", many/2, func() int { return w.results(c) })
	stop2() // a worker ends
	w.reach("results", many, func() int { return w.results(c) })
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.early) > 0 {
		t.Errorf("%d jobs: %v", len(w.early), w.early[:min(5, len(w.early))])
	}
	// The first leader and the second one begin with one job each, and one more follows for each that has ended.
	if stream.ahead > 2 {
		t.Errorf("%d jobs more than two for each that had ended were released, want the two of the beginnings", stream.ahead)
	}
	if n := w.waiting(c); n != 0 {
		t.Errorf("%d jobs still wait", n)
	}
}

// lead runs a releaser until stop is called.
func (w *world) lead(s *bounded, v *view) (stop func()) {
	r := release.New(release.Config{Site: v.site, MaxWait: maxWait, Log: slog.New(slog.DiscardHandler)})
	r.NoteWaiting(jobs.SiteKey(site), site, 0)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx, s) })
	return func() {
		cancel()
		running.Wait()
	}
}

// submit publishes n jobs.
func (w *world) submit(n int) {
	w.Helper()
	submit := client.New(w.client().Client)
	for i := range n {
		id := fmt.Sprint("j", i)
		testenv.Eventually(w.T, "job "+id+" to be taken", func() bool {
			_, err := submit.Submit(w.Context(), jobs.Job{ID: id, URL: "http://" + site + "/"})
			return err == nil || errors.Is(err, client.ErrQueued) || errors.Is(err, client.ErrFinished)
		})
	}
}

// reach waits until a number is reached, for as long as it grows.
func (w *world) reach(what string, want int, count func() int) {
	w.Helper()
	for n := count(); n < want; n = count() {
		testenv.Eventually(w.T, fmt.Sprint("more than ", n, " of ", want, " ", what), func() bool { return count() > n })
	}
}

// TestNoJobOfASiteIsLostWhenServersAreKilled kills each server of a cluster once while jobs come back.
func TestNoJobOfASiteIsLostWhenServersAreKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: it takes a minute")
	}
	cluster := testenv.StartKillable(t)
	w := newWorld(t, cluster.Connect, bus.Settings{Replicas: 3, AckWait: 3 * time.Second})
	w.down.Store(true)
	c := w.client()
	w.work("w1")
	w.work("w2")
	const count = 300
	w.submit(count)
	w.reach("jobs that wait for the site", count, func() int { return w.waiting(c) })
	v := &view{}
	v.set(release.Site{Rests: true, Since: time.Now(), Until: time.Now()})
	stop := w.lead(&bounded{Client: c, w: w}, v)
	defer stop()
	for i := range 3 {
		if i == 1 {
			w.down.Store(false)
			v.set(release.Site{Returns: true})
		}
		cluster.Kill(i)
		cluster.Start(i)
		cluster.Ready()
		if i > 0 {
			w.reach("results", count*i/4, func() int { return w.results(c) })
		}
	}
	w.reach("results", count, func() int { return w.results(c) })
	w.reach("streams without a waiting job", 1, func() int {
		if w.waiting(c) == 0 {
			return 1
		}
		return 0
	})
}

func TestMain(m *testing.M) { testenv.Main(m) }
