package waiting_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/stream"
	"github.com/gofer-mq/gofer/worker/waiting"
)

// world is an installation whose jobs wait.
type world struct {
	*testing.T
	nats   *testenv.NATS
	bus    *bus.Client
	stream *stream.Client
	luck   *rand.Rand
	n      int          // jobs so far
	open   []client.Key // jobs that wait
}

func newWorld(t *testing.T) *world {
	t.Helper()
	names, err := jobs.NewNames("")
	if err != nil {
		t.Fatal(err)
	}
	server := testenv.StartNATS(t, nil)
	b, err := bus.New(server.Connect(), names)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, nats: server, bus: b, stream: stream.New(b), luck: rand.New(rand.NewPCG(1, 2))}
	w.must(b.Ensure(w.soon(), bus.Settings{Queues: []string{"default", "low"}}))
	return w
}

// counter makes a Counter whose counts end when all is read: on a busy machine that may take longer than the default budget.
func (w *world) counter(c waiting.Config) *waiting.Counter {
	c.Budget = time.Hour
	return waiting.NewCounter(w.bus, c)
}

func (w *world) soon() context.Context {
	ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
	w.Cleanup(cancel)
	return ctx
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

var sites = []string{"shop.test", "captcha.test", "gone.test:8443"}

// park lets a job wait in a state for an hour.
func (w *world) park(state string) {
	w.Helper()
	w.n++
	key := client.Key{Queue: []string{"default", "low"}[w.luck.IntN(2)], ID: fmt.Sprint("j", w.n)}
	site := sites[w.luck.IntN(len(sites))]
	since := time.Now().Add(-time.Duration(w.n) * time.Second)
	p := jobs.Progress{JobSeq: uint64(w.n)}
	switch state {
	case jobs.StateRetrying:
		p.Attempts = []jobs.Attempt{{Attempt: 1, Proxy: "p1"}}
	case jobs.StateNoProxy:
		p.WaitingSince, p.Why = since, "31 of 37 proxies cool down"
	case jobs.StateSiteDown:
		p.SiteSince = since
		_, err := w.stream.WaitForSite(w.soon(), site, key.Queue, key.ID, 0, []byte("http://"+site+"/"), &p, time.Now().Add(time.Hour))
		w.must(err)
		w.open = append(w.open, key)
		return
	}
	_, err := w.stream.Schedule(w.soon(), key.Queue, key.ID, []byte("http://"+site+"/"), &p, time.Now().Add(time.Hour))
	w.must(err)
	w.open = append(w.open, key)
}

// parkMany lets jobs wait in all states.
func (w *world) parkMany(n int) {
	w.Helper()
	states := []string{jobs.StateDelayed, jobs.StateRetrying, jobs.StateNoProxy, jobs.StateSiteDown}
	for range n {
		w.park(states[w.luck.IntN(len(states))])
	}
}

// remove ends the wait of jobs: as a cancel does, and as a release does.
func (w *world) remove(from, to int) {
	w.Helper()
	for i, key := range w.open[from:to] {
		job, found, err := w.bus.SiteWait(w.soon(), key, 0)
		w.must(err)
		switch {
		case found && i%2 == 0:
			_, err := w.stream.ReleaseAtSite(w.soon(), job)
			w.must(err)
		default:
			w.must(w.stream.RemoveScheduled(w.soon(), key.Queue, key.ID))
		}
	}
	w.open = slices.Delete(w.open, from, to)
	testenv.AwaitCounts(w.T, w.bus.JetStream(), "GOFER_RETRIES") // released jobs are due
}

// check compares a count with a list of all jobs.
func (w *world) check(what string, s waiting.Snapshot) {
	w.Helper()
	want := map[string]uint64{}
	w.must(client.New(w.bus).List(w.soon(), client.ListFilter{}, func(job client.Listed) error {
		want[job.Queue+" "+job.State]++
		return nil
	}))
	got := map[string]uint64{}
	for _, q := range s.Queues {
		for _, state := range jobs.States() {
			if n := q.Count(state); n > 0 {
				got[q.Queue+" "+state] = n
			}
			if _, found := q.Since[state]; found != (q.Count(state) > 0) {
				w.Errorf("%s: the oldest job of %s %s is known: got %t, and %d jobs", what, q.Queue, state, found, q.Count(state))
			}
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func (w *world) count(c *waiting.Counter) waiting.Snapshot {
	w.Helper()
	s, err := c.Count(w.soon())
	w.must(err)
	return s
}

// submit stores a job, and waits until the consumer of its queue counts it.
func (w *world) submit(queue string) {
	w.Helper()
	w.store(queue)
	testenv.AwaitCounts(w.T, w.bus.JetStream(), "GOFER_JOBS")
}

// store stores a job. The consumer of its queue may not count it yet.
func (w *world) store(queue string) {
	w.Helper()
	w.n++
	_, err := client.New(w.bus).Submit(w.soon(), jobs.Job{Queue: queue, ID: fmt.Sprint("j", w.n), URL: "http://shop.test/"})
	w.must(err)
}

// TestEveryStateIsCountedWhateverBecomesOfTheJobs removes jobs without telling the counter: one by one, and in rows that are
// longer than what it reads at once.
func TestEveryStateIsCountedWhateverBecomesOfTheJobs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.counter(waiting.Config{Worker: "w1"})
	w.check("nothing waits", w.count(c))
	w.parkMany(1500)
	w.submit("default")
	w.submit("low")
	s := w.count(c)
	w.check("1,500 jobs wait", s)
	if s.Unread != 0 || s.Worker != "w1" {
		t.Errorf("got %d unread jobs, counted by %q, want none, by w1", s.Unread, s.Worker)
	}
	w.remove(700, 1300)
	w.check("a row of jobs is gone", w.count(c))
	for range 40 {
		i := w.luck.IntN(len(w.open))
		w.remove(i, i+1)
	}
	w.parkMany(30)
	w.check("jobs here and there are gone, and others came", w.count(c))
	w.remove(0, len(w.open))
	w.check("all are gone", w.count(c))
}

// TestACounterThatStartsLaterCountsTheSame has what a new leader finds.
func TestACounterThatStartsLaterCountsTheSame(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.parkMany(300)
	w.remove(100, 150)
	w.check("first count", w.count(w.counter(waiting.Config{})))
}

// TestJobsThatAreGoneAmongOverlookedOnesAreForgotten: the search that finds the overlooked jobs leaves no entry of a job that is
// gone, or the count is too high.
func TestJobsThatAreGoneAmongOverlookedOnesAreForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.parkMany(10)
	c := w.counter(waiting.Config{})
	w.check("all", w.count(c))
	c.Overlook(7)
	w.remove(2, 4)
	w.check("two gone, three overlooked", w.count(c))
}

func TestMoreJobsThanACounterRemembersAreSaidToBeThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.counter(waiting.Config{MaxJobs: 100})
	for range 130 {
		w.park(jobs.StateDelayed)
	}
	s := w.count(c)
	var counted uint64
	for _, q := range s.Queues {
		counted += q.Waiting()
	}
	if counted != 100 || s.Unread != 30 {
		t.Errorf("got %d counted and %d unread jobs, want 100 and 30", counted, s.Unread)
	}
	w.remove(0, 60)
	w.count(c) // finds the room
	if s := w.count(c); s.Unread != 0 {
		t.Errorf("got %d unread jobs when there is room, want none", s.Unread)
	} else {
		w.check("there is room again", s)
	}
}

// TestACostlySearchIsFollowedByARest: what is gone meanwhile counts until the rest is over. Many jobs are found without a search.
func TestACostlySearchIsFollowedByARest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.counter(waiting.Config{QuestionCost: time.Hour})
	for range 600 {
		w.park(jobs.StateDelayed)
	}
	waitingAfter := func(from, to int) (n uint64) {
		w.remove(from, to)
		for _, q := range w.count(c).Queues {
			n += q.Waiting()
		}
		return n
	}
	for _, step := range []struct {
		from, to int
		want     uint64
	}{{0, 0, 600}, {10, 11, 599}, {10, 11, 599}, {10, 310, 298}} {
		if got := waitingAfter(step.from, step.to); got != step.want {
			t.Errorf("after %d jobs are gone: got %d jobs, want %d", step.to-step.from, got, step.want)
		}
	}
}

