package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/text"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/worker/metrics"
	"github.com/gofer-mq/gofer/worker/rollup"
)

const (
	livePath   = "/api/v1/live"
	livePeriod = time.Second
	// maxStreams bounds the pages that watch at once, unless Config.MaxStreams does.
	maxStreams = 64
	// writeTimeout ends a stream whose reader takes nothing.
	writeTimeout = 3 * time.Second
	// writeBuffer is what the system keeps for such a reader: by default it would be megabytes, which take minutes to fill.
	writeBuffer = 64 << 10
)

// live streams a snapshot a second as server-sent events. All streams share one snapshot.
type live struct {
	snapshot func(context.Context) Snapshot
	most     int // streams that may be open at once

	making singleflight.Group
	worst  lastWorst

	mu    sync.Mutex // guards the fields below
	open  int
	made  time.Time
	bytes []byte
}

// Snapshot is what the page shows, whole at every event, so that a reader who missed some is not wrong.
type Snapshot struct {
	At      time.Time `json:"at"`
	Worker  string    `json:"worker"`
	Version string    `json:"version"`
	// TokenNeeded tells whether changes need a token, or are taken from this machine without one.
	TokenNeeded bool    `json:"token_needed"`
	Ready       bool    `json:"ready"`
	Checks      []Check `json:"checks"`
	InFlight    int     `json:"in_flight"`
	Slots       int     `json:"slots"`
	// Seconds are the last two minutes of this worker.
	Seconds []rollup.Second `json:"seconds"`
	// Scope is whose hours these are: "cluster", or "worker" while the fleet's cannot be read.
	Scope            string           `json:"scope"`
	Hours            []rollup.Point   `json:"hours"`
	SuccessByAttempt map[string]int64 `json:"success_by_attempt"`
	// Breakers counts this worker's view by state, Resting lists up to 100 of those that are not closed, next test first.
	Breakers     map[string]int `json:"breakers"`
	OpenBreakers []Breaker      `json:"resting"`
	// Worst are the proxies with the largest shares of failures in 24 hours, of those with 5 attempts or more.
	Worst    []rollup.Proxy    `json:"worst"`
	Failures []Failure         `json:"failures"`
	Retries  []jobs.RetryEvent `json:"retries"`
	Queues   []Queue           `json:"queues"`
}

// Failure is a job that failed.
type Failure struct {
	At       time.Time `json:"at"`
	Queue    string    `json:"queue"`
	JobID    string    `json:"job_id"`
	Error    string    `json:"error"`
	Detail   string    `json:"detail"` // may be empty; at most 300 bytes
	Attempts int       `json:"attempts"`
}

// Queue is one queue's depth.
type Queue struct {
	Name     string `json:"name"`
	InFlight int    `json:"in_flight"`
	metrics.Backlog
}

func (l *live) serve(w http.ResponseWriter, r *http.Request) error {
	if !l.enter() {
		return failure{status: http.StatusServiceUnavailable, code: "busy", message: "too many pages are watching"}
	}
	defer l.leave()
	w.Header().Set("Content-Type", "text/event-stream")
	if r.Method == http.MethodHead {
		return nil
	}
	if conn, ok := r.Context().Value(connKey{}).(interface{ SetWriteBuffer(bytes int) error }); ok {
		_ = conn.SetWriteBuffer(writeBuffer) // without it, it only takes longer
	}
	control := http.NewResponseController(w)
	tick := time.NewTicker(livePeriod)
	defer tick.Stop()
	for {
		_ = control.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := fmt.Fprintf(w, "data: %s\n\n", l.current(r.Context())); err != nil {
			return nil // the reader went away
		}
		if err := control.Flush(); err != nil {
			return nil
		}
		select {
		case <-r.Context().Done():
			return nil
		case <-tick.C:
		}
	}
}

// enter takes one of the places for streams, and reports false if all are taken.
func (l *live) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.most {
		return false
	}
	l.open++
	return true
}

// leave gives back the place that enter took.
func (l *live) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
}

// current makes a new snapshot when the last one is old. Streams that ask meanwhile wait for that one.
func (l *live) current(ctx context.Context) []byte {
	if last, fresh := l.last(); fresh {
		return last
	}
	made, _, _ := l.making.Do("", func() (any, error) {
		if last, fresh := l.last(); fresh {
			return last, nil // it was made between the look above and now
		}
		// The others want it, too: the reader who happens to make it may leave.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), livePeriod)
		defer cancel()
		bytes, _ := json.Marshal(l.snapshot(ctx)) // plain data
		bytes = text.JSON(bytes)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.bytes, l.made = bytes, time.Now()
		return bytes, nil
	})
	return made.([]byte)
}

func (l *live) last() (bytes []byte, fresh bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes, time.Since(l.made) < livePeriod/2
}

