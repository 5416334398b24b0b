package totals_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/rollup"
	"github.com/gofer-mq/gofer/worker/totals"
)

// memory is a store in memory that keeps the newest message of each subject, as the stream of the hours does. It keeps each
// event.
type memory struct {
	names jobs.Names
	// slow is how long a call of Replace takes.
	slow time.Duration
	// fails says what becomes of a call of Replace: whether it is stored, and whether the answer comes.
	fails func() (stored, answered bool)
	// behind says that a replica answers that has no message yet; nil means never.
	behind func() bool

	mu     sync.Mutex
	seq    uint64
	parts  map[string]bus.Message
	kept   map[string]time.Duration // by subject
	events []bus.Message
	made   map[string]time.Time // by kind
	calls  int
	reads  int
	unread error // what reads answer
}

func newMemory() *memory {
	names, err := jobs.NewNames("")
	if err != nil {
		panic(err)
	}
	return &memory{
		names: names, parts: map[string]bus.Message{}, kept: map[string]time.Duration{}, made: map[string]time.Time{}, fails: func() (bool, bool) { return true, true },
	}
}

func (m *memory) Names() jobs.Names { return m.names }

func (m *memory) Replace(ctx context.Context, _, subject string, data []byte, last uint64, keep time.Duration) (uint64, error) {
	select {
	case <-time.After(m.slow):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	if m.parts[subject].Seq != last {
		return 0, bus.ErrReplaced
	}
	stored, answered := m.fails()
	if stored {
		m.seq++
		m.parts[subject] = bus.Message{Subject: subject, Seq: m.seq, At: time.Now(), Data: data}
		m.kept[subject] = keep
	}
	if !stored || !answered {
		return 0, errors.New("no answer")
	}
	return m.seq, nil
}

func (m *memory) LastSeq(_ context.Context, _, subject string) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.behind != nil && m.behind() {
		return 0, nil
	}
	return m.parts[subject].Seq, nil
}

func (m *memory) ReadFrom(_ context.Context, kind, filter string, from uint64, use func(bus.Message)) error {
	m.mu.Lock()
	behind := m.behind != nil && m.behind()
	m.mu.Unlock()
	for _, msg := range m.under(kind, filter, from) {
		if !behind {
			use(msg)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	return m.unread
}

func (m *memory) CountFrom(_ context.Context, kind, filter string, from uint64) (uint64, error) {
	return uint64(len(m.under(kind, filter, from))), nil
}

func (m *memory) Subjects(_ context.Context, kind, filter string) (map[string]uint64, error) {
	out := map[string]uint64{}
	for _, msg := range m.under(kind, filter, 1) {
		out[msg.Subject]++
	}
	return out, nil
}

func (m *memory) StateOf(_ context.Context, kind string) (bus.State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if kind == "EVENTS" {
		return bus.State{CreatedAt: m.made[kind], Messages: uint64(len(m.events)), LastSeq: uint64(len(m.events))}, nil
	}
	return bus.State{CreatedAt: m.made[kind], Messages: uint64(len(m.parts)), LastSeq: m.seq}, nil
}

// under lists messages in the order of the stream.
func (m *memory) under(kind, filter string, from uint64) (out []bus.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := m.events
	if kind == "ROLLUPS" {
		list = slices.SortedFunc(maps.Values(m.parts), func(a, b bus.Message) int { return int(a.Seq) - int(b.Seq) })
	}
	for _, msg := range list {
		if msg.Seq >= from && covers(filter, msg.Subject) {
			out = append(out, msg)
		}
	}
	return out
}

func (m *memory) readsSoFar() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reads
}

// covers reports whether a subject matches a filter whose tokens may be "*".
func covers(filter, subject string) bool {
	wanted, tokens := strings.Split(filter, "."), strings.Split(subject, ".")
	for i := range wanted {
		if len(wanted) != len(tokens) || wanted[i] != "*" && wanted[i] != tokens[i] {
			return false
		}
	}
	return true
}

// purge deletes the parts whose subjects contain text, as somebody may.
func (m *memory) purge(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.parts, func(subject string, _ bus.Message) bool { return strings.Contains(subject, text) })
}

// remake deletes the stream and makes it again: it counts from 1.
func (m *memory) remake() {
	m.purge("")
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seq, m.made["ROLLUPS"] = 0, m.made["ROLLUPS"].Add(time.Second)
}

// replaceEvents deletes the stream of the events and makes it again with other ones in it.
func (m *memory) replaceEvents(events ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events, m.made["EVENTS"] = nil, m.made["EVENTS"].Add(time.Second)
	for i, data := range events {
		m.events = append(m.events, bus.Message{Subject: m.names.BreakerEvent("p"), Seq: uint64(i + 1), At: time.Now(), Data: []byte(data)})
	}
}

// book is what the parts add up to.
func (m *memory) book(t interface{ Fatal(...any) }) *rollup.Book {
	b := rollup.NewBook()
	for back := range rollup.RetentionHours {
		at := time.Now().Add(-time.Duration(back) * time.Hour)
		for _, kind := range []rollup.Kind{rollup.Totals, rollup.Proxies} {
			sum := rollup.NewSum(kind)
			for _, msg := range m.under("ROLLUPS", m.names.Hour(at.UTC().Format("2006010215"), string(kind), "*"), 1) {
				if err := sum.Add(msg.Data); err != nil {
					t.Fatal(err)
				}
			}
			b.Put(at, sum)
		}
	}
	return b
}

func (m *memory) jobs(t interface{ Fatal(...any) }) int64 {
	total := m.book(t).Total(rollup.RetentionHours)
	return total.Jobs()
}

func newTotals(book *rollup.Book, flushed func(bool)) *totals.Totals {
	return totals.New(totals.Config{Book: book, Flushed: flushed, Log: slog.New(slog.DiscardHandler)})
}

func anyway(bool) {}
