package fleet

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// defaultRenew is how often a leader renews its leadership: another worker takes over within 17 s of its death. Each renewal is a
// write, so a shorter interval would burden the server of an idle fleet.
const defaultRenew = 4 * time.Second

// LeaderConfig is what a Leader is made of. All fields but Renew are required.
type LeaderConfig struct {
	// Task names what the leader does: a token of a key.
	Task string
	// Worker is this worker's name, for people.
	Worker string
	// Renew is how often a leader renews its leadership; zero means 4 s. Without Note, other workers poll the key at this
	// interval.
	Renew time.Duration
	// Needed reports whether there is anything to do: a worker tries to lead only while it returns true. It is called often
	// and must not block. Nil means always.
	Needed func() bool
	Log    *slog.Logger
}

// Leader lets one worker of the fleet at a time do a task.
//
// The leadership is a key of the policy's bucket. Workers of earlier versions may write there, too, so an upgrade needs no new
// rights and no new bucket. The leader replaces the value again and again, each time on condition that nobody else has replaced
// it. Clocks of two machines are never compared: a leader gives up 2.5 intervals after it began its latest successful renewal,
// and another worker takes over when it has seen no renewal for 3 intervals. A leader that ends properly deletes the key.
//
// A worker that follows the bucket anyway passes what it sees of the key to Note. While it sees renewals, it asks the server
// nothing, and it takes over as soon as the key is deleted.
//
// A frozen process may keep working briefly after it wakes, so the task must tolerate two leaders for a moment.
type Leader struct {
	cfg   LeaderConfig
	value []byte
	own   string // the instance in value

	// Only the goroutine of Run uses kv, seen, seenAt and failed.
	kv     jetstream.KeyValue // nil until the bucket has answered
	seen   uint64             // the revision that was seen last; zero if there was none
	seenAt time.Time          // when seen changed
	failed bool               // the latest try failed

	freed   chan struct{} // holds one when the key was deleted
	mu      sync.Mutex    // guards the fields below
	noted   uint64        // the revision that was noted last
	notedAt time.Time     // since when; zero while nobody notes anything
}

// leadership is the value of the key. Worker is for people. Instance identifies one start of a worker: a name may be used again
// at once after a crash, and the new process leads nothing yet.
type leadership struct {
	Worker   string `json:"worker"`
	Instance string `json:"instance"`
}

// NewLeader makes a Leader.
func NewLeader(cfg LeaderConfig) *Leader {
	if cfg.Renew == 0 {
		cfg.Renew = defaultRenew
	}
	if cfg.Needed == nil {
		cfg.Needed = func() bool { return true }
	}
	own := rand.Text()
	value, _ := json.Marshal(leadership{Worker: cfg.Worker, Instance: own}) // two texts never fail
	return &Leader{cfg: cfg, value: value, own: own, freed: make(chan struct{}, 1)}
}

// Key is the key of the leadership in the bucket of the policy.
func (l *Leader) Key() string { return "leader." + l.cfg.Task }

// Note takes a change of the key that a bucket follower saw. It does not block. Changes must come in their order.
func (l *Leader) Note(c Change) {
	l.mu.Lock()
	// The bucket may be read again, which renews nothing.
	if c.Value != nil && c.Revision != l.noted {
		l.noted, l.notedAt = c.Revision, time.Now()
	}
	l.mu.Unlock()
	if c.Value == nil {
		select {
		case l.freed <- struct{}{}:
		default: // the deletion before has not been seen yet
		}
	}
}

// Run calls lead whenever this worker is the leader, until ctx ends. The context of lead ends when the leadership does, and lead
// has to return soon after. Between two leaderships of this worker another one may have led, so lead must not trust what it
// remembers. Errors are logged, once for each series of failures.
func (l *Leader) Run(ctx context.Context, js jetstream.JetStream, names jobs.Names, lead func(context.Context)) {
	for ctx.Err() == nil {
		// Needed is asked without a request to the server, so it may be asked often.
		if !l.cfg.Needed() {
			sleep(ctx, l.cfg.Renew/16)
			continue
		}
		err := l.try(ctx, js, names, lead)
		if err != nil && ctx.Err() == nil && !l.failed {
			l.cfg.Log.Warn("cannot read who leads the fleet, trying again", "task", l.cfg.Task, "error", bus.Plain(err))
		}
		l.failed = err != nil
		l.waitForTry(ctx)
	}
}

// waitForTry waits until the next try: an interval, and for as long as a bucket follower notes renewals. It ends early when the
// key is deleted. The jitter keeps the workers of a fleet from trying at the same time.
func (l *Leader) waitForTry(ctx context.Context) {
	jitter := mathrand.N(l.cfg.Renew / 4)
	for wait := l.cfg.Renew - jitter; wait > 0 && ctx.Err() == nil; {
		select {
		case <-ctx.Done():
		case <-l.freed:
			sleep(ctx, jitter) // all workers of a fleet see it at the same time
			return
		case <-time.After(wait):
		}
		l.mu.Lock()
		wait = time.Until(l.notedAt.Add(3*l.cfg.Renew + jitter))
		l.mu.Unlock()
	}
}

