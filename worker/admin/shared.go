package admin

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// shared caches a value that is expensive to ask for. All pages share the value. It is asked for at most once a period, and only
// while a page needs it. If asking is slow, the pauses are longer, so that asking takes at most a twentieth of the time. If ask
// is nil, the value is never known, so callers need no test for nil.
type shared[T any] struct {
	ask     func(context.Context) (T, error)
	period  time.Duration
	timeout time.Duration

	asking singleflight.Group

	mu    sync.Mutex // guards the fields below
	value T
	err   error
	next  time.Time // when to ask again
	at    time.Time // when it was asked last
	known bool      // an answer has come, or an error
}

// maxDelay is how long a page waits for a value that is not known yet, or has not been asked for lately. It is below
// livePeriod, so a slow answer delays only a page's first event.
const maxDelay = 200 * time.Millisecond

// get returns the last answer and the error of the last question. If the answer is old, get asks again. It waits for
// the new answer, maxDelay at most, only if there is none or the last question was four periods ago. known is false
// while no answer has come.
func (s *shared[T]) get(ctx context.Context) (value T, known bool, err error) {
	return s.getWithin(ctx, maxDelay)
}

// getWithin is get with another bound in place of maxDelay, for callers that ask only once.
func (s *shared[T]) getWithin(ctx context.Context, delay time.Duration) (value T, known bool, err error) {
	s.mu.Lock()
	value, known, err = s.value, s.known, s.err
	// After an error the value counts as current. Otherwise every page would wait for the next try while NATS is away.
	due, current := time.Now().After(s.next), known && (err != nil || time.Since(s.at) < 4*s.period)
	s.mu.Unlock()
	if !due || s.ask == nil {
		return value, known, err
	}
	// Concurrent callers share one question. It runs in its own goroutine, for at most timeout, even if all callers leave.
	done := s.asking.DoChan("", func() (any, error) { s.refresh(ctx); return nil, nil })
	if current {
		return value, known, err
	}
	bounded, cancel := context.WithTimeout(ctx, delay)
	defer cancel()
	select {
	case <-done:
	case <-bounded.Done():
	}
	// The value is read again, because the answer may have come.
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.value, s.known, s.err
}

// expire lets the next call of get ask again, after this worker has changed the value. A pause after an error stays.
func (s *shared[T]) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.next = time.Time{}
	}
}

// refresh asks for the value. After an error the old value stays.
func (s *shared[T]) refresh(ctx context.Context) {
	// The first caller may go away, but other callers still wait for the answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.timeout)
	defer cancel()
	began := time.Now()
	value, err := s.ask(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err, s.known = err, true; err == nil {
		s.value = value
	}
	s.at = began
	// A slow question is expensive for the server, so the pause is at least twenty times its duration.
	pause := max(s.period, 20*time.Since(began))
	if err != nil { // the worker may lack the right, and the server logs each question
		pause = max(pause, 6*s.period)
	}
	s.next = time.Now().Add(pause)
}
