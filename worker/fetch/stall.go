package fetch

import (
	"context"
	"errors"
	"sync"
	"time"
)

// errStalled ends an attempt whose response arrives too slowly.
var errStalled = errors.New("the answer stalled")

const (
	// minProgress is how many bytes of an incomplete response have to arrive in each stall timeout.
	minProgress = 1 << 10
	// stallSteps is how often within a stall timeout the progress is measured.
	stallSteps = 8
)

// stallWatch ends an attempt when less than minProgress of a response arrives within the timeout. It measures from the
// first byte of each response until stop. An informational response also calls stop, because the final response has not
// begun then. The zero value watches nothing.
type stallWatch struct {
	timeout time.Duration // zero or less: nothing is watched
	end     context.CancelCauseFunc

	mu    sync.Mutex // guards the fields below; the timer has a goroutine of its own
	meter *meter     // of the connection that is watched; nil while none is
	timer *time.Timer
	steps int
	marks [stallSteps]int64 // bytes received at each of the last steps
}

// start begins to watch the response that arrives on m. It does nothing if m is watched already, or if nothing is to be
// watched.
func (s *stallWatch) start(m *meter) {
	if s.timeout <= 0 || m == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.meter == m {
		return
	}
	s.meter, s.steps = m, 0
	s.marks[0] = m.received.Load()
	if s.timer == nil {
		s.timer = time.AfterFunc(s.timeout/stallSteps, s.step)
	} else {
		s.timer.Reset(s.timeout / stallSteps)
	}
}

// stop ends the watch: the response is complete, or given up.
func (s *stallWatch) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.meter != nil {
		s.meter = nil
		s.timer.Stop()
	}
}

// pause ends the watch while nobody reads, and returns the function that begins it again. The time of the pause does not
// count.
func (s *stallWatch) pause() (resume func()) {
	s.mu.Lock()
	m := s.meter
	s.mu.Unlock()
	s.stop()
	return func() { s.start(m) }
}

// step compares what has arrived with what had arrived one timeout ago. The marks are a ring of stallSteps, so a stall is
// noticed at most an eighth of the timeout late.
func (s *stallWatch) step() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.meter == nil {
		return
	}
	s.steps++
	received, mark := s.meter.received.Load(), &s.marks[s.steps%stallSteps]
	if s.steps >= stallSteps && received-*mark < minProgress {
		s.meter = nil
		s.end(errStalled)
		return
	}
	*mark = received
	s.timer.Reset(s.timeout / stallSteps)
}
