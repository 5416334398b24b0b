package exits

import (
	"encoding/hex"
	"time"
)

const (
	// MaxShared bounds the generations that workers share. A session does not fail a billion times while it is in use, so a
	// higher number is a mistake, and a worker can go on counting from this one without an overflow.
	MaxShared = 1 << 30
	// maxLeft bounds how long a session is remembered that only other workers use.
	maxLeft = 24 * time.Hour
	// maxChanged bounds the sessions that wait for Changed.
	maxChanged = 10_000
)

// Key names a session in the fleet: a hash of the fleet's prefix, the gateway and the session, the same on every worker.
type Key [16]byte

// String writes the key as 32 hexadecimal digits.
func (k Key) String() string { return hex.EncodeToString(k[:]) }

// ParseKey reads what String writes.
func ParseKey(text string) (k Key, ok bool) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(k) {
		return Key{}, false
	}
	k = Key(raw)
	return k, k.String() == text
}

// State is what workers share of a session. Of two states of one session the larger one of each number counts.
type State struct {
	Key Key
	// Generation is that of the word that worked last. Trial is that of the latest word that was tried because the word before
	// failed. Trials up to Dropped are over: the older word was kept.
	Generation, Trial, Dropped uint32
	// Cause is a hash of the failure that began the trial.
	Cause uint64
	// Left is how long the session is remembered if nobody uses it.
	Left time.Duration
}

// Current returns the generation that attempts use.
func (f State) Current() uint32 { return current(f.Generation, f.Trial, f.Dropped) }

// valid reports whether a worker may have written the state.
func (f State) valid() bool { return max(f.Generation, f.Trial, f.Dropped) <= MaxShared && f.Left > 0 }

// note adds a session to those that Changed returns. A session for which there is no room is shared at its next change.
func (w *Words) note(key Key) {
	if w.cfg.Share && len(w.changed) < maxChanged {
		w.changed[key] = struct{}{}
	}
}

// Changed returns at most limit sessions that have changed and that the fleet has to hear of. It returns each change once.
func (w *Words) Changed(limit int) (keys []Key) {
	for key := range w.changed {
		if len(keys) == limit {
			break
		}
		keys = append(keys, key)
		delete(w.changed, key)
	}
	return keys
}

// State returns what the fleet may know of a session. It reports false if there is nothing to share: the session was forgotten,
// it never left its first word, or its numbers are too high. It leaves out a trial that Suspected began.
func (w *Words) State(key Key, now time.Duration) (State, bool) {
	s := w.find(key, now)
	if s == nil {
		return State{}, false
	}
	f := State{Key: key, Generation: s.generation, Trial: s.trial, Dropped: s.dropped, Left: s.until - now}
	switch {
	case s.hasTrial() && s.doubtful:
		f.Trial = 0
	case s.hasTrial():
		f.Cause = s.cause
	}
	return f, f.valid() && max(f.Generation, f.Trial, f.Dropped) > 0
}

// Adopt takes over what another worker knows of a session. If this worker knows more, it shares its state again, because the
// other worker may have overwritten it. Adopt reports false for a state that no worker writes.
func (w *Words) Adopt(f State, now time.Duration) bool {
	if !f.valid() {
		return false
	}
	s := w.find(f.Key, now)
	if s == nil {
		if f.Current() == 0 {
			return true
		}
		s = w.add(f.Key, now)
	}
	s.adopt(f, now)
	if own, ok := w.State(f.Key, now); ok && (own.Generation > f.Generation || own.Current() != f.Current()) {
		w.note(f.Key)
	}
	return true
}

// adopt takes the larger one of each number.
func (s *session) adopt(f State, now time.Duration) {
	s.until = max(s.until, now+min(f.Left, maxLeft))
	s.dropped = max(s.dropped, f.Dropped)
	if f.Generation > s.generation {
		s.generation, s.provenUntil = f.Generation, now+believeFor
	}
	isTrial := f.Current() == f.Trial && f.Trial > f.Generation
	if isTrial && f.Trial > max(s.generation, s.dropped) {
		s.doubtful = false // the fleet tries another word, too
		if f.Trial > s.trial {
			s.foreign, s.cause = true, f.Cause
		}
	}
	s.trial = max(s.trial, f.Trial)
	s.next = max(s.next, s.generation+1, s.trial+1, s.dropped+1)
}
