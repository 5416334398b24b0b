package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/gofer-mq/gofer/jobs/text"
)

const (
	livePath   = "/api/v1/live"
	livePeriod = time.Second
	// earlyPeriod is the time between the first snapshots, at most earlySnapshots, while the fleet has not answered. So a page
	// shows the workers of a large fleet as soon as they have answered.
	earlyPeriod    = livePeriod / 4
	earlySnapshots = 4
	// firstPatience is how long the first snapshot of a page waits for answers. A later snapshot has the answers that come after
	// that.
	firstPatience = 250 * time.Millisecond
	// maxStreams is the bound of open streams if Config.MaxStreams is zero.
	maxStreams = 64
	// writeTimeout ends a stream whose client reads nothing for this time.
	writeTimeout = 3 * time.Second
	// writeBuffer is the size of the socket's write buffer. The default is megabytes, which a stream needs minutes to
	// fill.
	writeBuffer = 64 << 10
)

// live streams a snapshot a second as server-sent events. The first event of a stream is complete; each later one has
// only the members that changed. All streams that watch the same worker, or the fleet, share one snapshot. So a hundred
// pages cost the worker as much as one, except for the writing.
type live struct {
	snapshot func(ctx context.Context, worker string) Snapshot
	limit    int // streams that may be open at once

	// making lets one stream make a snapshot for all streams that watch the same worker.
	making singleflight.Group

	mu    sync.Mutex // guards the fields below
	open  int
	feeds map[string]*feed // by the worker that is watched; empty for the fleet
}

// feed is the newest snapshot of a worker or the fleet. It does not change once it is made.
type feed struct {
	made    time.Time
	number  int
	isEarly bool // the next one follows after earlyPeriod
	members map[string]json.RawMessage
	whole   []byte
	// deltas are what changed from each of the latest snapshots to the next one, the newest last. Streams do not tick together,
	// so one may have missed a snapshot that another one had made.
	deltas [][]byte
}

// maxDeltas is how many snapshots a stream may miss before it gets a whole one. A stream that missed more has a slow
// client; a complete snapshot is then smaller than the changes.
const maxDeltas = 4

// since are the events for a stream that has seen the snapshot of a number; -1 means none.
func (f *feed) since(seen int) [][]byte {
	// missed is below zero if all streams had left, so that the numbers began again.
	missed := f.number - seen
	if seen < 0 || missed > len(f.deltas) || missed < 0 {
		return [][]byte{f.whole}
	}
	return f.deltas[len(f.deltas)-missed:]
}

// serve streams snapshots until the client disconnects or the server shuts down. A client that reads nothing for
// writeTimeout is disconnected.
func (l *live) serve(w http.ResponseWriter, r *http.Request) error {
	worker, err := watchedOf(r)
	if err != nil {
		return err
	}
	// The stream is counted before the first byte, so the answer can still be an error.
	if !l.enter() {
		return failure{status: http.StatusServiceUnavailable, code: "busy", message: "too many pages are watching"}
	}
	defer l.leave()
	w.Header().Set("Content-Type", "text/event-stream")
	// HEAD has no body, so it must not hold a stream open.
	if r.Method == http.MethodHead {
		return nil
	}
	if conn, ok := r.Context().Value(connKey{}).(interface{ SetWriteBuffer(bytes int) error }); ok {
		_ = conn.SetWriteBuffer(writeBuffer) // without it, it only takes longer
	}
	l.stream(w, r, worker)
	return nil
}

// maxWorkerName bounds the name of a worker that a stream asks for.
const maxWorkerName = 256

// watchedOf reads the parameter worker; empty means the whole fleet.
func watchedOf(r *http.Request) (string, error) {
	worker := r.URL.Query().Get("worker")
	if len(worker) > maxWorkerName {
		return "", badRequest("worker: " + clip(worker) + "… is not the name of a worker")
	}
	return worker, nil
}

