package daemon_test

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker"
	"github.com/gofer-mq/gofer/worker/daemon"
	"github.com/gofer-mq/gofer/worker/waiting"
)

// TestAnIdleFleetAsksItsServerTwiceASecondPerWorkerAtMost counts every message that workers send, whatever it is for: requests,
// publishes, renewals, answers and pulls. What the server sends, and pings, are none. Workers are counted for a minute from 15 s
// after their start on: some things are looked at once a minute. The log lists what the messages were for. After a second without
// a processor nothing is evidence: the server sent its beats too late, and the workers ask again for what it seems to have
// forgotten.
func TestAnIdleFleetAsksItsServerTwiceASecondPerWorkerAtMost(t *testing.T) {
	testenv.Long(t)
	for _, fleet := range []struct {
		workers, queues int
		scraped         bool // by Prometheus
	}{
		{1, 1, false}, {1, worker.MaxQueues, true}, {4, worker.MaxQueues, false},
	} {
		t.Run(fmt.Sprintf("%+v", fleet), func(t *testing.T) {
			t.Parallel()
			server := testenv.StartNATS(t, nil)
			traffic := server.Trace("gofer worker")
			var queues []worker.Queue
			for i := range fleet.queues {
				queues = append(queues, worker.Queue{Name: fmt.Sprint("q", i)})
			}
			for i := range fleet.workers {
				r := run(t, daemon.Config{NATS: bus.Dial{URL: server.URL()}, Name: fmt.Sprint("w", i), Queues: queues, DrainTimeout: 30 * time.Second})
				r.until("nats: connected")
				if fleet.scraped {
					scrape(t, r.url+"/metrics")
				}
			}
			<-time.After(15 * time.Second)
			traffic.Sent()
			const window = time.Minute
			late := latest(window)
			all, sum := map[string]float64{}, 0.0
			for subject, n := range traffic.Sent() {
				perSecond := float64(n) / window.Seconds() / float64(fleet.workers)
				sum += perSecond
				all[familyOf(subject)] += perSecond
			}
			if t.Logf("%.2f messages a second per worker, up to %s without a processor", sum, late); sum > 2 && late < time.Second {
				t.Errorf("an idle worker sends %.2f messages a second, want 2 at most", sum)
			}
			checkShared(t, server)
			for _, family := range slices.SortedFunc(maps.Keys(all), func(a, b string) int { return cmp.Compare(all[b], all[a]) }) {
				t.Logf("%.3f %s", all[family], family)
			}
		})
	}
}

// latest waits, and returns how late the latest tick of a clock was meanwhile.
func latest(window time.Duration) (late time.Duration) {
	const period = 100 * time.Millisecond
	tick := time.NewTicker(period)
	defer tick.Stop()
	before := time.Now()
	for end := before.Add(window); before.Before(end); {
		<-tick.C
		now := time.Now()
		late, before = max(late, now.Sub(before)-period), now
	}
	return late.Round(time.Millisecond)
}

// checkShared looks at the numbers of the queues that the leader shares: they are repeated while nothing changes, with new times.
func checkShared(t *testing.T, server *testenv.NATS) {
	t.Helper()
	js, err := jetstream.New(server.Connect())
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(t.Context(), "gofer-policy")
	if err != nil {
		t.Fatal(err)
	}
	entry, err := kv.Get(t.Context(), waiting.Key)
	if err != nil {
		t.Fatal(err)
	}
	s, err := waiting.Parse(entry.Value())
	if age := time.Since(s.At); err != nil || age > waiting.Stale || len(s.Queues) == 0 {
		t.Errorf("the shared numbers are of %d queues and %s old (%v), want all queues, less than %s ago", len(s.Queues), age, err, waiting.Stale)
	}
}

// scrape reads a page every 15 s until the test ends.
func scrape(t *testing.T, url string) {
	t.Helper()
	go func() {
		tick := time.NewTicker(15 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-t.Context().Done():
				return
			case <-tick.C:
			}
			if resp, err := http.Get(url); err == nil {
				_ = resp.Body.Close()
			}
		}
	}()
}

// familyOf is a subject without the names of queues and of requests.
func familyOf(subject string) string {
	if strings.HasPrefix(subject, "_INBOX.") {
		return "an answer"
	}
	return regexp.MustCompile(`-q\d+`).ReplaceAllString(subject, "-*")
}
