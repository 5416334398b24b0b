package fetch

import (
	"sync"
	"time"
)

// The parts of a retry budget that are not configured.
const (
	// budgetLife is how long unused tokens stay in the budget. It also bounds a burst of retries after a quiet time.
	budgetLife = 10 * time.Second
	// budgetWait is the longest that the budget delays a retry. After that the retry goes on, whatever the budget holds.
	budgetWait = time.Minute
	// A failover costs less than another retry, because it sends the target no second request.
	costOfRetry, costOfFailover = 1, 1.0 / 3
	// hedgeShare is how many automatic hedges each first attempt earns, and maxHedges how many may be saved.
	hedgeShare, maxHedges = 0.04, 10
)

// budget keeps retries from multiplying the load when everything fails. It is a token bucket: each first attempt adds
// share, each second adds floor. The number of tokens may be negative: then a retry waits until the missing tokens have
// come. The design is that of Finagle's RetryBudget. hedges is a second, smaller bucket, so that automatic hedges do
// not take what retries need.
type budget struct {
	share, floor float64 // tokens of a first attempt, and of a second

	mu      sync.Mutex // guards the fields below
	tokens  float64
	at      time.Time // when tokens was true
	delayed int64
	hedges  float64 // automatic hedges that may begin
}

// newBudget makes a full budget, so that a worker that has just started may retry. share is in tokens for each first
// attempt, floor in tokens a second. A negative share sets no bound. The budget is shared by all jobs of a
// worker.
func newBudget(share, floor float64) *budget {
	return &budget{share: share, floor: floor, tokens: floor * budgetLife.Seconds(), at: time.Now()}
}

// earn adds the tokens of a first attempt to the budget, and its share of a hedge.
func (b *budget) earn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill(b.share)
	b.hedges = min(b.hedges+hedgeShare, maxHedges)
}

// spend takes the cost of a retry and returns how long the budget delays that retry. The number of tokens may become
// negative: the delay is the time in which floor fills it up to zero, budgetWait at most.
func (b *budget) spend(cost float64) time.Duration {
	if b.share < 0 {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	// Time is added lazily, so no goroutine is needed.
	b.fill(now.Sub(b.at).Seconds() * b.floor)
	b.at = now
	b.tokens -= cost
	if b.tokens >= 0 {
		return 0
	}
	b.delayed++
	// floor is not zero: Config gives it a default.
	wait := time.Duration(-b.tokens / b.floor * float64(time.Second))
	// A retry that waits for the longest time takes no token: otherwise the number of tokens would fall without bound,
	// and the budget would not recover when the failures end.
	if wait > budgetWait {
		b.tokens += cost
		return budgetWait
	}
	return wait
}

// hedge takes the cost of a hedge, and if isAuto one of the automatic hedges. If either bucket is empty, it takes
// nothing and reports false: a hedge does not wait.
func (b *budget) hedge(isAuto bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.share >= 0 {
		b.fill(now.Sub(b.at).Seconds() * b.floor)
		b.at = now
	}
	// Both are tested before one is taken, so that a refusal takes nothing.
	if b.share >= 0 && b.tokens < costOfRetry || isAuto && b.hedges < 1 {
		return false
	}
	b.fill(-costOfRetry)
	if isAuto {
		b.hedges--
	}
	return true
}

// refundHedge gives back what hedge took for a hedge that does not begin.
func (b *budget) refundHedge(isAuto bool) {
	b.refund(costOfRetry)
	if isAuto {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.hedges = min(b.hedges+1, maxHedges)
	}
}

// refund gives back the cost of a retry that is not made.
func (b *budget) refund(cost float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill(cost)
}

// fill adds tokens up to what floor adds in budgetLife. The caller holds mu. The bound keeps a worker that was
// idle for long from a burst of retries. A negative number is bounded by spend, not here.
func (b *budget) fill(tokens float64) {
	b.tokens = min(b.tokens+tokens, b.floor*budgetLife.Seconds())
}

// DelayedRetries is how many retries the retry budget has delayed since the start.
func (f *Fetcher) DelayedRetries() int64 {
	f.budget.mu.Lock()
	defer f.budget.mu.Unlock()
	return f.budget.delayed
}