// try becomes the leader if nobody else leads, and then leads until the leadership ends. If another worker was faster, that is no
// error. After any other error the bucket is looked up again, because it may have been recreated.
func (l *Leader) try(ctx context.Context, js jetstream.JetStream, names jobs.Names, lead func(context.Context)) error {
	t, err := l.takeOver(ctx, js, names)
	switch {
	case isTaken(err):
		return nil // somebody was faster
	case err != nil:
		l.kv = nil
	case t != nil:
		t.serve(ctx, lead)
	}
	return err
}

// takeOver begins a term by writing the key. It returns nil without an error if another worker leads. The write is conditional on
// the revision that isFree saw, so of several workers one succeeds.
func (l *Leader) takeOver(ctx context.Context, js jetstream.JetStream, names jobs.Names) (t *term, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Renew)
	defer cancel()
	if l.kv == nil {
		if l.kv, err = js.KeyValue(ctx, names.Bucket("policy")); err != nil {
			return nil, err
		}
	}
	free, err := l.isFree(ctx)
	if err != nil || !free {
		return nil, err
	}
	t = &term{Leader: l, revision: l.seen, began: time.Now()}
	return t, t.renew(ctx)
}

// isFree reads the key and reports whether this worker may take the leadership over from the revision that it has seen. An
// unchanged revision counts from when this worker saw it first, whatever the clock of its writer says.
func (l *Leader) isFree(ctx context.Context) (bool, error) {
	entry, err := l.kv.Get(ctx, l.Key())
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		l.seen = 0
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if entry.Revision() != l.seen {
		l.seen, l.seenAt = entry.Revision(), time.Now()
		l.mu.Lock()
		if l.noted == l.seen {
			l.seenAt = l.notedAt
		}
		l.mu.Unlock()
	}
	var now leadership
	_ = json.Unmarshal(entry.Value(), &now)                                    // what cannot be read is not renewed
	return now.Instance == l.own || time.Since(l.seenAt) >= 3*l.cfg.Renew, nil // the key is ours if a renewal's answer was lost
}

// isTaken reports whether somebody else has written the key.
func isTaken(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return errors.Is(err, jetstream.ErrKeyExists) || ok && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// term is one leadership of this worker.
type term struct {
	*Leader
	revision uint64    // of the key, as written last
	began    time.Time // when the latest successful renewal began; its end would be too late: others count from the write
}

// renew writes the key on condition that nobody else has written it since. Its error may be that of isTaken.
func (t *term) renew(ctx context.Context) (err error) {
	began := time.Now()
	if t.revision == 0 {
		t.revision, err = t.kv.Create(ctx, t.Key(), t.value)
		return err
	}
	revision, err := t.kv.Update(ctx, t.Key(), t.value, t.revision)
	if err == nil {
		t.revision, t.began = revision, began
	}
	return err
}

// left returns how long the leadership lasts without another renewal. Another worker takes over half an interval later: lead has
// that long to return.
func (t *term) left() time.Duration { return t.cfg.Renew*5/2 - time.Since(t.began) }

// serve calls lead, renews the leadership meanwhile, and returns when lead has returned. A leadership that cannot be renewed in
// time ends the context of lead. A renewal that fails is tried again after an interval, because the server may be back in time.
func (t *term) serve(ctx context.Context, lead func(context.Context)) {
	t.cfg.Log.Debug("became leader of task", "task", t.cfg.Task)
	leading, end := context.WithCancel(ctx)
	defer end()
	// The timer and not a renewal ends the term, because a request may hang for longer than the term lasts.
	expiry := time.AfterFunc(t.left(), end)
	defer expiry.Stop()
	var task sync.WaitGroup
	task.Go(func() {
		defer end()
		lead(leading)
	})
	for sleep(leading, t.cfg.Renew); leading.Err() == nil; sleep(leading, t.cfg.Renew) {
		asking, cancel := context.WithTimeout(leading, t.cfg.Renew)
		err := t.renew(asking)
		cancel()
		switch {
		case err == nil:
			expiry.Reset(t.left())
		case isTaken(err):
			end()
		}
	}
	task.Wait()
	t.resign(ctx)
}

// resign deletes the key, so that another worker takes over at once. If the key cannot be deleted, another worker takes over
// later. It also works when ctx has ended, which is the usual reason to resign.
func (t *term) resign(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.cfg.Renew)
	defer cancel()
	if err := t.kv.Delete(ctx, t.Key(), jetstream.LastRevision(t.revision)); err != nil {
		t.cfg.Log.Debug("leadership not given up", "task", t.cfg.Task, "error", err)
	}
}

// sleep waits for d. It returns early when ctx ends; the caller asks ctx.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
