package rotation

import "time"

// hostCooldowns are the proxies that are not used for one host, each until a time.
type hostCooldowns struct {
	host   string
	until  map[*entry]time.Duration
	hasSet bool // a set leaves these proxies out, so the host must keep this value
}

// has reports whether a proxy cools down for the host. A nil receiver has none.
func (h *hostCooldowns) has(e *entry) bool {
	if h == nil || !e.cooling {
		return false
	}
	_, found := h.until[e]
	return found
}

// cooldown is one pair of proxy and host.
type cooldown struct {
	e *entry
	h *hostCooldowns
}

// cooldowns are all pairs of proxy and host that cool down. Beyond maxRemembered pairs, the one that would end first is
// forgotten.
type cooldowns struct {
	byHost map[string]*hostCooldowns
	ends   timers[cooldown] // an end that was postponed is noticed when its timer expires
	pairs  int
}

// forHost returns the cooldowns of a host; nil if it has none.
func (c *cooldowns) forHost(host string) *hostCooldowns {
	if len(c.byHost) == 0 {
		return nil
	}
	return c.byHost[host]
}

// start begins or lengthens the cooldown of a pair. It never shortens one.
func (c *cooldowns) start(e *entry, host string, until time.Duration) *hostCooldowns {
	h := c.ensure(host)
	old, found := h.until[e]
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

// ensure finds or creates the cooldowns of a host.
func (c *cooldowns) ensure(host string) *hostCooldowns {
	h := c.byHost[host]
	if h == nil {
		h = &hostCooldowns{host: host, until: map[*entry]time.Duration{}}
		c.byHost[host] = h
	}
	return h
}

// expired reports whether a cooldown has ended.
func (c *cooldowns) expired(now time.Duration) bool { return c.ends.expired(now) }

// expire removes a cooldown that has ended, or that makes room. The entry is nil if the timer was that of a cooldown that
// ended earlier or was lengthened. More is false if there was no timer to handle.
func (c *cooldowns) expire(now time.Duration) (e *entry, h *hostCooldowns, more bool) {
	if len(c.ends) == 0 || c.ends[0].at > now && c.pairs <= maxRemembered {
		return nil, nil, false
	}
	first := c.ends.pop()
	e, h = first.value.e, first.value.h
	until, found := h.until[e]
	if !found || until != first.at {
		return nil, nil, true
	}
	delete(h.until, e)
	c.adjust(e, -1)
	c.dropIfEmpty(h)
	return e, h, true
}

// adjust keeps the number of pairs in all and of a proxy.
func (c *cooldowns) adjust(e *entry, by int32) {
	c.pairs += int(by)
	e.cooldowns += by
	e.cooling = e.cooldowns > 0
}

func (c *cooldowns) dropIfEmpty(h *hostCooldowns) {
	if len(h.until) == 0 && !h.hasSet {
		delete(c.byHost, h.host)
	}
}
