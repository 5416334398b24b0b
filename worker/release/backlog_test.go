package release_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/release"
)

const site = "shop.test"

// model is a stream whose jobs all wait for one site, and the workers that run what is released.
type model struct {
	t   *testing.T
	run func(id string, released time.Time) (again bool) // how a released job ends, after took
	// took is how long a released job takes, and tookBy how long some of them do.
	took   time.Duration
	tookBy map[string]time.Duration
	slow   time.Duration // how long a read takes
	// slowRelease is how long a release takes, and failure what becomes of it instead; nil for none.
	slowRelease time.Duration
	failure     func() error
	payload     []byte // of each job

	log testenv.Log // of the releaser

	mu       sync.Mutex
	unknown  map[string]error // of the question whether a job waits again, by id
	refused  map[string]int   // how often jobs were to be released that nobody can release, by id
	lag      time.Duration    // how much later due jobs are shown
	hidden   map[string]bool  // jobs that a replica which lags does not show among others, by id
	stuck    map[string]int   // how often jobs were to be released that are shown though they are gone, by id
	waits    []waiting
	refusal  error             // of every read, if not nil
	lanes    map[string]*lane  // by queue; without any every queue is served, and nobody may list them
	lying    map[uint64]func() // due jobs that nobody takes, and what takes them
	last     uint64
	due      map[uint64]time.Time // when they were released
	reads    int
	asked    int // messages that were asked for by their sequences
	released []string
	at       []time.Time
	most     int // jobs on their way at the same time
	// releasing are the releases under way, and mostReleasing the most of them.
	releasing, mostReleasing int
}

// waiting is a job that waits; an empty site means site.
type waiting struct {
	queue, id string
	seq       uint64
	since     time.Time
	site      string
}

// lane is a queue: whether it is paused, whether a worker serves it, and what was taken of its due jobs.
type lane struct {
	paused, idle bool
	delivered    uint64
	pending      map[uint64]bool
}

func newModel(t *testing.T, n int) *model {
	t.Helper()
	m := &model{t: t, lying: map[uint64]func(){}, due: map[uint64]time.Time{}, took: 100 * time.Millisecond, run: func(string, time.Time) bool { return false }}
	for i := range n {
		m.wait(fmt.Sprint("j", i), time.Now())
	}
	return m
}

// wait adds a job. The caller holds the lock, or is alone.
func (m *model) wait(id string, since time.Time) {
	m.waitIn("default", id, since)
}

func (m *model) waitIn(queue, id string, since time.Time) {
	m.last++
	m.waits = append(m.waits, waiting{queue: queue, id: id, seq: m.last, since: since})
}

func (m *model) NextSiteWait(ctx context.Context, key string, after uint64) (bus.WaitingJob, bool, error) {
	time.Sleep(m.slow)
	return m.NextSiteWaitOfQueue(ctx, key, "", after)
}

func (m *model) NextSiteWaitOfQueue(_ context.Context, key, queue string, after uint64) (bus.WaitingJob, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	if m.refusal != nil {
		return bus.WaitingJob{}, false, m.refusal
	}
	for _, w := range m.waits {
		if w.seq > after && key == jobs.SiteKey(cmp.Or(w.site, site)) && (queue == "" || queue == w.queue) {
			return m.job(w), true, nil
		}
	}
	return bus.WaitingJob{}, false, nil
}

func (m *model) StillWaiting(_ context.Context, seqs []uint64, use func(bus.WaitingJob)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	m.asked += len(seqs)
	if m.refusal != nil {
		return m.refusal
	}
	for _, w := range m.waits { // in the order of the sequences
		if slices.Contains(seqs, w.seq) && !m.hidden[w.id] {
			use(m.job(w))
		}
	}
	return nil
}

func (m *model) DueConsumers(context.Context) (list []bus.DueConsumer, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lanes == nil {
		return nil, bus.ErrPermission
	}
	for queue, l := range m.lanes {
		list = append(list, bus.DueConsumer{Queue: queue, Paused: l.paused, Pending: int64(len(l.pending)), Delivered: l.delivered})
	}
	return list, nil
}

// serve changes how a queue is served.
func (m *model) serve(queue string, change func(*lane)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lanes == nil {
		m.lanes = map[string]*lane{}
	}
	l := m.lanes[queue]
	if l == nil {
		l = &lane{pending: map[uint64]bool{}}
		m.lanes[queue] = l
	}
	if change(l); l.paused || l.idle {
		return
	}
	for _, seq := range slices.Sorted(maps.Keys(l.pending)) {
		m.lying[seq]()
	}
}