// stream sends until the client disconnects.
func (l *live) stream(w http.ResponseWriter, r *http.Request, worker string) {
	// The controller sets deadlines of this connection, since WriteTimeout of the server would cut every
	// stream.
	control := http.NewResponseController(w)
	tick := time.NewTicker(livePeriod)
	defer tick.Stop()
	seen, wasEarly := -1, false
	for {
		f := l.current(r.Context(), worker)
		if f.isEarly != wasEarly {
			tick.Reset(f.period())
			wasEarly = f.isEarly
		}
		for _, data := range f.since(seen) {
			// The deadline is set again for each event: only a reader that takes nothing for writeTimeout is
			// dropped.
			_ = control.SetWriteDeadline(time.Now().Add(writeTimeout))
			if _, err := fmt.Fprintf(w, "data: %s\n\n", data); err != nil {
				return
			}
			if err := control.Flush(); err != nil {
				return
			}
		}
		// Marked as seen only after all events are written, so a failed write loses none: the stream ends then.
		seen = f.number
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

// enter counts a new stream. It reports false if MaxStreams are open; leave counts it back.
func (l *live) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.limit {
		return false
	}
	l.open++
	return true
}

// leave ends the count of a stream that enter began. With the last stream the snapshots are dropped.
func (l *live) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open--; l.open == 0 {
		l.feeds = nil
	}
}

// current makes a new snapshot when the last one is old. Streams that ask meanwhile wait for that one.
func (l *live) current(ctx context.Context, worker string) *feed {
	// The usual case needs no singleflight: most streams find the snapshot that another one has just made.
	if last := l.last(worker); last.isFresh() {
		return last
	}
	made, _, _ := l.making.Do(worker, func() (any, error) {
		last := l.last(worker)
		if last.isFresh() {
			return last, nil // it was made since the check above
		}
		// The other streams need the snapshot, too, so it does not end with the request that makes it.
		// last is nil for the first snapshot after all streams had left.
		patience := livePeriod
		if last == nil || last.isEarly {
			patience = firstPatience
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		next := last.follow(l.snapshot(ctx, worker))
		l.keep(worker, next)
		return next, nil
	})
	return made.(*feed)
}

// keep makes a feed the newest one of a worker. Feeds without a recent stream are forgotten.
func (l *live) keep(worker string, f *feed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.feeds == nil {
		l.feeds = map[string]*feed{}
	}
	// A page that watches a single worker leaves its feed behind when it closes. Ten periods are enough for one
	// that reconnects.
	maps.DeleteFunc(l.feeds, func(_ string, old *feed) bool { return time.Since(old.made) > 10*livePeriod })
	l.feeds[worker] = f
}

func (l *live) last(worker string) *feed {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.feeds[worker]
}

// isFresh reports whether a feed need not be made again. A nil receiver is not fresh. Nine tenths, because
// tickers jitter: a stream that ticks a little early would otherwise get the old snapshot and be a second late.
func (f *feed) isFresh() bool { return f != nil && time.Since(f.made) < f.period()*9/10 }

// period is the time until the next feed.
func (f *feed) period() time.Duration {
	if f.isEarly {
		return earlyPeriod
	}
	return livePeriod
}

// follow is the feed of the snapshot after f, which is nil for the first one.
func (f *feed) follow(s Snapshot) *feed {
	// A Snapshot has only fields that can be encoded, so no error is possible.
	whole, _ := json.Marshal(s) // plain data
	whole = text.JSON(whole)
	next := &feed{made: time.Now(), whole: whole}
	_ = json.Unmarshal(whole, &next.members) // never fails: it was just encoded
	if f == nil {
		next.isEarly = s.isPartial
		return next
	}
	next.number = f.number + 1
	next.isEarly = s.isPartial && next.number < earlySnapshots
	var delta bytes.Buffer
	// The members are sorted, so that the same change has the same bytes.
	for _, name := range slices.Sorted(maps.Keys(next.members)) {
		if !bytes.Equal(next.members[name], f.members[name]) {
			// Only whole members are sent. A change inside a list repeats the list, which keeps the page's code
			// to one line.
			fmt.Fprintf(&delta, ",%q:%s", name, next.members[name])
		}
	}
	changed := []byte("{" + string(bytes.TrimPrefix(delta.Bytes(), []byte(","))) + "}")
	// The clone keeps the old feed unchanged: streams may still be reading its deltas.
	next.deltas = append(slices.Clone(f.deltas[max(0, len(f.deltas)-maxDeltas+1):]), changed)
	return next
}
