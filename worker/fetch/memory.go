package fetch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

const (
	// spareBytes is the room behind a body for the read that returns io.EOF.
	spareBytes = 512
	// maxUncounted is the largest buffer of a body that is not counted: the body goes into a message.
	maxUncounted = jobs.MaxInlineBody + spareBytes
)

// errMemory ends an attempt whose time was over while it waited for memory.
var errMemory = errors.New("this worker had no memory free for the body")

// memoryBudget is shared by all runs of a Fetcher. A run that needs more than is left waits. Requests are granted by the age of
// the runs, and the oldest run is never refused: so runs that hold memory and wait for more cannot block one another. The age
// of a run begins when it first needs memory, hence only one run at a time holds more than the budget has.
type memoryBudget struct {
	// reserve is the memory that only the oldest run may take, so that it rarely takes more than the budget has.
	reserve int64

	mu       sync.Mutex       // guards the fields below, and those of every account
	left     int64            // below zero while the oldest run holds more than there was
	accounts []*memoryAccount // of the runs that hold memory or wait for it, the oldest first
}

// memoryAccount is the memory of one run, the the bodies of its responses included until the result is stored.
type memoryAccount struct {
	budget  *memoryBudget
	held    int64
	waiting []*memoryRequest
}

// memoryRequest waits until it is granted. granted is closed then.
type memoryRequest struct {
	bytes   int64
	granted chan struct{}
}

// newMemoryBudget makes a budget of so many bytes, a quarter of which only the oldest run may take.
func newMemoryBudget(bytes int64) *memoryBudget {
	return &memoryBudget{left: bytes, reserve: bytes / 4}
}

// request asks for memory. It returns nil if the memory is granted at once. Otherwise the caller waits for granted of the
// request, or withdraws it.
func (a *memoryAccount) request(bytes int64) *memoryRequest {
	b := a.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.isIdle() {
		b.accounts = append(b.accounts, a)
	}
	r := &memoryRequest{bytes: bytes, granted: make(chan struct{})}
	a.waiting = append(a.waiting, r)
	b.grant()
	if !slices.Contains(a.waiting, r) {
		return nil
	}
	return r
}

// withdraw takes a request back. It reports false if the request has been granted meanwhile.
func (a *memoryAccount) withdraw(r *memoryRequest) bool {
	b := a.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(a.waiting, r)
	if i < 0 {
		return false
	}
	a.waiting = slices.Delete(a.waiting, i, i+1)
	b.settle(a)
	return true
}

// release gives memory back and grants the requests that now have room.
func (a *memoryAccount) release(bytes int64) {
	if bytes == 0 {
		return
	}
	b := a.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	a.held -= bytes
	b.left += bytes
	b.settle(a)
}

// releaseAll gives back all that is held.
func (a *memoryAccount) releaseAll() { a.release(a.holds()) }

// holds returns the bytes that the run holds now.
func (a *memoryAccount) holds() int64 {
	a.budget.mu.Lock()
	defer a.budget.mu.Unlock()
	return a.held
}

// isIdle reports whether the account neither holds memory nor waits for it. The caller holds the lock.
func (a *memoryAccount) isIdle() bool { return a.held == 0 && len(a.waiting) == 0 }

// settle forgets an account that is idle, and grants what can be granted now. The caller holds the lock.
func (b *memoryBudget) settle(a *memoryAccount) {
	if i := slices.Index(b.accounts, a); i >= 0 && a.isIdle() {
		b.accounts = slices.Delete(b.accounts, i, i+1)
	}
	b.grant()
}

// grant grants requests, those of older runs first, and stops at the first request for which too little is left. It skips
// none: a small request of a young run would delay a large one of an older run for ever. The caller holds the lock.
func (b *memoryBudget) grant() {
	for i, a := range b.accounts {
		for len(a.waiting) > 0 {
			r := a.waiting[0]
			if i > 0 && r.bytes > b.left-b.reserve {
				return
			}
			a.waiting = a.waiting[1:]
			a.held += r.bytes
			b.left -= r.bytes
			close(r.granted)
		}
	}
}

// memoryShare is what one exchange holds of the memory of its run. It belongs to one goroutine.
type memoryShare struct {
	account *memoryAccount
	held    int64
	waited  time.Duration // in all, for memory
	// pause is called before a wait for memory, and the function that it returns after the wait.
	pause func() (resume func())
}

// acquire takes memory, and waits for it until ctx ends. The error is an errMemory with the cause of ctx; then nothing
// was taken.
func (s *memoryShare) acquire(ctx context.Context, bytes int64) error {
	if bytes <= 0 {
		return nil
	}
	if r := s.account.request(bytes); r != nil {
		if err := s.await(ctx, r); err != nil {
			return err
		}
	}
	s.held += bytes
	return nil
}

// await waits until a request is granted. The stall watch pauses meanwhile, because the peer is not to blame.
func (s *memoryShare) await(ctx context.Context, r *memoryRequest) error {
	defer s.pause()()
	began := time.Now()
	defer func() { s.waited += time.Since(began) }()
	select {
	case <-r.granted:
		return nil
	case <-ctx.Done():
	}
	if !s.account.withdraw(r) {
		return nil // it was granted just now
	}
	return fmt.Errorf("%w: %w", errMemory, context.Cause(ctx))
}

// release gives back memory that the exchange has acquired.
func (s *memoryShare) release(bytes int64) {
	s.held -= bytes
	s.account.release(bytes)
}

// releaseAll gives back what the exchange still holds.
func (s *memoryShare) releaseAll() { s.release(s.held) }

// releaseMemory gives back the memory of a response that nobody has taken.
func (x *exchanges) releaseMemory() {
	if !x.taken {
		x.memory.releaseAll()
	}
}