func (m *model) job(w waiting) bus.WaitingJob {
	progress, err := json.Marshal(jobs.Progress{SiteSince: w.since})
	if err != nil {
		m.t.Fatal(err)
	}
	job, err := bus.WaitingJobOf(&nats.Msg{Data: m.payload, Header: nats.Header{
		jetstream.SubjectHeader:  {"_gofer.at.SITE." + jobs.SiteKey(cmp.Or(w.site, site)) + "." + w.queue + "." + w.id},
		jetstream.SequenceHeader: {fmt.Sprint(w.seq)}, jobs.HeaderProgress: {string(progress)},
	}})
	if err != nil {
		m.t.Fatal(err)
	}
	return job
}

func (m *model) ReleaseAtSite(_ context.Context, job bus.WaitingJob) (uint64, error) {
	m.mu.Lock()
	m.releasing++
	m.mostReleasing = max(m.mostReleasing, m.releasing)
	m.mu.Unlock()
	time.Sleep(m.slowRelease)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.releasing--
	if m.failure != nil {
		if err := m.failure(); err != nil {
			return 0, err
		}
	}
	i := slices.IndexFunc(m.waits, func(w waiting) bool { return w.seq == job.Seq })
	if i < 0 {
		return 0, nil
	}
	w := m.waits[i]
	if _, refused := m.refused[w.id]; refused {
		m.refused[w.id]++
		return 0, fmt.Errorf("release waiting job: %w", bus.ErrTooLarge)
	}
	if n, stuck := m.stuck[w.id]; stuck {
		m.stuck[w.id]++
		if n >= 1000 {
			return 0, errors.New("too often") // in virtual time, a loop without a pause would never end
		}
		return 0, nil
	}
	m.waits = slices.Delete(m.waits, i, i+1)
	m.last++
	seq := m.last
	m.due[seq] = time.Now()
	m.most = max(m.most, len(m.due))
	m.released, m.at = append(m.released, w.id), append(m.at, time.Now())
	now := time.Now()
	took, own := m.tookBy[w.id]
	if !own {
		took = m.took
	}
	take := func() {
		time.AfterFunc(took, func() {
			again := m.run(w.id, now)
			m.mu.Lock()
			defer m.mu.Unlock()
			delete(m.due, seq)
			if again {
				m.waitIn(w.queue, w.id, w.since)
			}
		})
	}
	if m.lanes == nil {
		take()
		return seq, nil
	}
	l := m.lanes[w.queue]
	if l == nil {
		l = &lane{idle: true, pending: map[uint64]bool{}} // nobody knows it
	}
	l.pending[seq] = true
	m.lying[seq] = func() {
		delete(l.pending, seq)
		delete(m.lying, seq)
		l.delivered = seq
		take()
	}
	if !l.paused && !l.idle {
		m.lying[seq]()
	}
	return seq, nil
}

func (m *model) StillDue(_ context.Context, seqs []uint64) (map[uint64]bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	there := map[uint64]bool{}
	for _, seq := range seqs {
		if released, due := m.due[seq]; due && time.Since(released) >= m.lag {
			there[seq] = true
		}
	}
	return there, nil
}

func (m *model) WaitAgain(_ context.Context, released map[uint64]bus.Key) (map[uint64]bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	again := map[uint64]bool{}
	for due, key := range released {
		if err := m.unknown[key.ID]; err != nil {
			return nil, err
		}
		again[due] = slices.ContainsFunc(m.waits, func(w waiting) bool { return w.id == key.ID })
	}
	return again, nil
}

func (m *model) count() (reads, released, most int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reads, len(m.released), m.most
}

// history is which jobs were released so far, and when.
func (m *model) history() (ids []string, at []time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.released), slices.Clone(m.at)
}

// view is what the leader's worker knows of the site.
type view struct {
	mu   sync.Mutex
	now  release.Site
	look func() release.Site // replaces now, if not nil
}

func (v *view) set(s release.Site) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.now = s
}

func (v *view) site(string) release.Site {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.look != nil {
		return v.look()
	}
	return v.now
}

const maxWait = 3 * time.Minute

