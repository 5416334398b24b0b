package fleet

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/rotation/exits"
)

// SessionFinding is the value under sessionPrefix and the key of a session in the bucket of breakers: the session's exit
// failed. An older worker reads it as an expired finding about a proxy, and ignores it.
type SessionFinding struct {
	Worker string `json:"worker"`
	// The generations and the cause are those of exits.State.
	Generation uint32 `json:"generation,omitempty"`
	Trial      uint32 `json:"trial,omitempty"`
	Dropped    uint32 `json:"dropped,omitempty"`
	Cause      uint64 `json:"cause,omitempty"`
	// TTL is how long the session is remembered if nobody uses it, from when the server stored this.
	TTL jobs.Duration `json:"ttl"`
}

const (
	// sessionPrefix begins the keys of sessions. No id of a proxy holds a dot.
	sessionPrefix = "session."
	// shareEvery is how often changes are written. So a new word that fails at once, too, is dropped before it is shared.
	shareEvery = 200 * time.Millisecond
	// reviewEvery is how often a worker looks for sessions that the fleet would forget although they are in use.
	reviewEvery = time.Second
	// sessionBatch bounds the sessions that are written at once, and sessionWriters how many of them wait for the server.
	sessionBatch, sessionWriters = 200, 8
	// maxSessions bounds the sessions in the bucket. Publishers choose their names.
	maxSessions = 20_000
	// sessionBytes is more than a session takes in the bucket. Sessions take a quarter of its bytes at most, so that findings
	// about proxies always have room.
	sessionBytes = 400
	// maxSessionValue bounds what is read of one key, in bytes: anybody who may write to the bucket chooses its length.
	maxSessionValue = 4096
)

// sessions share the exits of sessions at gateways. A session is written when its exit changed, and again before its time is over
// if it is still in use, so that a worker that starts later finds it. If an entry is lost, old or not valid, each worker decides
// alone.
type sessions struct {
	cfg BreakersConfig

	// mu guards the fields below.
	mu      sync.Mutex
	known   map[exits.Key]sharedSession // what the bucket has, at most maxSessions
	pending []exits.Key                 // to be written, the longest waiting first; each once
	queued  map[exits.Key]struct{}      // the elements of pending
	room    int                         // how many sessions the bucket may have
	kept    time.Duration               // how long the bucket keeps them; zero means without end
	// happened holds events already logged. Its keys are constants of this package, so it stays small.
	happened map[string]bool

	reviewed time.Time // the time of the last review; only run uses it
}

// sharedSession is what the bucket has under the key of a session.
type sharedSession struct {
	generation, current uint32
	revision            uint64
	until               time.Time // when the fleet forgets it
	renew               time.Time // when it is written again if the session is in use
}

// newSessions assumes the bounds of a bucket that gofer creates; open reads the real ones before the first write.
func newSessions(cfg BreakersConfig) *sessions {
	return &sessions{
		cfg: cfg, known: map[exits.Key]sharedSession{}, queued: map[exits.Key]struct{}{}, room: maxSessions, kept: time.Hour, happened: map[string]bool{},
	}
}

// queue lists a session to be written. Only its key is kept: the state is read when it is written, so the newest one is. The
// caller holds the lock.
func (s *sessions) queue(key exits.Key) {
	if _, isQueued := s.queued[key]; isQueued {
		return
	}
	if len(s.pending) >= maxUpdates {
		if s.isFirst("no place in the queue") {
			s.cfg.Log.Warn("cannot share exits of sessions with the fleet, too many changes wait to be published")
		}
		return
	}
	s.pending = append(s.pending, key)
	s.queued[key] = struct{}{}
}

// run writes what changed until ctx ends. While the connection is down nothing is written: the client would keep the message and
// send it when it is no longer true.
func (s *sessions) run(ctx context.Context, js jetstream.JetStream, bucket string) {
	var kv jetstream.KeyValue
	var failing bool
	var notBefore time.Time // no write before, because the latest one failed
	tick := time.NewTicker(shareEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		batch := s.collect()
		if len(batch) == 0 || time.Now().Before(notBefore) || !js.Conn().IsConnected() {
			continue
		}
		var err error
		if kv, err = s.flush(ctx, js, bucket, kv, batch); err != nil {
			notBefore = time.Now().Add(time.Second)
		}
		if err != nil && !failing && ctx.Err() == nil {
			s.cfg.Log.Warn("cannot share exits of sessions with the fleet, the other workers judge by themselves", "error", err)
		}
		failing = err != nil
	}
}

// collect queues what changed and what has to be written again. It returns the first batch without removing it: done removes a
// session when the server has answered.
func (s *sessions) collect() []exits.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		// The pool gives a batch at a time, so that its lock is never held for long.
		changed := s.cfg.Pool.ChangedSessions(sessionBatch)
		for _, key := range changed {
			s.queue(key)
		}
		if len(changed) < sessionBatch {
			break
		}
	}
	if now := time.Now(); now.Sub(s.reviewed) >= reviewEvery {
		s.reviewed = now
		s.review(now)
	}
	return slices.Clone(s.pending[:min(len(s.pending), sessionBatch)])
}

