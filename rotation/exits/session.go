package exits

import (
	"slices"
	"time"
)

// believeFor is how long a word is believed to work because it does at another worker.
const believeFor = time.Minute

// session is what is known of the words of a session. The generations only grow, so that two workers that know different things
// of a session come to the same by taking the larger ones.
type session struct {
	generation uint32        // of the word that works, or that worked last
	trial      uint32        // of the latest word that was to replace it, because it failed
	dropped    uint32        // the trials up to here are over: the older word was kept
	next       uint32        // no generation from here on has been tried
	foreign    bool          // another worker began the trial
	doubtful   bool          // the trial is no news to the fleet unless it succeeds
	cause      uint64        // of the failure that began the latest trial, zero after a response
	proven     time.Duration // until then the word is believed to work, because it does at another worker
	until      time.Duration
	word       string // that is used, empty before it was derived; wordOf is its generation
	wordOf     uint32
	cooldowns  []cooldown
}

// cooldown says that the word of a generation is not used for a host.
type cooldown struct {
	host       uint64
	generation uint32
	until      time.Duration
}

// current is the generation that attempts use.
func (s *session) current() uint32 { return current(s.generation, s.trial, s.dropped) }

func current(generation, trial, dropped uint32) uint32 {
	if trial > max(generation, dropped) {
		return trial
	}
	return generation
}

// tries reports whether a word is tried in place of one that failed.
func (s *session) tries() bool { return s.trial > max(s.generation, s.dropped) }

func (s *session) cools(generation uint32, host uint64, now time.Duration) bool {
	return slices.ContainsFunc(s.cooldowns, func(c cooldown) bool { return c.host == host && c.generation == generation && c.until > now })
}

// relayed notes that a word works, and reports whether that is news. A word that works ends the trial of a later one, unless
// another worker began that: of two workers the one with the higher generation is followed.
func (s *session) relayed(generation uint32) (changed bool) {
	if generation < s.generation {
		return false
	}
	before, used := s.generation, s.current()
	s.generation, s.next = generation, max(s.next, generation+1)
	if s.tries() && !s.foreign {
		s.dropped = s.trial
	}
	if !s.tries() {
		s.cause = 0
	}
	return s.generation != before || s.current() != used
}

// failed notes that the word in use failed, and reports whether that is news.
func (s *session) failed(cause uint64, doubtful bool, now time.Duration) (changed bool) {
	switch tries := s.tries(); {
	case tries && cause == s.cause:
		s.dropped = s.trial
		return true
	case cause == s.cause && now < s.proven:
		return false // it fails like the word before, and works at another worker
	case !tries:
		s.cause, s.doubtful = cause, doubtful
	}
	s.trial, s.foreign = s.next, false // a word that fails in its own way says nothing about the older one
	s.next++
	return true
}