// lead runs a releaser on the model until the test ends.
func lead(t *testing.T, m *model, v *view) (r *release.Releaser, stop func()) {
	t.Helper()
	r = release.New(release.Config{Site: v.site, MaxWait: maxWait, Log: slog.New(slog.NewTextHandler(&m.log, nil))})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx, m) })
	r.NoteWaiting(jobs.SiteKey(site), site, 0)
	return r, func() {
		cancel()
		running.Wait()
		time.Sleep(m.took) // what was released ends
	}
}

func TestWaitingJobsOfARestingSiteAreLookedAtOnceUntilItsTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, v := newModel(t, 1000), &view{}
		v.set(release.Site{Rests: true, Since: time.Now(), Until: time.Now().Add(5 * time.Minute)})
		_, stop := lead(t, m, v)
		defer stop()
		time.Sleep(5*time.Minute - time.Second)
		if reads, released, _ := m.count(); released != 0 || reads > 10 {
			t.Errorf("%d jobs released after %d reads in the rest, want none after a few", released, reads)
		}
		time.Sleep(2 * time.Second)
		if _, released, most := m.count(); released == 0 || most != 1 {
			t.Errorf("%d jobs released after the rest, at most %d at the same time; want one at a time", released, most)
		}
	})
}

func TestOneJobTestsTheSiteAndTheOthersWaitForItsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, v := newModel(t, 100), &view{}
		m.took = 10 * time.Second
		v.set(release.Site{Rests: true, Since: time.Now(), Until: time.Now().Add(time.Second)})
		_, stop := lead(t, m, v)
		defer stop()
		time.Sleep(10 * time.Second)
		if released, _ := m.history(); !slices.Equal(released, []string{"j0"}) {
			t.Errorf("released %v while the test runs, want the oldest job alone", released)
		}
	})
}

// countAnswers lets each released job end with an answer, and fails the test if more jobs are on their way than answers allow.
func (m *model) countAnswers() {
	ended := 0
	m.run = func(string, time.Time) bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		ended++
		if len(m.due) > ended+1 {
			m.t.Errorf("%d jobs are on their way after %d answers", len(m.due), ended)
		}
		return false
	}
}

func TestJobsComeBackOneMoreForEachAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, v := newModel(t, 20_000), &view{}
		v.set(release.Site{Returns: true})
		m.countAnswers()
		_, stop := lead(t, m, v)
		defer stop()
		time.Sleep(time.Minute)
		if _, released, most := m.count(); released != 20_000 || most != 8192 {
			t.Errorf("%d of 20000 jobs released in a minute, at most %d at the same time; want all, and 8192", released, most)
		}
	})
}

// A site that was new has answered, and the leader asks it with hundreds of jobs at once.
func TestTwiceAsManyJobsComeBackAsASiteBearsAlready(t *testing.T) {
	for load, want := range map[int]int{0: 8, 600: 1200, 5000: 8192} {
		synctest.Test(t, func(t *testing.T) {
			m, v := newModel(t, 10_000), &view{}
			m.took = time.Hour
			v.set(release.Site{Load: load})
			_, stop := lead(t, m, v)
			defer stop()
			time.Sleep(time.Second)
			if _, released, _ := m.count(); released != want {
				t.Errorf("with %d attempts under way %d jobs are released, want %d", load, released, want)
			}
		})
	}
}

func TestJobsThatComeBackSlowTheReleaseDownWhateverTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, v := newModel(t, 3000), &view{}
		m.run = func(string, time.Time) bool { return true }
		v.set(release.Site{Load: 10})
		_, stop := lead(t, m, v)
		defer stop()
		time.Sleep(2 * time.Minute)
		if _, released, _ := m.count(); released == 0 || released > 50 {
			t.Errorf("%d jobs released in two minutes although each comes back, want one in five seconds", released)
		}
	})
}

// A replica that is behind its leader does not know yet what was released. That is no answer of the site.
func TestAJobThatIsNotShownYetCountsAsOneOnItsWay(t *testing.T) {
	for name, returns := range map[string]bool{"test of a site that rests": false, "site that returns": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, v := newModel(t, 500), &view{}
				m.lag, m.took = 150*time.Millisecond, time.Second
				m.countAnswers()
				v.set(release.Site{Rests: !returns, Since: time.Now(), Until: time.Now(), Returns: returns})
				_, stop := lead(t, m, v)
				defer stop()
				time.Sleep(time.Minute)
				_, released, most := m.count()
				if !returns && most != 1 {
					t.Errorf("%d jobs tested the site at the same time, want one", most)
				}
				if returns && released != 500 {
					t.Errorf("%d of 500 jobs released in a minute", released)
				}
			})
		})
	}
}

