package sites

import (
	"math"
	"math/bits"
	"time"
)

const (
	// minStreak and maxStreak bound how many failures in a row make a site rest.
	minStreak, maxStreak = 3, 30
	// significance is the probability below which a streak of failures is not taken for chance.
	significance = 1e-6
	// ratesFor is the window of rates, kept in two halves.
	ratesFor = 10 * time.Minute
)

// mean is a moving mean in seconds; zero means no value yet.
type mean float32

// add moves the mean an eighth of the way to a duration.
func (m *mean) add(d time.Duration) {
	x := mean(max(d.Seconds(), 1e-4))
	if *m == 0 {
		*m = x
		return
	}
	*m += (x - *m) / 8
}

// duration is the mean as a Duration.
func (m mean) duration() time.Duration { return time.Duration(float64(m) * float64(time.Second)) }

// rates counts attempts and failures of the last 5 to 10 minutes.
type rates struct {
	half             uint32 // number of the half that index 0 counts; index 1 counts the one before
	attempts, failed [2]uint32
}

// add counts attempts and failures now.
func (r *rates) add(now time.Duration, attempts, failed uint32) {
	r.advance(now)
	r.attempts[0] += attempts
	r.failed[0] += failed
}

// advance moves on to the half of the window in which now lies. Older halves are forgotten.
func (r *rates) advance(now time.Duration) {
	switch half := uint32(now / (ratesFor / 2)); half - r.half {
	case 0:
		return
	case 1:
		r.attempts[1], r.failed[1] = r.attempts[0], r.failed[0]
		r.attempts[0], r.failed[0], r.half = 0, 0, half
	default:
		*r = rates{half: half}
	}
}

// sums returns the attempts and failures of both halves.
func (r *rates) sums(now time.Duration) (attempts, failed float64) {
	r.advance(now)
	return float64(r.attempts[0]) + float64(r.attempts[1]), float64(r.failed[0]) + float64(r.failed[1])
}

// streakFor returns how many failures in a row make this site rest: the smallest n with p^n <= significance, within
// minStreak and maxStreak. p is the share of attempts that fail at other sites that answer. Half a failed attempt and half
// a successful one are added, so that p is neither 0 nor 1 while little is known.
func (t *Table) streakFor(s *site, now time.Duration) int {
	attempts, failed := t.pool.sums(now)
	own, ownFailed := s.attempted.sums(now)
	p := (max(0, failed-ownFailed) + 0.5) / (max(0, attempts-own) + 1)
	if p >= 1 {
		return maxStreak
	}
	return min(max(int(math.Ceil(math.Log(significance)/math.Log(p))), minStreak), maxStreak)
}

const (
	// historySize attempts within historyFor decide about a site that answers hardly any of them.
	historySize, historyFor = 30, time.Minute
	// minAnswers is one in ten of them.
	minAnswers = historySize / 10
)

// history is how the latest attempts ended.
type history struct {
	answers uint32 // one bit an attempt
	n       uint8
	half    uint16 // number of the half minute that counts[0] counts
	counts  [2]uint16
}

// add appends how an attempt ended.
func (h *history) add(answer bool, now time.Duration) {
	h.answers <<= 1
	if answer {
		h.answers |= 1
	}
	h.n = min(h.n+1, historySize)
	switch half := uint16(now / (historyFor / 2)); half - h.half {
	case 0:
	case 1:
		h.counts[0], h.counts[1], h.half = 0, h.counts[0], half
	default:
		h.counts, h.half = [2]uint16{}, half
	}
	h.counts[0] = min(h.counts[0], math.MaxUint16-1) + 1
}

// isBarren reports whether hardly any of the last attempts brought an answer.
func (h *history) isBarren() bool {
	return h.n == historySize && int(h.counts[0])+int(h.counts[1]) >= historySize && bits.OnesCount32(h.answers&(1<<historySize-1)) < minAnswers
}

const (
	// uplinkFor is the window in which the worker's own network is judged. Failures that it caused in this time are
	// undone.
	uplinkFor = 10 * time.Second
	// uplinkSites is at how many sites attempts must have no answer before the worker's own network is suspected.
	uplinkSites = 3
)

// uplink decides whether the worker's own network failed, by the attempts at sites that answered before.
type uplink struct {
	second          int64 // that index 0 counts
	ended, silent   [uplinkFor/time.Second + 1]uint32
	sites           [uplinkSites]silentSite // that gave no answer, the latest first
	from, to        time.Duration           // when failures counted for no site last
	endedS, silentS uint32                  // sums
}

// silentSite is a site at which an attempt had no answer, and when that was.
type silentSite struct {
	site *site
	at   time.Duration
}

// add counts an attempt that ended.
func (u *uplink) add(s *site, answer bool, now time.Duration) {
	u.advance(now)
	u.ended[0]++
	u.endedS++
	if answer {
		return
	}
	u.silent[0]++
	u.silentS++
	i := 0
	for i < len(u.sites)-1 && u.sites[i].site != s {
		i++
	}
	copy(u.sites[1:i+1], u.sites[:i])
	u.sites[0] = silentSite{s, now}
}

// advance moves on to the second of now, and subtracts from the sums the seconds that have left the window.
func (u *uplink) advance(now time.Duration) {
	second := int64(now / time.Second)
	if second-u.second >= int64(len(u.ended)) {
		*u = uplink{second: second, sites: u.sites, from: u.from, to: u.to}
		return
	}
	for ; u.second < second; u.second++ {
		last := len(u.ended) - 1
		u.endedS -= u.ended[last]
		u.silentS -= u.silent[last]
		copy(u.ended[1:], u.ended[:last])
		copy(u.silent[1:], u.silent[:last])
		u.ended[0], u.silent[0] = 0, 0
	}
}

// isBroken reports whether more than half of the attempts had no answer, at so many sites.
func (u *uplink) isBroken(now time.Duration) bool {
	u.advance(now)
	last := u.sites[uplinkSites-1]
	return last.site != nil && now-last.at <= uplinkFor && 2*u.silentS > u.endedS
}

// noteBroken records that failures count for no site now. It reports whether that is new.
func (u *uplink) noteBroken(now time.Duration) (begins bool) {
	if begins = u.to == 0 || now-u.to > uplinkFor; begins {
		u.from = max(0, now-uplinkFor)
	}
	u.to = now
	return begins
}

// covers reports whether a failure at that time counts for no site, now that the network is known to have failed.
func (u *uplink) covers(at time.Duration) bool { return at >= u.from && at <= u.to && u.to != 0 }
