package fetch

import (
	"sync"
	"time"
)

// The parts of a retry budget that are not configured.
const (
	// budgetLife is how long what was not used stays in the budget.
	budgetLife = 10 * time.Second
	// budgetWait is the longest that a retry waits for its turn; then it is made, whatever the budget holds.
	budgetWait = time.Minute
	// A retry through another proxy, after a failure of the first one, burdens no target: it costs a part of one that does.
	costOfRetry, costOfFailover = 1, 1.0 / 3
)

// budget keeps retries from multiplying the load when everything fails: a token bucket that each first attempt fills by a
// share, and time by a floor. What it lacks is a debt that later retries wait for, so each of them has its turn. The shape is
// that of Finagle's RetryBudget.
type budget struct {
	share, floor float64 // tokens of a first attempt, and of a second

	mu     sync.Mutex
	tokens float64
	at     time.Time // when tokens was true
	held   int64
}

func newBudget(share, floor float64) *budget {
	return &budget{share: share, floor: floor, tokens: floor * budgetLife.Seconds(), at: time.Now()}
}

// first counts a first attempt.
func (b *budget) first() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill(b.share)
}

// retry takes what a retry costs and returns how long that has to wait for its turn.
func (b *budget) retry(cost float64) time.Duration {
	if b.share < 0 {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.fill(now.Sub(b.at).Seconds() * b.floor)
	b.at = now
	b.tokens -= cost
	if b.tokens >= 0 {
		return 0
	}
	b.held++
	wait := time.Duration(-b.tokens / b.floor * float64(time.Second))
	if wait > budgetWait {
		b.tokens += cost
		return budgetWait
	}
	return wait
}

// giveBack returns what a retry cost that will not be made.
func (b *budget) giveBack(cost float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill(cost)
}

func (b *budget) fill(tokens float64) {
	b.tokens = min(b.tokens+tokens, b.floor*budgetLife.Seconds())
}

// Held is how many retries waited longer because the retry budget was used up.
func (f *Fetcher) Held() int64 {
	f.budget.mu.Lock()
	defer f.budget.mu.Unlock()
	return f.budget.held
}
