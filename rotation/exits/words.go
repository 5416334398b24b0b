// Package exits names the exits of gateways, and holds what is known of them.
//
// A gateway is a proxy with one address and many exits. A word in its user information chooses the exit. An attempt without a session
// takes a fresh word, of which nothing is kept. The word of a session is derived from the fleet's prefix, the gateway, the session and
// a generation, so that all workers derive the same one. The generation advances when the exit fails.
//
// The package is pure: it has no lock, no clock and no I/O. Times are durations on one clock of the caller's choice.
package exits

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// wordLength is the length of a word in lower-case letters and digits, and words is how many there are.
	wordLength = 12
	words      = 36 * 36 * 36 * 36 * 36 * 36 * 36 * 36 * 36 * 36 * 36 * 36
	// MaxSessions bounds the sessions that are remembered. Only sessions whose exit failed or cools down are.
	MaxSessions = 100_000
	// maxSteps bounds how many generations one pick goes on to find a word that has not failed its job.
	maxSteps = 16
	// maxCooldowns bounds the hosts for which the words of one session cool down.
	maxCooldowns = 8
)

// Config configures Words. The zero value is usable.
type Config struct {
	// Prefix is the fleet's: two fleets derive different words.
	Prefix string
	// Rand draws fresh words; nil means the global source.
	Rand *rand.Rand
}

// Words hands out the words of exits. Make it with New. It must not be shared between goroutines without a lock.
type Words struct {
	cfg        Config
	seed       maphash.Seed
	young, old map[uint64]*session // two halves: when the young half is full, the old half is dropped
}

// New makes Words.
func New(cfg Config) *Words { return &Words{cfg: cfg, seed: maphash.MakeSeed()} }

// Session names a session at a gateway.
type Session struct {
	Gateway, Name string
	// TTL is how long the session may be idle until it is forgotten.
	TTL time.Duration
}

// Exit is the exit of one attempt.
type Exit struct {
	Word       string
	Generation uint32
	// Aside is true if the word of the session cools down for the host. Then the session does not move.
	Aside bool
}

// session is what is known of the words of a session.
type session struct {
	generation uint32 // of the word that works, or that worked last
	trial      uint32 // of the word that replaces it, because it failed; zero without one
	next       uint32 // no generation from here on has been tried
	cause      uint64 // of the failure
	until      time.Duration
	cooldowns  []cooldown
}

// cooldown says that the word of a generation is not used for a host.
type cooldown struct {
	host       uint64
	generation uint32
	until      time.Duration
}

// current is the generation that attempts use.
func (s *session) current() uint32 { return max(s.generation, s.trial) }

// Fresh draws a word.
func (w *Words) Fresh() Exit {
	if w.cfg.Rand != nil {
		return Exit{Word: spell(w.cfg.Rand.Uint64N(words))}
	}
	return Exit{Word: spell(rand.Uint64N(words))}
}

// spell writes a number below words.
func spell(n uint64) string {
	digits := strconv.FormatUint(n, 36)
	return strings.Repeat("0", wordLength-len(digits)) + digits
}

// derive returns the word of a generation of a session.
func (w *Words) derive(of Session, generation uint32) string {
	sum := hmac.New(sha256.New, []byte(w.cfg.Prefix))
	_, _ = sum.Write([]byte(of.Gateway + "\x00" + of.Name + "\x00" + strconv.FormatUint(uint64(generation), 10)))
	return spell(binary.BigEndian.Uint64(sum.Sum(nil)) % words)
}

// Sticky returns the exit of a session for a host, which is given as a hash. Words that are avoided, because they failed the job,
// make room for later generations.
func (w *Words) Sticky(of Session, host uint64, avoid []string, now time.Duration) Exit {
	s := w.get(of, now)
	if s == nil {
		s = &session{next: 1}
	}
	exit := Exit{Generation: s.current()}
	if s.cools(exit.Generation, host, now) {
		exit.Generation, exit.Aside = s.next, true
	}
	for step := 0; ; step++ {
		exit.Word = w.derive(of, exit.Generation)
		if step == maxSteps || !slices.Contains(avoid, exit.Word) && !s.cools(exit.Generation, host, now) {
			return exit
		}
		exit.Generation = max(exit.Generation+1, s.next)
	}
}

func (s *session) cools(generation uint32, host uint64, now time.Duration) bool {
	return slices.ContainsFunc(s.cooldowns, func(c cooldown) bool { return c.host == host && c.generation == generation && c.until > now })
}

// Relayed notes that a response came through the exit. A later generation than that of the session becomes the session's.
func (w *Words) Relayed(of Session, exit Exit, now time.Duration) {
	s := w.get(of, now)
	switch {
	case exit.Aside || exit.Generation == 0 && s == nil:
		return
	case s == nil:
		s = w.add(of, now)
	}
	if exit.Generation >= s.generation {
		s.generation, s.trial, s.next = exit.Generation, 0, max(s.next, exit.Generation+1)
	}
}

// Failed notes that the exit failed. The cause is a hash of what happened and where. A word that fails like the one before it is
// dropped, and the older one is kept: what fails alike through two exits is not the exits' fault.
func (w *Words) Failed(of Session, exit Exit, cause uint64, now time.Duration) {
	s := w.get(of, now)
	if s == nil {
		s = w.add(of, now)
	}
	s.next = max(s.next, exit.Generation+1)
	switch {
	case exit.Aside || exit.Generation != s.current():
		return // the session has another word already
	case s.trial > 0 && cause == s.cause:
		s.trial = 0
		return
	case s.trial == 0:
		s.cause = cause
	}
	s.trial = s.next // a word that fails in its own way says nothing about the older one
	s.next++
}

// Cool keeps the exit of a session from a host until a time.
func (w *Words) Cool(of Session, exit Exit, host uint64, until, now time.Duration) {
	s := w.get(of, now)
	if s == nil {
		s = w.add(of, now)
	}
	s.cooldowns = slices.DeleteFunc(s.cooldowns, func(c cooldown) bool { return c.until <= now })
	if len(s.cooldowns) == maxCooldowns {
		s.cooldowns = s.cooldowns[1:]
	}
	s.cooldowns = append(s.cooldowns, cooldown{host, exit.Generation, until})
	s.next = max(s.next, exit.Generation+1)
}

// Sessions is how many sessions are remembered.
func (w *Words) Sessions() int { return len(w.young) + len(w.old) }

func (w *Words) key(of Session) uint64 {
	return maphash.Comparable(w.seed, [2]string{of.Gateway, of.Name})
}

// get returns what is known of a session, nil without anything, and notes that the session is used.
func (w *Words) get(of Session, now time.Duration) *session {
	key := w.key(of)
	s := w.young[key]
	if s == nil {
		if s = w.old[key]; s == nil {
			return nil
		}
		delete(w.old, key)
		w.put(key, s)
	}
	if s.until < now {
		delete(w.young, key)
		return nil
	}
	s.until = now + of.TTL
	return s
}

func (w *Words) add(of Session, now time.Duration) *session {
	s := &session{next: 1, until: now + of.TTL}
	w.put(w.key(of), s)
	return s
}

func (w *Words) put(key uint64, s *session) {
	if w.young == nil || len(w.young) >= MaxSessions/2 {
		w.young, w.old = map[uint64]*session{}, w.young
	}
	w.young[key] = s
}
