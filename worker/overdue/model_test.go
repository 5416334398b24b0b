package overdue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/overdue"
)

// model is a stream of waiting jobs whose server may forget its timers. Its clock is ahead.
type model struct {
	*testing.T
	ahead time.Duration
	luck  *rand.Rand
	page  int // jobs on a page; small, so that a few hundred jobs fill many

	mu       sync.Mutex
	epoch    int
	last     uint64
	jobs     map[uint64]*job
	away     time.Time      // until then nothing is answered
	reads    int            // jobs on pages
	hidden   uint64         // a sequence that the replica that answers does not have
	asked    func()         // called before StillWaiting answers; nil does nothing
	failures map[string]int // of calls to come, by method
	released []*job         // by the Finder
}

type job struct {
	bus.WaitingJob
	stored   time.Time
	timer    *time.Timer
	released time.Time
}

// highSeq is a sequence that takes more than 32 bits.
const highSeq = 7 << 32

func newModel(t *testing.T, seed uint64) *model {
	t.Helper()
	return &model{T: t, ahead: time.Hour, page: 7, luck: rand.New(rand.NewPCG(seed, 0)), last: highSeq, jobs: map[uint64]*job{}, failures: map[string]int{}}
}

func (m *model) locked(act func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	act()
}

// now is the server's time.
func (m *model) now() time.Time { return time.Now().Add(m.ahead) }

// run lets a Finder look while act acts, and then for long enough to find everything.
func (m *model) run(act func()) {
	m.Helper()
	ctx, stop := context.WithCancel(m.Context())
	var finding sync.WaitGroup
	n := 0
	f := overdue.New(m, overdue.Config{Released: func(released int) { n += released }, Log: slog.New(slog.DiscardHandler)})
	finding.Go(func() { f.Run(ctx) })
	act()
	time.Sleep(13 * time.Minute) // jobs wait for ten at most
	stop()
	finding.Wait()
	if n != len(m.released) {
		m.Errorf("the finder counts %d released jobs, want %d", n, len(m.released))
	}
}

// park stores a job that waits so long.
func (m *model) park(wait time.Duration) *job {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last++
	seq, until := m.last, m.now().Add(wait)
	j := &job{WaitingJob: bus.WaitingJob{Key: bus.Key{Queue: "default", ID: fmt.Sprint(m.epoch, ".", seq)}, Seq: seq, Until: until}, stored: m.now()}
	j.timer = time.AfterFunc(wait, func() { m.remove(seq) })
	m.jobs[seq] = j
	return j
}

func (m *model) remove(seq uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if j := m.jobs[seq]; j != nil {
		j.timer.Stop()
		delete(m.jobs, seq)
	}
}

// forget loses the timers of the jobs that wait now, and returns these jobs. A job whose time is this very moment is not
// forgotten when its timer has fired.
func (m *model) forget() []*job {
	m.mu.Lock()
	defer m.mu.Unlock()
	var forgotten []*job
	for _, j := range m.jobs {
		if j.timer.Stop() {
			forgotten = append(forgotten, j)
		}
	}
	return forgotten
}

// recreate begins another, empty stream that counts on after a sequence.
func (m *model) recreate(last uint64) {
	m.forget()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch, m.last, m.jobs = m.epoch+1, last, map[uint64]*job{}
}

var errAway = errors.New("no answer")

func (m *model) answer(method string) error {
	if m.failures[method] > 0 {
		m.failures[method]--
		return errAway
	}
	if m.now().Before(m.away) {
		return errAway
	}
	return nil
}

func (m *model) WaitingState(context.Context) (bus.WaitingState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bus.WaitingState{Now: m.now(), LastSeq: m.last, Messages: uint64(len(m.jobs)), Epoch: fmt.Sprint(m.epoch)}, m.answer("state")
}

func (m *model) ReadWaiting(_ context.Context, after uint64, limit int, use func(bus.WaitingJob)) (last uint64, more bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.answer("page"); err != nil {
		return after, false, err
	}
	for n, seq := range m.following(after) {
		if n == min(limit, m.page) {
			return after, true, nil
		}
		m.reads++
		use(m.jobs[seq].WaitingJob)
		after = seq
	}
	return after, false, nil
}

