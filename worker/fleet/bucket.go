package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs/bus"
)

// change is a key that was set, or deleted if value is nil.
type change struct {
	key      string
	value    []byte
	revision uint64
	// at is when the server stored the change, by its clock. It is shown to people and never compared with another clock.
	at time.Time
	// age is how long ago that was, by the clock of the same server: the clocks of other machines may be wrong. It is never
	// negative.
	age time.Duration
}

// follower applies the changes of one bucket. While run is active, call only watchError.
type follower struct {
	bucket string
	log    *slog.Logger
	// apply is called by one goroutine at a time, in the order of the changes. If fresh, changes are all keys of the bucket, and
	// a key that is not among them is gone. It must not block, because the watch keeps what comes meanwhile in memory.
	apply func(fresh bool, changes []change)
	// restore creates the bucket if it is missing; somebody may have deleted it. It returns nothing, because run asks for the
	// bucket again in either case. Nil leaves that to others.
	restore func(context.Context)

	// mu guards err, which says why the bucket is not followed. It is set (errNotRead) until the bucket was read once.
	mu  sync.Mutex
	err error
}

var (
	// errNotRead and errMissing become part of a sentence that begins with the name of the bucket.
	errNotRead = errors.New("not read yet")
	errMissing = errors.New("it is missing")
)

func newFollower(bucket string, log *slog.Logger, apply func(fresh bool, changes []change)) *follower {
	return &follower{bucket: bucket, log: log, apply: apply, err: errNotRead}
}

// run first replaces everything with the bucket's keys, then applies each change, until ctx ends. If a watch ends, it starts a
// new one and rereads all keys, because some may have been deleted. It also does so after a reconnect, because a server that was
// restarted has forgotten the watch, and when the bucket was created again.
func (f *follower) run(ctx context.Context, js jetstream.JetStream) {
	for ctx.Err() == nil {
		// A key that is set in a new bucket has to apply within a second.
		wait := 250 * time.Millisecond
		err := f.watch(ctx, js)
		switch {
		case err == nil || ctx.Err() != nil:
		case errors.Is(err, jetstream.ErrBucketNotFound), errors.Is(err, jetstream.ErrStreamNotFound):
			f.setError(errMissing)
			if f.restore != nil {
				f.restore(ctx)
			}
		default:
			f.setError(bus.Plain(err))
			// Any other error may pass by itself. A server in trouble is asked once a second.
			wait = time.Second
		}
		sleep(ctx, wait)
	}
}

// setError notes why the bucket is not followed, and logs a reason that is new. The log line is written without the lock. Errors
// are compared by their text, because each try makes a new one.
func (f *follower) setError(err error) {
	f.mu.Lock()
	isNew := f.err == nil || f.err.Error() != err.Error()
	f.err = err
	f.mu.Unlock()
	if isNew {
		f.log.Warn("bucket cannot be read, the last known values stay", "bucket", f.bucket, "error", err)
	}
}

// clearError notes that the bucket is followed.
func (f *follower) clearError() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = nil
}

// watchError is why changes of the bucket do not come through; nil if they do.
func (f *follower) watchError() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		return nil
	}
	return fmt.Errorf("bucket %s: %w", f.bucket, f.err)
}

// watch applies changes until the bucket has to be read again; then it returns nil, or why it cannot be followed.
func (f *follower) watch(ctx context.Context, js jetstream.JetStream) error {
	// The listener comes before the first request, so that no reconnect is missed.
	reconnected := js.Conn().StatusChanged(nats.CONNECTED)
	defer js.Conn().RemoveStatusListener(reconnected)
	// The time of creation is read before the watch begins. If the bucket is created again in between, stillThere notices it.
	clock, err := askClock(ctx, js, f.bucket)
	if err != nil {
		return err
	}
	kv, err := js.KeyValue(ctx, f.bucket)
	if err != nil {
		return err
	}
	watch, err := kv.WatchAll(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = watch.Stop() }()
	// ended has room for one, so that the check never waits for a reader. The deferred calls run from the last to the first: stop
	// ends the check, and only then is it waited for.
	ended := make(chan error, 1)
	checking, stop := context.WithCancel(ctx)
	var check sync.WaitGroup
	defer check.Wait()
	defer stop()
	check.Go(func() { ended <- stillThere(checking, js, f.bucket, clock.made) })
	var first []change
	known := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-reconnected:
			return nil
		case err := <-ended:
			return err
		case entry, open := <-watch.Updates():
			switch {
			case !open:
				return errors.New("the watch ended")
			case entry == nil: // every key that was there has been seen
				f.apply(true, first)
				f.clearError()
				// Only now does the follower count as working: before, keys may have been missing.
				first, known = nil, true
			case known:
				f.apply(false, gather(ctx, watch, clock, entry))
			default:
				first = append(first, clock.changeOf(entry))
			}
		}
	}
}

