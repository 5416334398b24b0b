package rotation

import "time"

// hostRests are the proxies that rest for one host, each until a time.
type hostRests struct {
	host  string
	until map[*entry]time.Duration
	asked bool // a set leaves them out, so this must stay the host's only one
}

// has may be asked of nil.
func (h *hostRests) has(e *entry) bool {
	if h == nil || !e.resting {
		return false
	}
	_, resting := h.until[e]
	return resting
}

// pause is the end of one proxy's rest for one host.
type pause struct {
	at time.Duration
	e  *entry
	h  *hostRests
}

// rests are all pairs of proxy and host that rest. Beyond the bound the one that would end soonest is forgotten.
type rests struct {
	byHost map[string]*hostRests
	line   []pause // a heap, the soonest end first; an end that was put off is found out when its time comes
	n      int
}

func (r *rests) of(host string) *hostRests {
	if len(r.byHost) == 0 {
		return nil
	}
	return r.byHost[host]
}

// begin lets e rest for host until at, or longer if it did already.
func (r *rests) begin(e *entry, host string, at time.Duration) *hostRests {
	h := r.ask(host)
	old, resting := h.until[e]
	if old >= at {
		return h
	}
	if !resting {
		r.count(e, 1)
	}
	h.until[e] = at
	r.push(pause{at, e, h})
	return h
}

// ask is the host's rests, kept also while there are none.
func (r *rests) ask(host string) *hostRests {
	h := r.byHost[host]
	if h == nil {
		h = &hostRests{host: host, until: map[*entry]time.Duration{}}
		r.byHost[host] = h
	}
	return h
}

// late reports whether somebody's rest is over.
func (r *rests) late(now time.Duration) bool { return len(r.line) > 0 && r.line[0].at <= now }

// end takes one whose rest is over, or that has to make room; ok is false when there is none, or only one that was put off.
func (r *rests) end(now time.Duration) (e *entry, h *hostRests, more bool) {
	if len(r.line) == 0 || r.line[0].at > now && r.n <= most {
		return nil, nil, false
	}
	first := r.pop()
	at, resting := first.h.until[first.e]
	if !resting || at != first.at {
		return nil, nil, true
	}
	delete(first.h.until, first.e)
	r.count(first.e, -1)
	r.tidy(first.h)
	return first.e, first.h, true
}

// count keeps how many pairs there are, and of which proxies.
func (r *rests) count(e *entry, more int32) {
	r.n += int(more)
	e.hosts += more
	e.resting = e.hosts > 0
}

func (r *rests) tidy(h *hostRests) {
	if len(h.until) == 0 && !h.asked {
		delete(r.byHost, h.host)
	}
}

func (r *rests) push(w pause) {
	r.line = append(r.line, w)
	q := r.line
	for i := len(q) - 1; i > 0 && q[(i-1)/2].at > q[i].at; i = (i - 1) / 2 {
		q[i], q[(i-1)/2] = q[(i-1)/2], q[i]
	}
}

func (r *rests) pop() pause {
	q, last := r.line, len(r.line)-1
	first := q[0]
	q[0], q[last] = q[last], pause{}
	q = q[:last]
	r.line = q
	for i, child := 0, 1; child < last; i, child = child, 2*child+1 {
		if child+1 < last && q[child+1].at < q[child].at {
			child++
		}
		if q[i].at <= q[child].at {
			break
		}
		q[i], q[child] = q[child], q[i]
	}
	return first
}
