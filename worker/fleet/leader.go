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
)

// defaultRenew is how often a leader renews its leadership: another worker takes over within 17 s of its death.
const defaultRenew = 4 * time.Second

// LeaderConfig is what a Leader is made of. All fields but Renew are required.
type LeaderConfig struct {
	// Task names what the leader does: a token of a key.
	Task string
	// Worker is this worker's name, for people.
	Worker string
	// Renew is how often a leader renews its leadership and the others read it; zero means 4 s.
	Renew time.Duration
	Log   *slog.Logger
}

// Leader lets one worker of the fleet at a time do a task.
//
// The leadership is a key of the policy's bucket, because workers may write there already: a fleet that is upgraded needs no
// new rights and no new bucket for it. Its leader replaces the value again and again, each time on condition that nobody else
// has. No clock is compared with another one: a leader gives up 2.5 intervals after it began its latest successful renewal,
// and another worker takes over when it has seen no renewal for 3 intervals. A leader that ends properly deletes the key.
//
// A frozen process may go on for a moment when it wakes. The task has to bear that.
type Leader struct {
	cfg   LeaderConfig
	value []byte
	own   string // this run of the worker

	kv     jetstream.KeyValue // nil until the bucket has answered
	seen   uint64             // the revision that was seen last; zero if there was none
	seenAt time.Time          // since when
	failed bool               // the latest try did
}

// leadership is the value of the key.
type leadership struct {
	Worker   string `json:"worker"`
	Instance string `json:"instance"`
}

// NewLeader makes a Leader.
func NewLeader(cfg LeaderConfig) *Leader {
	if cfg.Renew == 0 {
		cfg.Renew = defaultRenew
	}
	own := rand.Text()
	value, _ := json.Marshal(leadership{Worker: cfg.Worker, Instance: own}) // two texts never fail
	return &Leader{cfg: cfg, value: value, own: own}
}

// Run calls lead whenever this worker is the leader, until ctx ends. The context of lead ends when the leadership does, and
// lead has to return soon after.
func (l *Leader) Run(ctx context.Context, js jetstream.JetStream, names jobs.Names, lead func(context.Context)) {
	for ctx.Err() == nil {
		err := l.try(ctx, js, names, lead)
		if err != nil && ctx.Err() == nil && !l.failed {
			l.cfg.Log.Warn("the fleet's leader cannot be found out, trying again", "task", l.cfg.Task, "error", err)
		}
		l.failed = err != nil
		jitter := mathrand.N(l.cfg.Renew / 4)
		sleep(ctx, l.cfg.Renew-jitter)
	}
}

// try becomes the leader if nobody else leads, and then leads until the leadership ends. That another worker was faster
// is no error.
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

// takeOver begins a term by writing the key. It returns nil without an error if another worker leads.
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

// key is the key of the leadership in the bucket.
func (l *Leader) key() string { return "leader." + l.cfg.Task }

// isFree reads the key and reports whether this worker may take the leadership over from the revision that it has seen.
func (l *Leader) isFree(ctx context.Context) (bool, error) {
	entry, err := l.kv.Get(ctx, l.key())
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		l.seen = 0
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if entry.Revision() != l.seen {
		l.seen, l.seenAt = entry.Revision(), time.Now()
	}
	var now leadership
	_ = json.Unmarshal(entry.Value(), &now)                                    // what cannot be read is not renewed
	return now.Instance == l.own || time.Since(l.seenAt) >= 3*l.cfg.Renew, nil // own: the answer to a renewal was lost
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
	began    time.Time // when the latest successful renewal began
}

// renew writes the key on condition that nobody else has written it since. Its error may be that of isTaken.
func (t *term) renew(ctx context.Context) (err error) {
	began := time.Now()
	if t.revision == 0 {
		t.revision, err = t.kv.Create(ctx, t.key(), t.value)
		return err
	}
	revision, err := t.kv.Update(ctx, t.key(), t.value, t.revision)
	if err == nil {
		t.revision, t.began = revision, began
	}
	return err
}

// left returns how long the leadership lasts without another renewal. It is shorter than the time after which another
// worker takes over.
func (t *term) left() time.Duration { return t.cfg.Renew*5/2 - time.Since(t.began) }

// serve calls lead, renews the leadership meanwhile, and returns when lead has returned. A leadership that cannot be
// renewed in time ends the context of lead.
func (t *term) serve(ctx context.Context, lead func(context.Context)) {
	t.cfg.Log.Debug("leads the fleet", "task", t.cfg.Task)
	leading, end := context.WithCancel(ctx)
	defer end()
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

// resign deletes the key, so that another worker takes over at once. If the key cannot be deleted, another worker takes
// over later.
func (t *term) resign(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.cfg.Renew)
	defer cancel()
	if err := t.kv.Delete(ctx, t.key(), jetstream.LastRevision(t.revision)); err != nil {
		t.cfg.Log.Debug("leadership not given up", "task", t.cfg.Task, "error", err)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
