package release_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/release"
	"github.com/gofer-mq/gofer/worker/stream"
)

// mixed is a model in which n jobs of the queue "low" wait before n of the queue "good", which is served.
func mixed(t *testing.T, n int) *model {
	t.Helper()
	m := newModel(t, 0)
	for _, queue := range []string{"low", "good"} {
		for i := range n {
			m.waitIn(queue, fmt.Sprint(queue, i), time.Now())
		}
	}
	m.serve("good", served)
	return m
}

// releasedOf counts the released jobs of a queue.
func (m *model) releasedOf(queue string) (n int) {
	ids, _ := m.history()
	for _, id := range ids {
		if strings.HasPrefix(id, queue) {
			n++
		}
	}
	return n
}

func served(*lane) {}

// unserved are the ways in which nobody takes jobs of the queue "low".
func unserved() map[string]func(*model) {
	return map[string]func(*model){
		"paused":             func(m *model) { m.serve("low", func(l *lane) { l.paused = true }) },
		"served by nobody":   func(m *model) { m.serve("low", func(l *lane) { l.idle = true }) },
		"without a consumer": func(*model) {},
	}
}

func TestJobsOfOtherQueuesComeBackAsIfAnUnservedQueueDidNotExist(t *testing.T) {
	for name, stop := range unserved() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const n = 3000
				alone := newModel(t, 0)
				for i := range n {
					alone.waitIn("good", fmt.Sprint("good", i), time.Now())
				}
				alone.serve("good", served)
				v := &view{}
				v.set(release.Site{Returns: true})
				_, end := lead(t, alone, v)
				time.Sleep(time.Minute)
				end()
				_, usual := alone.history()

				m := mixed(t, n)
				stop(m)
				began := time.Now()
				_, end = lead(t, m, v)
				defer end()
				time.Sleep(time.Minute)
				if got := m.releasedOf("good"); got != n {
					t.Fatalf("%d of %d jobs released", got, n)
				}
				_, at := m.history()
				took, want := at[len(at)-1].Sub(began), usual[len(usual)-1].Sub(began.Add(-time.Minute-alone.took))
				if took > want+7*time.Second {
					t.Errorf("the last job is released after %s, without the other queue after %s", took, want)
				}
				if low := m.releasedOf("low"); low > 8 {
					t.Errorf("%d jobs released that nobody takes, want a few at most", low)
				}
			})
		})
	}
}

func TestAJobThatNobodyTakesHoldsNoTestOfItsSite(t *testing.T) {
	for name, stop := range unserved() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, v := mixed(t, 10), &view{}
				stop(m)
				v.set(release.Site{Rests: true, Since: time.Now(), Until: time.Now()})
				_, end := lead(t, m, v)
				defer end()
				time.Sleep(10 * time.Second)
				if m.releasedOf("good") == 0 {
					t.Error("no job tests the site, because one of another queue lies before it")
				}
			})
		})
	}
}

func TestJobsOfAQueueThatIsServedAgainComeBack(t *testing.T) {
	for name, stop := range unserved() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, v := mixed(t, 100), &view{}
				stop(m)
				v.set(release.Site{Returns: true})
				_, end := lead(t, m, v)
				defer end()
				time.Sleep(10 * time.Minute)
				reads, before, _ := m.count()
				time.Sleep(10 * time.Minute)
				if again, after, _ := m.count(); after != before || again > reads+100 {
					t.Errorf("%d jobs released and %d reads within ten minutes although nobody takes jobs, want none and a few", after-before, again-reads)
				}
				m.serve("low", func(l *lane) { l.paused, l.idle = false, false })
				time.Sleep(10 * time.Second)
				if got := m.releasedOf("low"); got != 100 {
					t.Errorf("%d of 100 jobs released within ten seconds of a queue that is served again", got)
				}
			})
		})
	}
}