func (a *admin) snapshot(ctx context.Context) Snapshot {
	s := Snapshot{
		At: time.Now().UTC(), Worker: a.Worker, Version: a.Version, TokenNeeded: a.Token != "",
		Seconds: a.Book.Recent(120), Retries: a.Book.LastRetries(20), Breakers: map[string]int{}, OpenBreakers: []Breaker{},
		Failures: []Failure{}, Queues: a.queues(),
	}
	s.Ready, s.Checks = a.ready()
	a.addHours(ctx, &s)
	a.addProxies(&s)
	for _, f := range a.Book.LastFailures(20) {
		s.Failures = append(s.Failures, Failure{At: f.At.UTC(), Queue: f.Queue, JobID: f.ID, Error: f.Error, Detail: short(f.Detail), Attempts: f.Attempts})
	}
	for _, q := range s.Queues {
		s.InFlight += q.InFlight
	}
	if slots := a.Metrics.Gauges().Slots; slots != nil {
		s.Slots = slots()
	}
	return s
}

func (a *admin) addHours(ctx context.Context, s *Snapshot) {
	book := a.Book
	s.Scope = "worker"
	if a.Cluster != nil {
		if fleet, err := a.Cluster(ctx); err == nil && fleet != a.Book {
			book, s.Scope = fleet, "cluster"
		}
	}
	total := book.Total(24)
	s.Hours, s.SuccessByAttempt = book.Series(24), total.SuccessByAttempt()
	s.Worst = a.live.worst.of(book)
}

// worstEvery is how often the worst proxies are looked for: among thousands that takes a while, and the fleet's numbers are
// some seconds old anyway.
const worstEvery = 5 * time.Second

// lastWorst keeps the worst proxies of a book. Only one snapshot is made at a time.
type lastWorst struct {
	book *rollup.Book
	at   time.Time
	list []rollup.Proxy
}

func (w *lastWorst) of(book *rollup.Book) []rollup.Proxy {
	if w.book != book || time.Since(w.at) >= worstEvery {
		w.list, w.book, w.at = worst(book.ByProxy(24)), book, time.Now()
	}
	return w.list
}

// leastAttempts is how many attempts make a proxy's share of failures mean something. One that never works gets hardly
// more: its breaker opens at the fifth failure.
const leastAttempts = 5

// worst are up to ten proxies that failed, the largest share of failures first.
func worst(proxies []rollup.Proxy) []rollup.Proxy {
	proxies = slices.DeleteFunc(proxies, func(p rollup.Proxy) bool {
		return p.FailureCount == 0 || p.TotalAttempts < leastAttempts || p.ProxyID == rollup.Rest
	})
	share := func(p rollup.Proxy) float64 { return float64(p.FailureCount) / float64(p.TotalAttempts) }
	slices.SortStableFunc(proxies, func(a, b rollup.Proxy) int {
		return cmp.Or(cmp.Compare(share(b), share(a)), cmp.Compare(b.FailureCount, a.FailureCount))
	})
	return proxies[:min(len(proxies), 10)]
}

func short(text string) string {
	if len(text) <= 300 {
		return text
	}
	return strings.ToValidUTF8(text[:297], "") + "…"
}

// maxResting bounds the breakers that a snapshot lists.
const maxResting = 100

// addProxies reads the whole of only those that rest.
func (a *admin) addProxies(s *Snapshot) {
	var resting []rotation.Status
	for id, state := range a.Pool.States() {
		s.Breakers[state.String()]++
		if state == breaker.Closed {
			continue
		}
		if status, found := a.Pool.StatusOf(id); found && status.State != breaker.Closed {
			resting = append(resting, status)
		}
	}
	slices.SortFunc(resting, func(a, b rotation.Status) int {
		return cmp.Or(a.NextTest.Compare(b.NextTest), cmp.Compare(a.ID, b.ID))
	})
	for _, status := range resting[:min(len(resting), maxResting)] {
		s.OpenBreakers = append(s.OpenBreakers, BreakerOf(status))
	}
	a.addReasons(s.OpenBreakers)
}

// addReasons tells of each breaker why it opened last.
func (a *admin) addReasons(resting []Breaker) {
	if len(resting) == 0 {
		return
	}
	reasons := map[string]string{}
	for _, e := range a.Book.BreakerEvents(time.Now().Add(-24 * time.Hour)) {
		if e.ToState == "open" {
			reasons[e.ProxyID] = e.Reason
		}
	}
	for i := range resting {
		resting[i].Reason = short(reasons[resting[i].ProxyID])
	}
}

func (a *admin) queues() []Queue {
	byName := map[string]Queue{}
	g := a.Metrics.Gauges()
	if g.Backlog != nil {
		for name, backlog := range g.Backlog() {
			byName[name] = Queue{Name: name, Backlog: backlog}
		}
	}
	if g.InFlight != nil {
		for name, n := range g.InFlight() {
			q := byName[name]
			q.Name, q.InFlight = name, n
			byName[name] = q
		}
	}
	return slices.SortedFunc(maps.Values(byName), func(a, b Queue) int { return cmp.Compare(a.Name, b.Name) })
}