func TestJobsThatComeBackInVainSlowTheReleaseDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, v := newModel(t, 100), &view{}
		m.run = func(string, time.Time) bool { return true }
		_, stop := lead(t, m, v)
		defer stop()
		time.Sleep(time.Minute)
		_, before, _ := m.count()
		time.Sleep(time.Minute)
		_, after, _ := m.count()
		if n := after - before; n == 0 || n > 15 {
			t.Errorf("%d jobs released in the second minute although each comes back, want one in five seconds", n)
		}
	})
}

// A new site has room for four jobs, and each takes a moment until a worker asks the site with it.
func TestAJobOfANewSiteIsReleasedWhenThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t, 40)
		m.took = 3 * time.Second
		asking := func() (n int) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, at := range m.due {
				if time.Since(at) >= 50*time.Millisecond {
					n++
				}
			}
			return n
		}
		v := &view{look: func() release.Site { return release.Site{New: true, Room: max(0, 4-asking())} }}
		_, stop := lead(t, m, v)
		defer stop()
		time.Sleep(time.Minute)
		if _, released, most := m.count(); released != 40 || most != 4 {
			t.Errorf("%d of 40 jobs released in a minute, at most %d at the same time; want all, and four", released, most)
		}
	})
}

func TestNoJobOfANewSiteWithoutRoomIsReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, v := newModel(t, 40), &view{}
		v.set(release.Site{New: true})
		_, stop := lead(t, m, v)
		defer stop()
		time.Sleep(time.Minute)
		if reads, released, _ := m.count(); released != 0 || reads > 150 {
			t.Errorf("%d jobs released after %d reads in a minute without room, want none after few", released, reads)
		}
		v.set(release.Site{})
		time.Sleep(time.Minute)
		if _, released, _ := m.count(); released != 40 {
			t.Errorf("%d of 40 jobs released after the site answered, want all", released)
		}
	})
}

func TestJobsThatWaitedForTooLongGoBeforeTheNextTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, v := newModel(t, 0), &view{}
		began := time.Now()
		m.wait("old", began)
		m.wait("older than the test", began.Add(time.Minute))
		m.wait("young", began.Add(90*time.Second))
		m.took = time.Second
		failed := began.Add(80 * time.Second)
		time.Sleep(2 * time.Minute)
		v.set(release.Site{Rests: true, Since: began, Failed: failed, Until: began.Add(10 * time.Minute)})
		_, stop := lead(t, m, v)
		defer stop()
		time.Sleep(7 * time.Minute)
		released, at := m.history()
		if want := []string{"old", "older than the test"}; !slices.Equal(released, want) {
			t.Fatalf("released %v, want %v: only these saw the test fail", released, want)
		}
		for i, since := range []time.Time{began, began.Add(time.Minute)} {
			if late := at[i].Sub(since.Add(maxWait)); late < 0 || late > 2*time.Second {
				t.Errorf("%s is released %s after its longest wait", released[i], late)
			}
		}
	})
}

func TestAJobThatNeverEndsDoesNotStopTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, v := newModel(t, 3), &view{}
		m.took = time.Hour
		v.set(release.Site{Returns: true})
		_, stop := lead(t, m, v)
		defer stop()
		time.Sleep(2 * time.Minute)
		if _, released, _ := m.count(); released < 2 {
			t.Errorf("%d jobs released within two minutes, want the next one after a minute", released)
		}
	})
}

// A publisher with a few slow URLs at a site must not hold up the jobs of others there.
func TestSlowJobsHoldNoPlaceOfThoseThatEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, v := newModel(t, 2500), &view{}
		v.set(release.Site{Returns: true})
		m.tookBy = map[string]time.Duration{}
		for i := range 40 { // when the window has grown
			m.tookBy[fmt.Sprint("j", 600+i)] = 50 * time.Second
		}
		_, stop := lead(t, m, v)
		defer func() {
			stop()
			time.Sleep(time.Minute) // the slow ones end
		}()
		time.Sleep(40 * time.Second)
		if _, released, most := m.count(); released != 2500 || most > 2048 {
			t.Errorf("%d of 2500 jobs released while 40 are slow, at most %d at the same time; want all, and 2048", released, most)
		}
	})
}