func (m *model) NextWaiting(_ context.Context, after uint64) (bus.WaitingJob, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var next *job
	for seq, j := range m.jobs {
		if seq > after && seq != m.hidden && (next == nil || seq < next.Seq) {
			next = j
		}
	}
	if err := m.answer("next"); err != nil || next == nil {
		return bus.WaitingJob{}, false, err
	}
	m.reads++
	return next.WaitingJob, true, nil
}

// following are the sequences after one, in order.
func (m *model) following(after uint64) []uint64 {
	var out []uint64
	for seq := range m.jobs {
		if seq > after && seq != m.hidden {
			out = append(out, seq)
		}
	}
	slices.Sort(out)
	return out
}

func (m *model) StillWaiting(_ context.Context, seqs []uint64, use func(bus.WaitingJob)) error {
	var asked func()
	m.locked(func() { asked, m.asked = m.asked, nil })
	if asked != nil {
		asked()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.answer("still"); err != nil {
		return err
	}
	for _, seq := range seqs {
		if j := m.jobs[seq]; j != nil {
			use(j.WaitingJob)
		}
	}
	return nil
}

func (m *model) Release(_ context.Context, w bus.WaitingJob) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.answer("release"); err != nil {
		return false, err
	}
	j := m.jobs[w.Seq]
	switch {
	case j == nil || j.Key != w.Key:
		return false, nil
	case m.now().Before(j.Until):
		m.Errorf("job %s is released %s before its time", j.Key, j.Until.Sub(m.now()))
	}
	j.released = m.now()
	delete(m.jobs, w.Seq)
	m.released = append(m.released, j)
	return true, nil
}

// check expects each of the forgotten jobs to be released within two minutes after its time, or after it was forgotten.
func (m *model) check(forgotten []*job, at time.Time) {
	m.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, j := range forgotten {
		from := j.Until
		if at.After(from) {
			from = at
		}
		if j.released.IsZero() || j.released.Sub(from) > 2*time.Minute {
			m.Errorf("job %s of %s, forgotten at %s, was released at %s; want it within two minutes", j.Key, j.Until.Format(time.TimeOnly), at.Format(time.TimeOnly), j.released.Format(time.TimeOnly))
		}
	}
}

func TestForgottenJobsAreReleasedWithinTwoMinutesAndNeverEarly(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { shake(newModel(t, seed)) })
		})
	}
}

// shake parks jobs for an hour while things happen to the server. Nothing is recreated with jobs in it, which would be lost.
func shake(m *model) {
	m.Helper()
	type memory struct {
		jobs []*job
		at   time.Time
	}
	var forgotten []memory
	cancelled := map[*job]bool{}
	m.run(func() {
		for end := time.Now().Add(time.Hour); time.Now().Before(end); time.Sleep(time.Duration(m.luck.IntN(20_000)) * time.Millisecond) {
			for range m.luck.IntN(10) {
				m.park(time.Duration(m.luck.IntN(600_000)) * time.Millisecond)
			}
			switch m.luck.IntN(20) {
			case 0, 1:
				forgotten = append(forgotten, memory{m.forget(), m.now()})
			case 2:
				m.locked(func() { m.epoch++ })
			case 3:
				m.mu.Lock()
				if m.now().Sub(m.away) > 2*time.Minute {
					m.away = m.now().Add(14 * time.Second) // one pass fails
				}
				m.mu.Unlock()
			case 4:
				m.mu.Lock()
				for _, seq := range m.following(0) {
					if m.luck.IntN(3) == 0 {
						j := m.jobs[seq]
						cancelled[j] = true
						j.timer.Stop()
						delete(m.jobs, seq)
					}
				}
				m.mu.Unlock()
			}
		}
		forgotten = append(forgotten, memory{m.forget(), m.now()})
	})
	for _, f := range forgotten {
		m.check(slices.DeleteFunc(f.jobs, func(j *job) bool { return cancelled[j] }), f.at)
	}
}

func TestEachJobIsReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t, 1)
		m.run(func() {
			for range 100 {
				m.park(24 * time.Hour)
				time.Sleep(20 * time.Second)
			}
			m.forget()
		})
		if m.reads != 100 {
			t.Errorf("100 jobs were read %d times", m.reads)
		}
	})
}

func TestShortWaitsAreNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t, 1)
		m.run(func() {
			time.Sleep(time.Second) // the first pass reads everything
			for range 100 {
				m.park(10 * time.Second)
				time.Sleep(time.Second)
			}
		})
		if m.reads > 8 { // one a pass, to see that it is too young
			t.Errorf("%d of 100 jobs were read that waited for 10 s", m.reads)
		}
	})
}

func TestJobsOfANewStreamAreFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t, 1)
		m.run(func() {
			for range 50 {
				m.park(time.Second)
			}
			time.Sleep(5 * time.Minute)
			m.recreate(0)
			for range 5 {
				m.park(time.Second)
			}
			forgotten := m.forget()
			at := m.now()
			time.Sleep(3 * time.Minute)
			m.check(forgotten, at)
		})
	})
}

// TestSequenceOfAnotherJobIsNotReleased replaces the stream while the finder looks whether a job still waits.
func TestSequenceOfAnotherJobIsNotReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t, 1)
		m.run(func() {
			m.park(time.Minute)
			m.forget()
			m.locked(func() {
				m.asked = func() {
					m.recreate(highSeq)
					m.park(8 * time.Minute)
				}
			})
		})
		if len(m.released) != 0 {
			t.Errorf("%d jobs were released, want the server to do it", len(m.released))
		}
		if m.asked != nil {
			t.Error("the finder did not look")
		}
	})
}

func TestJobThatAReplicaDidNotHaveIsFoundWithinTwoHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t, 1)
		m.run(func() {
			m.park(time.Minute)
			hidden := m.park(2 * time.Minute)
			m.locked(func() { m.hidden = hidden.Seq })
			m.forget()
			time.Sleep(5 * time.Minute)
			m.locked(func() { m.hidden = 0 })
			time.Sleep(2 * time.Hour)
			m.locked(func() {
				if hidden.released.IsZero() {
					t.Error("the job still waits")
				}
			})
		})
	})
}

func TestManyForgottenJobsAreReleasedAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t, 1)
		m.run(func() {
			for range 1000 {
				m.park(time.Minute)
			}
			forgotten := m.forget()
			at := m.now()
			time.Sleep(4 * time.Minute)
			m.check(forgotten, at)
		})
	})
}

func TestWhatFailsIsTriedAgain(t *testing.T) {
	for _, method := range []string{"state", "page", "next", "still", "release"} {
		t.Run(method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newModel(t, 1)
				m.failures[method] = 2
				m.run(func() {
					for range 300 {
						m.park(time.Minute)
					}
					forgotten := m.forget()
					at := m.now()
					time.Sleep(4 * time.Minute)
					m.check(forgotten, at)
				})
				if m.failures[method] != 0 {
					t.Errorf("%d failures were not met", m.failures[method])
				}
			})
		})
	}
}

func TestLookThatIsNotAllowedIsRareAndSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		tries := 0
		f := overdue.New(refused{tries: &tries}, overdue.Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
		ctx, stop := context.WithTimeout(t.Context(), time.Hour)
		defer stop()
		f.Run(ctx)
		if tries < 4 || tries > 8 || strings.Count(log.String(), "overdue") != 1 {
			t.Errorf("%d tries in an hour and the log %q, want a few and one line", tries, log.String())
		}
	})
}

// refused is a stream that this user may not read.
type refused struct {
	*model
	tries *int
}

func (r refused) WaitingState(context.Context) (bus.WaitingState, error) {
	*r.tries++
	return bus.WaitingState{}, bus.ErrPermission
}

func TestCancelledJobsAreForgottenLongBeforeTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t, 1)
		m.run(func() {
			const n = 70_000
			for range n {
				m.park(10_000 * time.Hour)
			}
			m.locked(func() { m.page = n })
			time.Sleep(5 * time.Minute)
			for i := range uint64(n - 1) {
				m.remove(highSeq + 1 + i)
			}
			var before int
			m.locked(func() { before = m.reads })
			time.Sleep(5 * time.Minute)
			m.locked(func() {
				if m.reads != before+1 {
					t.Errorf("%d jobs were read again, want the one that is left: what is known takes memory", m.reads-before)
				}
			})
		})
	})
}
