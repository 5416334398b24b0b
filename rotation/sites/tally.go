package sites

import "time"

// Class is the class of the status that an attempt brought. Zero means that the attempt counts in no tally.
type Class uint8

// The classes, in the order in which Tally has them.
const (
	Class2xx Class = iota + 1
	Class3xx
	Class4xx
	Class5xx
	ClassNone // no status, or another one
)

// Fault is whose fault a failure was.
type Fault uint8

// The faults; zero means that the attempt did not fail, or that it was nobody's fault.
const (
	FaultProxy Fault = iota + 1
	FaultTarget
	FaultPair
	FaultUnclear
)

// Count is what an attempt adds to the tally of the site where it ended. The zero value adds nothing.
type Count struct {
	Class Class
	Fault Fault
	// Ban says that the answer means: this site has banned this proxy.
	Ban bool
	// Error says in a short sentence why the attempt failed; empty if it did not.
	Error string
}

// Tally counts the attempts at a site that ended in the last 30 to 60 minutes.
type Tally struct {
	Attempts uint32
	Classes  [ClassNone]uint32    // by Class - 1
	Faults   [FaultUnclear]uint32 // by Fault - 1
	Bans     uint32
}

// tallyHalf is the time that each of the two halves of a tally covers.
const tallyHalf = 30 * time.Minute

// tallies counts in two halves, so that a sum covers the last 30 to 60 minutes and costs no more than an addition.
type tallies struct {
	half   uint32 // number of the half that index 0 counts; index 1 counts the one before
	counts [2]Tally

	lastError   string
	lastErrorAt time.Duration // zero: never
}

// add counts an attempt that ends now.
func (s *tallies) add(now time.Duration, c *Count) {
	if c.Class == 0 {
		return
	}
	s.advance(now)
	n := &s.counts[0]
	n.Attempts++
	n.Classes[min(c.Class, ClassNone)-1]++
	if c.Fault != 0 {
		n.Faults[min(c.Fault, FaultUnclear)-1]++
	}
	if c.Ban {
		n.Bans++
	}
	if c.Error != "" {
		s.lastError, s.lastErrorAt = c.Error, now
	}
}

// advance moves on to the half in which now lies. Older halves are forgotten.
func (s *tallies) advance(now time.Duration) {
	switch half := uint32(now / tallyHalf); half - s.half {
	case 0:
	case 1:
		s.counts[1], s.counts[0], s.half = s.counts[0], Tally{}, half
	default:
		s.counts, s.half = [2]Tally{}, half
	}
}

// sum adds up both halves.
func (s *tallies) sum(now time.Duration) Tally {
	s.advance(now)
	out := s.counts[0]
	old := &s.counts[1]
	out.Attempts += old.Attempts
	out.Bans += old.Bans
	for i, n := range old.Classes {
		out.Classes[i] += n
	}
	for i, n := range old.Faults {
		out.Faults[i] += n
	}
	return out
}
