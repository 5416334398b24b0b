package totals_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// FuzzRollupMessages has somebody store any bytes as a part, under any name, in the place of a part or of a breaker event. What
// the workers counted is still there, and what is counted next is added.
func FuzzRollupMessages(f *testing.F) {
	for _, data := range []string{"", "\x00", "\x08attempts\x01\x05", "\x01~\x01\x05", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", `{"val":"6"}`} {
		for _, subject := range []string{
			"_gofer.rollups.2000010100.totals.x", "_gofer.rollups.2000010100.proxies.x", "_gofer.rollups.2000010101.totals.x", "_gofer.rollups.2999010100.totals.x",
			"_gofer.rollups.x.y.z", "_gofer.rollups.2000010100.other.x", "",
		} {
			f.Add(subject, []byte(data), `{"proxy_id":"p1","from_state":"closed","to_state":"open"}`, true)
			f.Add(subject, []byte(data), `{"proxy_id":"","from_state":7,"timestamp":"9999-12-31T23:59:59Z"}`, false)
		}
	}
	f.Fuzz(func(t *testing.T, subject string, data []byte, event string, replaces bool) {
		synctest.Test(t, func(t *testing.T) {
			stored, book, w := newMemory(), rollup.NewBook(), newWorkers()
			defer w.end()
			fleet := w.start(newTotals(book, anyway), stored)
			count := func() {
				book.AddJob(rollup.JobFact{Outcome: jobs.Succeeded, Attempts: 1})
				book.AddAttempt(rollup.AttemptFact{Proxy: "p1", Status: 200})
				time.Sleep(5 * time.Second)
			}
			count()
			stored.forge(subject, data, replaces)
			stored.replaceEvents(event, `{"proxy_id":"p2","from_state":"closed","to_state":"open"}`)
			count()
			b, known := fleet.FleetByProxy(t.Context())
			hour, attempts := b.Hour(0), int64(0)
			for _, p := range b.ByProxy(24) {
				if p.ProxyID == "p1" {
					attempts = p.TotalAttempts
				}
			}
			if !known || hour.Jobs() < 2 || attempts < 2 {
				t.Errorf("known %v, %d jobs, %d attempts through p1, want at least the two that were counted", known, hour.Jobs(), attempts)
			}
			events := b.BreakerEvents(time.Time{})
			if len(events) == 0 || events[len(events)-1].ProxyID != "p2" {
				t.Errorf("breaker events: got %+v, want the good one last", events)
			}
		})
	})
}

// forge stores a message as somebody may who has a worker's rights: under a subject, or in the place of each part that is there.
func (m *memory) forge(subject string, data []byte, replaces bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seq++
	m.parts[subject] = bus.Message{Subject: subject, Seq: m.seq, At: time.Now(), Data: data}
	if !replaces {
		return
	}
	for subject := range m.parts {
		m.seq++
		m.parts[subject] = bus.Message{Subject: subject, Seq: m.seq, At: time.Now(), Data: data}
	}
}