// TestJobsThatWaitForOneThingAreOneReason: the queue says at which site, how many, since when and why.
func TestJobsThatWaitForOneThingAreOneReason(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	since := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	next := time.Now().Add(5 * time.Minute).UTC().Truncate(time.Second)
	for i := range 150 {
		p := jobs.Progress{WaitingSince: since.Add(time.Duration(i) * time.Second), Why: "31 of 37 proxies cool down"}
		_, err := w.stream.Schedule(w.soon(), "low", fmt.Sprint("j", i), []byte("http://captcha.test/"), &p, next.Add(time.Duration(i)*time.Second))
		w.must(err)
	}
	s := w.count(w.counter(waiting.Config{}))
	i := slices.IndexFunc(s.Queues, func(q waiting.Queue) bool { return q.Queue == "low" })
	if i < 0 {
		t.Fatalf("got %+v, want a queue low", s.Queues)
	}
	want := waiting.Reason{State: jobs.StateNoProxy, Site: "captcha.test", Jobs: 150, Since: since, Until: next, Detail: "31 of 37 proxies cool down"}
	if got := s.Queues[i].Reasons; len(got) != 1 || got[0] != want {
		t.Errorf("got %+v, want one reason, %+v", got, want)
	}
}

// TestAJobThatWaitsForItsSiteUntilATimeNamesTheSite: a worker that cannot reach the fleet stores it without the header of its site.
func TestAJobThatWaitsForItsSiteUntilATimeNamesTheSite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	since := time.Now().Add(-time.Minute).UTC().Truncate(time.Second)
	_, err := w.stream.Schedule(w.soon(), "low", "a", []byte("http://new.test:8080/"), &jobs.Progress{SiteSince: since}, time.Now().Add(time.Hour))
	w.must(err)
	s := w.count(w.counter(waiting.Config{}))
	i := slices.IndexFunc(s.Queues, func(q waiting.Queue) bool { return q.Queue == "low" })
	if i < 0 || len(s.Queues[i].Reasons) != 1 {
		t.Fatalf("got %+v, want a queue low with one reason", s.Queues)
	}
	if got := s.Queues[i].Reasons[0]; got.State != jobs.StateSiteDown || got.Site != "new.test:8080" || got.Jobs != 1 || !got.Since.Equal(since) {
		t.Errorf("got %+v, want a job that waits for new.test:8080 since %s", got, since)
	}
}