// TestAWorkerThatIsSlowToTakeJobsLosesNone lets jobs lie for longer than those of a queue may that somebody serves.
func TestAWorkerThatIsSlowToTakeJobsLosesNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, v := mixed(t, 100), &view{}
		m.serve("low", served)
		v.set(release.Site{Returns: true})
		_, end := lead(t, m, v)
		defer end()
		for range 20 { // all slots of its workers are taken, then not
			m.serve("low", func(l *lane) { l.idle = true })
			time.Sleep(8 * time.Second)
			m.serve("low", func(l *lane) { l.idle = false })
			time.Sleep(4 * time.Second)
		}
		if low, good := m.releasedOf("low"), m.releasedOf("good"); low != 100 || good != 100 {
			t.Errorf("%d and %d of 100 jobs released", low, good)
		}
	})
}

func TestANoteDoesNotShortenThePauseAfterAFailure(t *testing.T) {
	for name, c := range map[string]struct {
		refusal error
		most    int
	}{
		"a failure that may pass": {errors.New("no answer"), 61},
		"a missing right":         {bus.ErrPermission, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, v := newModel(t, 10), &view{}
				m.refusal, m.slow = c.refusal, 150*time.Millisecond // so that notes come during a visit
				r, end := lead(t, m, v)
				defer end()
				for range 600 {
					time.Sleep(100 * time.Millisecond)
					r.Changed(jobs.SiteKey(site))
					r.NoteWaiting(jobs.SiteKey(site), site, 0)
				}
				if reads, _, _ := m.count(); reads < 1 || reads > c.most {
					t.Errorf("%d reads in a minute that all fail, want %d at most", reads, c.most)
				}
				m.mu.Lock()
				m.refusal = nil
				m.mu.Unlock()
				time.Sleep(2 * time.Minute)
				if _, released, _ := m.count(); released != 10 {
					t.Errorf("%d of 10 jobs released when the reads no longer fail", released)
				}
			})
		})
	}
}

func TestAPausedQueueBeforeThemHoldsNoJobsOfASiteOnAServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.StartNATS(t, nil).Connect, bus.Settings{})
	w.down.Store(true)
	c := w.client()
	w.workIn("w1", "low", "good")
	submit := client.New(w.client().Client)
	const n = 200
	for _, queue := range []string{"low", "good"} {
		for i := range n {
			_, err := submit.Submit(t.Context(), jobs.Job{Queue: queue, ID: fmt.Sprint(queue, i), URL: "http://" + site + "/"})
			if err != nil {
				t.Fatal(err)
			}
		}
		w.reach("jobs of "+queue+" that wait", n, func() int { return w.waitingIn(c, queue) })
	}
	if err := submit.Pause(t.Context(), "low", time.Time{}); err != nil {
		t.Fatal(err)
	}
	w.down.Store(false)
	v := &view{}
	v.set(release.Site{Returns: true})
	defer w.lead(&bounded{Client: c, w: w}, v)()
	w.reach("results of the queue that is served", n, func() int { return w.results(c) })
	if got := w.waitingIn(c, "low"); got != n {
		t.Errorf("%d of %d jobs of the paused queue wait, want all", got, n)
	}
	if err := submit.Resume(t.Context(), "low"); err != nil {
		t.Fatal(err)
	}
	w.reach("results of both queues", 2*n, func() int { return w.results(c) })
	w.mu.Lock()
	defer w.mu.Unlock()
	if again := slices.Max(slices.Collect(maps.Values(w.ended))); again > 1 || len(w.early) > 0 {
		t.Errorf("a job ran %d times; %v", again, w.early)
	}
}

// waitingIn counts the jobs of a queue that wait for the site.
func (w *world) waitingIn(c *stream.Client, queue string) int {
	n, err := c.CountFrom(w.Context(), "RETRIES", w.names.SiteWait(jobs.SiteKey(site), queue, "*"), 1)
	if err != nil {
		return -1 // no server leads the stream now
	}
	return int(n)
}
