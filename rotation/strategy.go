package rotation

import (
	"fmt"
	"slices"
)

// Strategy is how a pick chooses one of the available proxies.
type Strategy string

// The strategies.
const (
	RoundRobin  Strategy = "round_robin" // one after the other
	Random      Strategy = "random"      // any of them
	Weighted    Strategy = "weighted"    // by weight, spread evenly
	LeastUsed   Strategy = "least_used"  // the fewest attempts in flight, then unused for the longest time
	Performance Strategy = "performance" // the better of two random ones by success and latency; unproven ones get 2 to 10 %
)

// Strategies returns all strategies.
func Strategies() []Strategy { return []Strategy{RoundRobin, Random, Weighted, LeastUsed, Performance} }

// ParseStrategy reads the name of a strategy. An empty name means RoundRobin.
func ParseStrategy(name string) (Strategy, error) {
	s := Strategy(name)
	if name == "" {
		return RoundRobin, nil
	}
	if slices.Contains(Strategies(), s) {
		return s, nil
	}
	// The list in the text is the order of Strategies.
	return "", fmt.Errorf("strategy %q is none of round_robin, random, weighted, least_used, performance", name)
}

// SetStrategy changes the strategy from the next pick on, and returns the previous one. An empty strategy means RoundRobin.
// The state of the proxies stays.
func (p *Pool) SetStrategy(s Strategy) (before Strategy) {
	if s == "" {
		s = RoundRobin
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	before = p.strategy
	// The orders keep their positions if nothing changes.
	if s == before {
		return before
	}
	p.strategy = s
	for _, set := range p.slots {
		if set == nil {
			continue
		}
		old := set.available
		// Only the available proxies have an order; the other classes are picked in turn.
		set.available = newOrder(s, set.id, p)
		for _, e := range old.all() {
			// add sets the new position; until then the proxy is in no order.
			e.positionIn(set.id).at = nowhere
			set.available.add(e)
		}
	}
	return before
}

// Strategy returns the current strategy.
func (p *Pool) Strategy() Strategy {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.strategy
}