const (
	// gatherQuiet without a further change ends a gathering of changes. gatherLongest ends it in any case, because a bucket may
	// change all the time.
	gatherQuiet   = 10 * time.Millisecond
	gatherLongest = 250 * time.Millisecond
)

// gather returns a change and those that follow at once: applying one change to a long list costs as much as applying thousands.
func gather(ctx context.Context, watch jetstream.KeyWatcher, c clock, first jetstream.KeyValueEntry) []change {
	changes := []change{c.changeOf(first)}
	quiet, end := time.NewTimer(gatherQuiet), time.NewTimer(gatherLongest)
	defer quiet.Stop()
	defer end.Stop()
	for {
		select {
		case <-ctx.Done():
			return changes
		case <-quiet.C:
			return changes
		case <-end.C:
			return changes
		case entry, open := <-watch.Updates():
			if !open || entry == nil {
				return changes // the caller learns of the end when it reads on
			}
			changes = append(changes, c.changeOf(entry))
			quiet.Reset(gatherQuiet)
		}
	}
}

// A follower checks that the bucket is there, because a watch does not notice that its bucket was deleted: firstCheck after
// the watch began, and then after twice as long each time, up to lastCheck. Somebody who sets up an installation deletes
// and creates buckets, and later each worker of an idle fleet should cost its server little.
const (
	firstCheck = time.Second
	lastCheck  = 32 * time.Second
)

// stillThere returns when the bucket is no longer the one that was made at a time, or when ctx ends. The error is
// ErrStreamNotFound if the bucket is gone, and nil if there is a new one. It ignores a server that does not answer.
func stillThere(ctx context.Context, js jetstream.JetStream, bucket string, made time.Time) error {
	wait := firstCheck
	for sleep(ctx, wait); ctx.Err() == nil; sleep(ctx, wait) {
		wait = min(2*wait, lastCheck)
		switch clock, err := askClock(ctx, js, bucket); {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			return err
		case err == nil && !clock.made.Equal(made):
			return nil
		}
	}
	return nil
}

// askTimeout bounds one request: its answer is lost if the server dies.
const askTimeout = 5 * time.Second

// clock is what the server's clock showed at a time, and when the bucket was made. The clocks of this machine and of the server
// are never compared: ages are differences of the server's clock.
type clock struct{ server, asked, made time.Time }

// askClock reads the server's clock. The answer is as old as its way back, so ages are too small by that time, at most
// askTimeout.
func askClock(ctx context.Context, js jetstream.JetStream, bucket string) (clock, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	stream, err := js.Stream(ctx, "KV_"+bucket)
	if err != nil {
		return clock{}, err
	}
	return clock{server: stream.CachedInfo().TimeStamp, asked: time.Now(), made: stream.CachedInfo().Created}, nil
}

// changeOf makes a change of an entry. Any operation but a put deletes the key.
func (c clock) changeOf(entry jetstream.KeyValueEntry) change {
	// The time since the server was asked is measured on the monotonic clock.
	now := c.server.Add(time.Since(c.asked))
	out := change{key: entry.Key(), revision: entry.Revision(), at: entry.Created(), age: max(0, now.Sub(entry.Created()))}
	if entry.Operation() == jetstream.KeyValuePut {
		out.value = entry.Value()
	}
	return out
}