// review queues the sessions in use that the fleet would forget soon. The caller holds the lock. What the fleet has forgotten is
// no longer known here either, so a session that is used again later counts as new.
func (s *sessions) review(now time.Time) {
	for key, k := range s.known {
		if now.Before(k.renew) {
			continue
		}
		if state, ok := s.cfg.Pool.SessionState(key); ok && k.endsBefore(state, now) {
			s.queue(key)
		}
		if now.After(k.until) {
			delete(s.known, key)
		}
	}
}

// endsBefore reports whether the fleet would forget a session that this worker remembers. A difference below the slack is not
// worth a write.
func (k sharedSession) endsBefore(state exits.State, now time.Time) bool {
	slack := min(time.Second, state.Left/4)
	return now.Add(state.Left - slack).After(k.until)
}

// flush writes a batch, and returns the bucket for the next one; nil means that it has to be looked up. Sessions with temporary
// failures stay queued. The writers share no session, because a batch names each once.
func (s *sessions) flush(ctx context.Context, js jetstream.JetStream, bucket string, kv jetstream.KeyValue, batch []exits.Key) (jetstream.KeyValue, error) {
	if kv == nil {
		var err error
		if kv, err = s.open(ctx, js, bucket); err != nil {
			return nil, err
		}
	}
	// Each write waits for its answer, so one writer would store few sessions a second over a slow link. Chunk makes one part for
	// each sender of errs: the loop below counts on it.
	each := (len(batch) + sessionWriters - 1) / sessionWriters
	errs := make(chan error, sessionWriters)
	for part := range slices.Chunk(batch, each) {
		go func() { errs <- s.writeSome(ctx, kv, part) }()
	}
	var first error
	for range (len(batch) + each - 1) / each {
		if err := <-errs; err != nil {
			first = err
		}
	}
	if first != nil {
		return nil, first
	}
	return kv, nil
}

// open looks the bucket up, and how much room it has. The owner may have set other bounds since the last look-up.
func (s *sessions) open(ctx context.Context, js jetstream.JetStream, bucket string) (jetstream.KeyValue, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	stream, err := js.Stream(ctx, "KV_"+bucket)
	if err != nil {
		return nil, err
	}
	kv, err := js.KeyValue(ctx, bucket)
	s.mu.Lock()
	defer s.mu.Unlock()
	limits := stream.CachedInfo().Config
	s.kept, s.room = limits.MaxAge, maxSessions
	if limits.MaxBytes > 0 {
		s.room = int(min(maxSessions, limits.MaxBytes/4/sessionBytes))
	}
	return kv, err
}

// writeSome writes sessions one by one until a write fails. A session that the server refuses for good leaves the queue, or it
// would be tried for ever.
func (s *sessions) writeSome(ctx context.Context, kv jetstream.KeyValue, keys []exits.Key) error {
	for _, key := range keys {
		state, needsWrite := s.needsWrite(key)
		if !needsWrite {
			s.done(key)
			continue
		}
		revision, err := s.write(ctx, kv, state)
		if err == nil || !bus.CuredByWaiting(err) {
			s.done(key)
		}
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.record(state, revision, 0, true)
		s.mu.Unlock()
	}
	return nil
}

// needsWrite returns the current state of a session, and whether it must be written: the fleet does not know it, or would forget
// it.
func (s *sessions) needsWrite(key exits.Key) (state exits.State, needsWrite bool) {
	state, ok := s.cfg.Pool.SessionState(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	k, known := s.known[key]
	switch now := time.Now(); {
	case !ok:
		return state, false
	// A session that the bucket has is written for a new generation at once, and for its time only when that is nearly over.
	case known:
		return state, k.generation != state.Generation || k.current != state.Current() || now.After(k.renew) && k.endsBefore(state, now)
	// The session still uses its first word, which all workers derive alike.
	case state.Current() == 0:
		return state, false
	case len(s.known) >= s.room:
		if s.isFirst("no room in the bucket") {
			s.cfg.Log.Warn("cannot share exits of further sessions with the fleet, it shares as many as it can", "sessions", s.room)
		}
		return state, false
	}
	return state, true
}

// write stores a state, and returns its revision. A put without a condition is enough, because each worker merges the states that
// it reads.
func (s *sessions) write(ctx context.Context, kv jetstream.KeyValue, state exits.State) (revision uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	data, err := json.Marshal(SessionFinding{
		Worker: s.cfg.Worker, Generation: state.Generation, Trial: state.Trial, Dropped: state.Dropped, Cause: state.Cause,
		TTL: jobs.Duration(state.Left.Round(time.Millisecond)),
	})
	if err != nil {
		return 0, err
	}
	return kv.Put(ctx, sessionPrefix+state.Key.String(), data)
}

// done takes a session off the queue.
func (s *sessions) done(key exits.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.queued, key)
	if i := slices.Index(s.pending, key); i >= 0 {
		s.pending = slices.Delete(s.pending, i, i+1)
	}
}
