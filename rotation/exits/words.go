// Package exits names the exits of gateways, and holds what is known of them.
//
// A gateway is a proxy with one address and many exits. A word in its user information chooses the exit. An attempt without a
// session takes a fresh word, of which nothing is kept. The word of a session is derived from the fleet's prefix, the gateway,
// the session and a generation, so that all workers derive the same word. The generation advances when the exit fails. Workers
// share the generations: Changed and State return what this worker has found, and Adopt takes over what others found.
//
// The package is pure: it has no lock, no clock and no I/O. Times are durations on one clock of the caller's choice.
package exits

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
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
	// MaxSessions bounds the sessions that are remembered. A session is remembered if its exit failed or cools down.
	MaxSessions = 100_000
	// maxSteps bounds the generations that one pick skips to find a word with which the job has not failed.
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
	// Share makes Changed return the sessions that other workers have to hear of.
	Share bool
}

// Words hands out the words of exits. Make it with New. It must not be shared between goroutines without a lock.
type Words struct {
	cfg        Config
	young, old map[Key]*session // two halves: when the young half is full, the old half is dropped
	changed    map[Key]struct{} // sessions that changed since Changed returned them, at most maxChanged
}

// New makes Words.
func New(cfg Config) *Words { return &Words{cfg: cfg, changed: map[Key]struct{}{}} }

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
	// Aside means that the session's own word cools down for the host, so that this attempt uses another one. What comes of the
	// attempt does not change the session.
	Aside bool

	key Key // of the session; zero unless Sticky returned the exit
}

// Fresh draws a word for an attempt without a session.
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

// derive returns the number of a generation of a session. key is the session's key if the generation is zero. Number and key
// come from different bytes of the hash, so the key does not show the word.
func (w *Words) derive(of Session, generation uint32) (number uint64, key Key) {
	sum := hmac.New(sha256.New, []byte(w.cfg.Prefix))
	_, _ = sum.Write([]byte(of.Gateway + "\x00" + of.Name + "\x00" + strconv.FormatUint(uint64(generation), 10)))
	var out [sha256.Size]byte
	sum.Sum(out[:0])
	return binary.BigEndian.Uint64(out[:]), Key(out[8:])
}

// Sticky returns the exit of a session for a host, which is given as a hash. It skips the words of avoid, with which the job
// has failed, and takes a later generation instead.
func (w *Words) Sticky(of Session, host uint64, avoid []string, now time.Duration) Exit {
	first, key := w.derive(of, 0)
	s := w.use(key, of.TTL, now)
	if s == nil {
		s = &session{next: 1}
	}
	exit := Exit{Generation: s.current(), key: key}
	if s.coolsDown(exit.Generation, host, now) {
		exit.Generation, exit.Aside = s.next, true
	}
	for step := 0; ; step++ {
		exit.Word = w.word(of, s, exit.Generation, first)
		if step == maxSteps || !slices.Contains(avoid, exit.Word) && !s.coolsDown(exit.Generation, host, now) {
			return exit
		}
		exit.Generation = max(exit.Generation+1, s.next)
	}
}

// word returns the word of a generation. first is the number of generation zero. The word in use is kept, so it is derived once.
func (w *Words) word(of Session, s *session, generation uint32, first uint64) string {
	switch {
	case generation == 0:
		return spell(first % words)
	case s.word != "" && s.wordOf == generation:
		return s.word
	}
	number, _ := w.derive(of, generation)
	word := spell(number % words)
	if generation == s.current() {
		s.word, s.wordOf = word, generation
	}
	return word
}

// Relayed notes that a response came through the exit. If the exit is of a later generation, the session moves to it.
func (w *Words) Relayed(of Session, exit Exit, now time.Duration) {
	if exit.Aside {
		return
	}
	key := w.keyOf(of, exit)
	s := w.use(key, of.TTL, now)
	switch {
	case s == nil && exit.Generation == 0:
		return
	case s == nil:
		s = w.add(key, now+of.TTL)
	}
	if s.relayed(exit.Generation) {
		w.note(key)
	}
}

// Failed notes that the exit failed. The cause is a hash of what happened and where. If a word fails with the cause of the word
// before it, the session goes back to the older word: what fails alike through two exits is not the exits' fault.
func (w *Words) Failed(of Session, exit Exit, cause uint64, now time.Duration) {
	w.fail(of, exit, cause, false, now)
}

// Suspected notes that the exit may have failed: its response counts as a failure if the next word brings another response. The
// fleet hears of it only then.
func (w *Words) Suspected(of Session, exit Exit, cause uint64, now time.Duration) {
	w.fail(of, exit, cause, true, now)
}

func (w *Words) fail(of Session, exit Exit, cause uint64, doubtful bool, now time.Duration) {
	key := w.keyOf(of, exit)
	s := w.use(key, of.TTL, now)
	if s == nil {
		s = w.add(key, now+of.TTL)
	}
	s.next = max(s.next, exit.Generation+1)
	if !exit.Aside && exit.Generation == s.current() && s.failed(cause, doubtful, now) {
		w.note(key)
	}
}

// Cool keeps the exit of a session from a host until a time.
func (w *Words) Cool(of Session, exit Exit, host uint64, until, now time.Duration) {
	key := w.keyOf(of, exit)
	s := w.use(key, of.TTL, now)
	if s == nil {
		s = w.add(key, now+of.TTL)
	}
	s.cooldowns = slices.DeleteFunc(s.cooldowns, func(c cooldown) bool { return c.until <= now })
	if len(s.cooldowns) == maxCooldowns {
		s.cooldowns = s.cooldowns[1:]
	}
	s.cooldowns = append(s.cooldowns, cooldown{host, exit.Generation, until})
	s.next = max(s.next, exit.Generation+1)
}

// keyOf returns the key of a session. The exit has it if Sticky returned the exit.
func (w *Words) keyOf(of Session, exit Exit) Key {
	if exit.key != (Key{}) {
		return exit.key
	}
	_, key := w.derive(of, 0)
	return key
}

// use is find, and notes that the session is in use.
func (w *Words) use(key Key, ttl, now time.Duration) *session {
	s := w.find(key, now)
	if s != nil {
		s.until = now + ttl
	}
	return s
}

// find returns what is known of a session; nil if nothing is.
func (w *Words) find(key Key, now time.Duration) *session {
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
	return s
}

func (w *Words) add(key Key, until time.Duration) *session {
	s := &session{next: 1, until: until}
	w.put(key, s)
	return s
}

func (w *Words) put(key Key, s *session) {
	if w.young == nil || len(w.young) >= MaxSessions/2 {
		w.young, w.old = map[Key]*session{}, w.young
	}
	w.young[key] = s
}