func TestAJobThatTheServerDoesNotReleaseIsOverdue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	// A message without a time counts as if its time had been when it was stored, and the server never releases it.
	w.must(w.bus.PublishOnce(w.soon(), &nats.Msg{Subject: w.bus.Names().ScheduledJob("low", "forgotten"), Header: nats.Header{}, Data: []byte("http://shop.test/")}))
	_, err := w.stream.Schedule(w.soon(), "low", "soon", []byte("http://shop.test/"), &jobs.Progress{}, time.Now().Add(time.Second))
	w.must(err)
	c := w.counter(waiting.Config{})
	testenv.Eventually(t, "one overdue job, and none that waits beside it", func() bool {
		s := w.count(c)
		i := slices.IndexFunc(s.Queues, func(q waiting.Queue) bool { return q.Queue == "low" })
		return i >= 0 && s.Queues[i].Overdue == 1 && s.Queues[i].Waiting() == 1 && s.Queues[i].Queued == 1
	})
	w.must(w.stream.RemoveScheduled(w.soon(), "low", "forgotten"))
	testenv.Eventually(t, "no overdue job", func() bool {
		return !slices.ContainsFunc(w.count(c).Queues, func(q waiting.Queue) bool { return q.Overdue > 0 || q.Waiting() > 0 })
	})
}

// TestQueuesThatNobodyServesAreCounted has jobs in misspelt queues, in one whose name is none, and in more than have a name of
// their own.
func TestQueuesThatNobodyServesAreCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.counter(waiting.Config{})
	w.count(c)
	publish := func(queue string) {
		w.n++
		_, err := w.bus.JetStream().Publish(w.soon(), fmt.Sprintf("gofer.jobs.%s.j%d", queue, w.n), []byte("http://shop.test/"))
		w.must(err)
	}
	publish("misspelt")
	publish("misspelt")
	publish("NOPE")
	queued := func(s waiting.Snapshot) string {
		var list []string
		for _, q := range s.Queues {
			if q.Queued > 0 {
				list = append(list, fmt.Sprint(q.Queue, " ", q.Queued, " ", q.Served))
			}
		}
		return strings.Join(list, ", ")
	}
	var got string
	testenv.Eventually(t, "the jobs of the queues that nobody serves", func() bool {
		got = queued(w.count(c))
		return got == "NOPE 1 false, misspelt 2 false"
	})
	publish("misspelt")
	if got := queued(w.count(c)); got != "NOPE 1 false, misspelt 3 false" {
		t.Errorf("after another job: got %q", got)
	}
	for i := range 50 {
		publish(fmt.Sprint("typo", i))
	}
	testenv.Eventually(t, "all 54 jobs, and a bounded list", func() bool {
		s := w.count(c)
		var sum uint64
		for _, q := range s.Queues {
			sum += q.Queued
		}
		return sum == 54 && len(s.Queues) < 40
	})
}

