package exits

import (
	"slices"
	"time"
)

// believeFor is how long a word counts as working after another worker reported that it works.
const believeFor = time.Minute

// session is what is known of the words of a session. The generations only grow. So two workers that know different states of a
// session agree if both take the larger numbers.
type session struct {
	generation  uint32        // of the word that worked last
	trial       uint32        // of the latest word that was tried because the word before failed
	dropped     uint32        // trials up to this one are over: the older word was kept
	next        uint32        // the lowest generation that was never tried
	foreign     bool          // another worker began the trial
	doubtful    bool          // the trial is not shared with other workers unless its word works
	cause       uint64        // of the failure that began the latest trial; zero after a response
	provenUntil time.Duration // until then the word of generation counts as working, because another worker reported it
	until       time.Duration // when an idle session is forgotten
	word        string        // the word in use; empty until it was derived
	wordOf      uint32        // the generation of word
	cooldowns   []cooldown    // at most maxCooldowns
}

// cooldown keeps the word of a generation from a host until a time.
type cooldown struct {
	host       uint64
	generation uint32
	until      time.Duration
}

// current returns the generation that attempts use.
func (s *session) current() uint32 { return current(s.generation, s.trial, s.dropped) }

// current returns the trial if it is neither over nor older than the generation that worked, else that generation.
func current(generation, trial, dropped uint32) uint32 {
	if trial > max(generation, dropped) {
		return trial
	}
	return generation
}

// hasTrial reports whether a word is tried in place of a word that failed.
func (s *session) hasTrial() bool { return s.trial > max(s.generation, s.dropped) }

// coolsDown reports whether the word of a generation must not be used for a host now.
func (s *session) coolsDown(generation uint32, host uint64, now time.Duration) bool {
	return slices.ContainsFunc(s.cooldowns, func(c cooldown) bool { return c.host == host && c.generation == generation && c.until > now })
}

// relayed notes that the word of a generation works, and reports whether other workers have to hear of it. It ends the trial of
// a later word, unless another worker began the trial: workers follow the higher generation.
func (s *session) relayed(generation uint32) (changed bool) {
	if generation < s.generation {
		return false
	}
	before, used := s.generation, s.current()
	s.generation, s.next = generation, max(s.next, generation+1)
	if s.hasTrial() && !s.foreign {
		s.dropped = s.trial
	}
	if !s.hasTrial() {
		s.cause = 0
	}
	return s.generation != before || s.current() != used
}

// failed notes that the word in use failed, and reports whether the session changed.
func (s *session) failed(cause uint64, doubtful bool, now time.Duration) (changed bool) {
	switch trying := s.hasTrial(); {
	case trying && cause == s.cause:
		s.dropped = s.trial
		return true
	case cause == s.cause && now < s.provenUntil:
		return false // it fails like the word before it, although it works at another worker
	case !trying:
		s.cause, s.doubtful = cause, doubtful
	}
	s.trial, s.foreign = s.next, false // another cause than that of the older word says nothing about the older word
	s.next++
	return true
}
