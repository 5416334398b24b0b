package release_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/worker/release"
)

func TestJobsComeBackManyAtATimeThoughTheServerIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, v := newModel(t, 1000), &view{}
		m.slow, m.slowRelease, m.took = 10*time.Millisecond, 10*time.Millisecond, time.Second
		v.set(release.Site{Load: 1000})
		_, stop := lead(t, m, v)
		defer stop()
		time.Sleep(2 * time.Second) // one after the other they take 20 s
		if _, released, _ := m.count(); released != 1000 {
			t.Errorf("%d of 1000 jobs are released within two seconds", released)
		}
	})
}

func TestFewLargeJobsAreReleasedAtTheSameTime(t *testing.T) {
	for size, want := range map[int]int{100: 32, 600 << 10: 8} {
		synctest.Test(t, func(t *testing.T) {
			m, v := newModel(t, 200), &view{}
			m.slowRelease, m.payload = 10*time.Millisecond, make([]byte, size)
			v.set(release.Site{Load: 1000})
			_, stop := lead(t, m, v)
			defer stop()
			time.Sleep(5 * time.Second)
			_, released, _ := m.count()
			m.mu.Lock()
			defer m.mu.Unlock()
			if released != 200 || m.mostReleasing != want {
				t.Errorf("jobs of %d bytes: %d are released, at most %d at the same time; want 200, and %d", size, released, m.mostReleasing, want)
			}
		})
	}
}

func TestFewMessagesOfOtherSitesAreReadInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, v := newModel(t, 0), &view{}
		for i := range 100 {
			m.wait(fmt.Sprint("j", i), time.Now())
			for range 50 {
				m.waits = append(m.waits, waiting{queue: "default", id: fmt.Sprint("other", m.last), seq: m.last + 1, site: "other.test"})
				m.last++
			}
		}
		v.set(release.Site{Load: 1000})
		_, stop := lead(t, m, v)
		defer stop()
		time.Sleep(5 * time.Second)
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(m.released) != 100 || m.asked > 200 {
			t.Errorf("%d jobs are released after %d messages were asked for, want 100 after at most two for each", len(m.released), m.asked)
		}
	})
}

// Each world has jobs of two queues and of another site in one order. Some releases fail, some jobs are cancelled meanwhile.
func TestEachJobOfAServedQueueIsReleasedOnceWhateverLiesBetweenThem(t *testing.T) {
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			m, v, luck := newModel(t, 0), &view{}, rand.New(rand.NewPCG(seed, 0))
			m.serve("default", func(*lane) {})
			m.serve("paused", func(l *lane) { l.paused = true })
			var want []string
			for i := range 300 {
				id := fmt.Sprint("j", i)
				switch luck.IntN(5) {
				case 0:
					m.waitIn("paused", id, time.Now())
				case 1:
					m.wait(id, time.Now())
					m.waits[len(m.waits)-1].site = "other.test"
				default:
					m.wait(id, time.Now())
					want = append(want, id)
				}
			}
			fails := luck.IntN(10)
			m.failure = func() error {
				if luck.IntN(10) < fails {
					return errors.New("no answer")
				}
				return nil
			}
			v.set(release.Site{Load: 1000})
			_, stop := lead(t, m, v)
			defer stop()
			time.Sleep(3 * time.Hour) // each failure costs a second
			got, _ := m.history()
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("seed %d: %d jobs are released, want %d, each once", seed, len(got), len(want))
			}
		})
	}
}

func TestJobsOfAQueueThatIsServedAgainComeBeforeYoungerOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, v := newModel(t, 50), &view{}
		m.serve("default", func(*lane) {})
		m.serve("paused", func(l *lane) { l.paused = true })
		for i := range 10_000 { // more than are released until the end
			queue := "default"
			if i < 100 && i%7 == 3 {
				queue = "paused"
			}
			m.waitIn(queue, fmt.Sprint(queue, i), time.Now())
		}
		v.set(release.Site{New: true, Room: 64})
		_, stop := lead(t, m, v)
		defer stop()
		time.Sleep(5 * time.Second)
		m.serve("paused", func(l *lane) { l.paused = false })
		time.Sleep(5 * time.Second)
		released, _ := m.history()
		resumed := slices.DeleteFunc(slices.Clone(released), func(id string) bool { return !strings.HasPrefix(id, "paused") })
		if len(released) == 10_050 || len(resumed) != 14 {
			t.Errorf("%d jobs of the resumed queue are released among %d, want all 14 before the last of the others", len(resumed), len(released))
		}
	})
}

// TestJobsThatAReplicaHidesAreReleasedWithinAMinuteThoughMoreJobsCome: for each job that ends, another one begins to wait, so that
// the list never ends.
func TestJobsThatAReplicaHidesAreReleasedWithinAMinuteThoughMoreJobsCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, v := newModel(t, 200), &view{}
		m.hidden = map[string]bool{}
		for i := 1; i < 200; i += 2 {
			m.hidden[fmt.Sprint("j", i)] = true
		}
		m.run = func(string, time.Time) bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.wait(fmt.Sprint("more", m.last, "+"), time.Now())
			return false
		}
		left := func() (n int) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, w := range m.waits {
				if !strings.HasSuffix(w.id, "+") {
					n++
				}
			}
			return n
		}
		v.set(release.Site{New: true, Room: 50})
		_, stop := lead(t, m, v)
		defer stop()
		time.Sleep(20 * time.Second)
		if n := left(); n == 0 || n > 100 {
			t.Fatalf("%d of the first jobs still wait: the test shows nothing", n)
		}
		time.Sleep(65 * time.Second)
		if n := left(); n > 0 {
			t.Errorf("%d of the first jobs still wait", n)
		}
	})
}