// TestAskCountsWhileTheFleetDoesNot, and reads what the fleet shares once it does.
func TestAskCountsWhileTheFleetDoesNot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.parkMany(20)
	s, shared, err := waiting.Ask(w.soon(), w.bus, time.Minute)
	w.must(err)
	if shared {
		t.Error("got a shared count, and nobody has counted")
	}
	w.check("counted by who asks", s)
	kv, err := w.bus.Bucket(w.soon(), "policy")
	w.must(err)
	s.Worker = "w1"
	w.must(waiting.Store(w.soon(), kv, s))
	w.parkMany(1)
	got, shared, err := waiting.Ask(w.soon(), w.bus, time.Minute)
	w.must(err)
	if !shared || got.Worker != "w1" || fmt.Sprint(got) != fmt.Sprint(s) {
		t.Errorf("got %+v, shared %t, want %+v", got, shared, s)
	}
}

// TestRefreshShowsWhatTheConsumersKnowNow, and leaves what was counted as it is.
func TestRefreshShowsWhatTheConsumersKnowNow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.submit("low")
	w.submit("low")
	w.park(jobs.StateDelayed)
	counted := w.count(w.counter(waiting.Config{}))
	before := fmt.Sprintf("%+v", counted)
	c := client.New(w.bus)
	w.must(c.Pause(w.soon(), "default", time.Time{}))
	w.submit("default")
	w.must(c.Cancel(w.soon(), client.Key{Queue: "low", ID: "j1"}))
	w.must(c.Cancel(w.soon(), client.Key{Queue: "low", ID: "j2"}))
	w.must(w.bus.EnsureQueue(w.soon(), "new", bus.Settings{}))
	s, err := waiting.Refresh(w.soon(), w.bus, counted)
	w.must(err)
	var got []string
	for _, q := range s.Queues {
		_, since := q.Since[jobs.StateQueued]
		got = append(got, fmt.Sprintf("%s served %t paused %t queued %d %t waiting %d", q.Queue, q.Served, !q.PausedUntil.IsZero(), q.Queued, since, q.Waiting()))
	}
	want := []string{
		"default served true paused true queued 1 false waiting 1", "low served true paused false queued 0 false waiting 0",
		"new served true paused false queued 0 false waiting 0",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if after := fmt.Sprintf("%+v", counted); after != before {
		t.Errorf("the counted snapshot became\n%s\nit was\n%s", after, before)
	}
}

func TestTheNumbersOfAnIdleFleetStayUntilAJobOrAQueueComes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.counter(waiting.Config{})
	if _, same := c.Unchanged(w.soon()); same {
		t.Error("unchanged before the first count")
	}
	unchanged := func(when string, want bool) {
		t.Helper()
		w.count(c)
		asked := time.Now()
		at, got := c.Unchanged(w.soon())
		if got != want {
			t.Errorf("%s: unchanged is %t after a count, want %t", when, got, want)
		}
		if want && (at.Before(asked.Add(-time.Second)) || at.After(time.Now().Add(time.Second))) {
			t.Errorf("%s: the server said so at %s, want a time after the question at %s", when, at, asked)
		}
	}
	changed := func(by string) {
		t.Helper()
		if _, same := c.Unchanged(w.soon()); same {
			t.Errorf("unchanged after %s", by)
		}
	}
	unchanged("an empty fleet", true)
	w.must(w.bus.EnsureQueue(w.soon(), "new", bus.Settings{}))
	changed("a new queue")
	unchanged("two empty queues", true)
	w.submit("default")
	changed("a job")
	unchanged("a queued job", false)
	w.must(client.New(w.bus).Cancel(w.soon(), client.Key{Queue: "default", ID: "j1"}))
	unchanged("an empty queue again", true)
	w.parkMany(1)
	unchanged("a waiting job", false)
}

// TestACountWithoutWaitingJobsIsFourQuestions has jobs that waited before: the counter must forget them and learn of new ones.
func TestACountWithoutWaitingJobsIsFourQuestions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	traffic := w.nats.Trace("")
	counting, err := bus.New(w.nats.Connect(), w.bus.Names())
	w.must(err)
	c := waiting.NewCounter(counting, waiting.Config{})
	w.parkMany(20)
	w.check("jobs that wait", w.count(c))
	w.must(w.bus.PurgeStream(w.soon(), w.bus.Names().Stream("RETRIES")))
	traffic.Sent()
	s := w.count(c)
	if sent := traffic.Sent(); len(sent) != 4 {
		t.Errorf("a count asks %v, want both streams and the consumers of both", sent)
	}
	w.check("no job waits", s)
	w.parkMany(10)
	w.check("jobs wait again", w.count(c))
}
