package fleet

import (
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/rotation/exits"
)

// splitSessions separates the changes about sessions from those about proxies. Both parts keep their order.
func splitSessions(changes []change) (ofSessions, proxies []change) {
	for _, c := range changes {
		if strings.HasPrefix(c.key, sessionPrefix) {
			ofSessions = append(ofSessions, c)
		} else {
			proxies = append(proxies, c)
		}
	}
	return ofSessions, proxies
}

// apply takes over changes of the bucket. If fresh, changes are all keys that it has: a session missing there is written again,
// if this worker still remembers it.
func (s *sessions) apply(fresh bool, changes []change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if fresh {
		before := s.known
		s.known = map[exits.Key]sharedSession{}
		for _, c := range changes {
			s.take(c)
		}
		for key := range before {
			if _, still := s.known[key]; !still {
				s.queue(key)
			}
		}
		return
	}
	for _, c := range changes {
		s.take(c)
	}
}

// take adopts what a key says now. This worker's own writes come back here, too: the pool merges states, so they change nothing.
// The caller holds the lock.
func (s *sessions) take(c change) {
	key, ok := exits.ParseKey(strings.TrimPrefix(c.key, sessionPrefix))
	if c.value == nil {
		delete(s.known, key)
		return
	}
	state, err := readSession(c)
	if err == nil && !ok {
		err = errors.New("the key is not a session key")
	}
	if err != nil {
		s.leaveOut(c.key, err)
		return
	}
	// A new key beyond maxSessions is ignored, so that nobody can fill this worker's memory through the bucket.
	if _, isKnown := s.known[key]; state.Left <= 0 || !isKnown && len(s.known) >= maxSessions {
		return
	}
	state.Key = key
	if !s.cfg.Pool.AdoptSession(state) {
		s.leaveOut(c.key, errors.New("its generation exceeds 2^30"))
		return
	}
	s.record(state, c.revision, c.age, false)
}

// readSession reads a finding. Left is the time that remains now; it is zero or less if the finding is over.
func readSession(c change) (exits.State, error) {
	if len(c.value) > maxSessionValue {
		return exits.State{}, errors.New("it is too long")
	}
	var f SessionFinding
	if err := json.Unmarshal(c.value, &f); err != nil {
		return exits.State{}, err
	}
	if f.Worker == "" {
		return exits.State{}, errors.New("it names no worker")
	}
	return exits.State{Generation: f.Generation, Trial: f.Trial, Dropped: f.Dropped, Cause: f.Cause, Left: f.TTL.Std() - c.age}, nil
}

// leaveOut logs that a key is not valid. The caller holds the lock.
func (s *sessions) leaveOut(key string, err error) {
	if s.isFirst("not valid") {
		s.cfg.Log.Warn("a session that another worker shared is not valid and is left out", "key", key, "error", err)
	}
}

// isFirst reports whether something happens for the first time. Anybody who may write to the bucket, or whose sessions fail, can
// make it happen as often as they like. So the log has one line for each kind while the process runs. The caller holds the lock.
func (s *sessions) isFirst(what string) bool {
	was := s.happened[what]
	s.happened[what] = true
	return !was
}

// record notes what the bucket has, and for how long (age). The worker that wrote it renews it before the others would, so
// mostly one worker writes. A revision that is older than the known one is ignored: answers and changes arrive in any order.
// The caller holds the lock.
func (s *sessions) record(state exits.State, revision uint64, age time.Duration, own bool) {
	if s.known[state.Key].revision > revision {
		return
	}
	// The bucket drops a key at its own maximum age, even if the session is remembered for longer.
	span := state.Left
	if s.kept > 0 {
		span = min(span, s.kept-age)
	}
	early := span / 8
	if own {
		early = span / 4
	}
	now := time.Now()
	s.known[state.Key] = sharedSession{
		generation: state.Generation, current: state.Current(), revision: revision, until: now.Add(span), renew: now.Add(span - early),
	}
}