func TestAnAnswerCountsOnceAlsoIfAnotherOneIsNotKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, v := newModel(t, 500), &view{}
		v.set(release.Site{Returns: true})
		m.countAnswers()
		m.unknown = map[string]error{"j2": errors.New("no answer")} // j1 ends at the same time
		_, stop := lead(t, m, v)
		defer stop()
		time.Sleep(30 * time.Second)
		m.mu.Lock()
		m.unknown = nil
		m.mu.Unlock()
		time.Sleep(time.Minute)
		if _, released, _ := m.count(); released != 500 {
			t.Errorf("%d of 500 jobs released, want all once the error is over", released)
		}
	})
}

// A replica behind its leader shows jobs that are gone. A job whose due message is still there cannot be released either.
func TestAJobThatIsShownThoughGoneIsTriedOnceALook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, v := newModel(t, 100), &view{}
		m.stuck = map[string]int{"j0": 0, "j50": 0}
		r, stop := lead(t, m, v)
		defer stop()
		time.Sleep(30 * time.Second)
		m.mu.Lock()
		for id, n := range m.stuck {
			if n < 10 || n > 100 {
				t.Errorf("%s was tried %d times in 30 s, want about once a second", id, n)
			}
		}
		m.stuck = nil
		m.mu.Unlock()
		if n := r.Sites(); n != 1 {
			t.Error("the site is forgotten while jobs are shown")
		}
		time.Sleep(5 * time.Second)
		if _, released, _ := m.count(); released != 100 {
			t.Errorf("%d of 100 jobs released, want all", released)
		}
	})
}

func TestJobsThatCanNeverBeReleasedHoldUpNoOther(t *testing.T) {
	for name, behind := range map[string]bool{"alone": false, "behind a job of a queue that nobody serves": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, v := newModel(t, 0), &view{}
				if behind {
					m.serve("paused", func(l *lane) { l.paused = true })
					m.serve("default", func(*lane) {})
					m.waitIn("paused", "p", time.Now())
				}
				for i := range 100 {
					m.wait(fmt.Sprint("j", i), time.Now())
				}
				m.refused = map[string]int{"j0": 0, "j50": 0, "j51": 0, "j99": 0}
				_, stop := lead(t, m, v)
				defer stop()
				time.Sleep(10 * time.Second)
				m.mu.Lock()
				m.wait("later", time.Now())
				m.mu.Unlock()
				time.Sleep(2 * time.Minute)
				if _, released, _ := m.count(); released != 97 {
					t.Errorf("%d jobs released, want all 97 that can be", released)
				}
				m.mu.Lock()
				defer m.mu.Unlock()
				for id, n := range m.refused {
					if n != 1 {
						t.Errorf("%s was tried %d times, want once", id, n)
					}
				}
				if n := strings.Count(m.log.String(), "cannot be released"); n != 1 {
					t.Errorf("%d lines of the log name it, want one: %s", n, m.log.String())
				}
			})
		})
	}
}

func TestASiteWithoutJobsIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, v := newModel(t, 5), &view{}
		r, stop := lead(t, m, v)
		defer stop()
		time.Sleep(time.Minute)
		if n := r.Sites(); n != 0 {
			t.Errorf("%d sites are known, want none", n)
		}
		m.mu.Lock()
		m.wait("later", time.Now())
		m.mu.Unlock()
		r.NoteWaiting(jobs.SiteKey(site), site, 0)
		time.Sleep(time.Second)
		if _, released, _ := m.count(); released != 6 {
			t.Errorf("%d jobs released, want the later one as well", released)
		}
	})
}

func TestANewLeaderKnowsWhatWasToldBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, v := newModel(t, 5), &view{}
		r := release.New(release.Config{Site: v.site, MaxWait: maxWait, Log: slog.New(slog.DiscardHandler)})
		r.NoteWaiting(jobs.SiteKey(site), site, 30*time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { r.Run(ctx, m) })
		time.Sleep(time.Second)
		cancel()
		running.Wait()
		if _, released, _ := m.count(); released != 5 {
			t.Errorf("%d of 5 jobs released", released)
		}
	})
}
