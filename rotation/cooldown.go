package rotation

import "time"

// FleetBan is the key of the fleet's list of ban statuses.
const FleetBan = ^uint64(0)

// UsedLast is the key of pairs that every job uses last, whatever its rule: the site, or one of its pages, may have refused the
// proxy with a 407.
const UsedLast = FleetBan - 1

// banFor is how long a pair cools down after a ban.
const banFor = 5 * time.Minute

// cooldownKey says for whom a proxy cools down: for the attempts at a host, of all jobs or of those that have the same rule.
type cooldownKey struct {
	host string
	ban  uint64 // the rule's key, FleetBan or UsedLast; zero means that no job uses the pair
}

// hostCooldowns are the proxies that are not used for one key, each until a time.
type hostCooldowns struct {
	key cooldownKey
	// Times are readings of the group's clock, as everywhere in the pool.
	until  map[*entry]time.Duration
	hasSet bool // a set leaves these proxies out, so the key must keep this value
}

// has reports whether a proxy cools down. A nil receiver has none.
func (h *hostCooldowns) has(e *entry) bool {
	// The flag of the entry spares the lookup for all proxies that cool down nowhere, which are nearly all.
	if h == nil || !e.cooling {
		return false
	}
	_, found := h.until[e]
	return found
}

// size is the number of proxies. A nil receiver has none.
func (h *hostCooldowns) size() int {
	if h == nil {
		return 0
	}
	return len(h.until)
}

// cooldown is one pair of proxy and host, as a timer holds it.
type cooldown struct {
	e *entry
	h *hostCooldowns
}

// cooldowns are all pairs of proxy and host that cool down. Beyond maxRemembered pairs, the one that would end first is
// forgotten. The fields are guarded by the pool's lock.
type cooldowns struct {
	byKey map[cooldownKey]*hostCooldowns
	ends  timers[cooldown] // an end that was postponed is noticed when its timer expires
	pairs int
}

// of returns the cooldowns of a key; nil if it has none.
func (c *cooldowns) of(key cooldownKey) *hostCooldowns {
	if len(c.byKey) == 0 {
		return nil
	}
	return c.byKey[key]
}

// start begins or lengthens the cooldown of a pair. It never shortens one.
func (c *cooldowns) start(e *entry, key cooldownKey, until time.Duration) *hostCooldowns {
	h := c.ensure(key)
	old, found := h.until[e]
	// A lengthened cooldown leaves its old timer behind, which finds another time and does nothing.
	if old >= until {
		return h
	}
	if !found {
		c.adjust(e, 1)
	}
	h.until[e] = until
	c.ends.push(until, cooldown{e, h})
	return h
}

// end ends the cooldown of a pair early. It returns nil if there was none.
func (c *cooldowns) end(e *entry, key cooldownKey) *hostCooldowns {
	h := c.of(key)
	if !h.has(e) {
		return nil
	}
	// A timer cannot be taken out of a heap cheaply, so it expires in vain.
	delete(h.until, e) // its timer stays and finds nothing
	c.adjust(e, -1)
	c.dropIfEmpty(h)
	return h
}

// ensure returns the cooldowns of a key, and makes them if there are none. A caller that adds no cooldown calls
// dropIfEmpty.
func (c *cooldowns) ensure(key cooldownKey) *hostCooldowns {
	h := c.byKey[key]
	if h == nil {
		h = &hostCooldowns{key: key, until: map[*entry]time.Duration{}}
		c.byKey[key] = h
	}
	return h
}

// expired reports whether some cooldown has ended.
func (c *cooldowns) expired(now time.Duration) bool { return c.ends.expired(now) }

// expire removes a cooldown that has ended, or that makes room. The entry is nil if the timer was that of a cooldown that
// ended earlier or was lengthened. More is false if there was no timer to handle.
func (c *cooldowns) expire(now time.Duration) (e *entry, h *hostCooldowns, more bool) {
	// The second case is that of too many pairs: the earliest one goes, whether its time has come or not.
	if len(c.ends) == 0 || c.ends[0].at > now && c.pairs <= maxRemembered {
		return nil, nil, false
	}
	first := c.ends.pop()
	e, h = first.value.e, first.value.h
	until, found := h.until[e]
	// The timer is of an earlier end.
	if !found || until != first.at {
		return nil, nil, true
	}
	delete(h.until, e)
	c.adjust(e, -1)
	c.dropIfEmpty(h)
	return e, h, true
}

// adjust changes the number of pairs, in all and of a proxy, by one. e.cooling spares most lookups in the map.
func (c *cooldowns) adjust(e *entry, by int32) {
	c.pairs += int(by)
	e.cooldowns += by
	// It is a copy of a comparison, because entry keeps hot fields in one cache line and the count is a cold
	// one.
	e.cooling = e.cooldowns > 0
}

// dropIfEmpty forgets a key without cooldowns, unless a set refers to it.
func (c *cooldowns) dropIfEmpty(h *hostCooldowns) {
	if len(h.until) == 0 && !h.hasSet {
		delete(c.byKey, h.key)
	}
}
