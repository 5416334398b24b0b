package rollup

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// hourLayout writes an hour as one token of a subject, in the order of time.
const hourLayout = "2006010215"

// ErrTooManyProxies is returned by Set for a proxy beyond those that a book holds.
var ErrTooManyProxies = errors.New("too many proxies in the rollups")

// Delta is what was added to a book since the last flush: named increments, to be added to sums that live elsewhere.
// Names are ends of subjects, such as "2026112319.job.succeeded". Its maker hands out the same Delta until it is
// told that this one was stored, so whoever stores it makes the pair of Book and Seq, or MsgID, the guard against
// counting it twice.
type Delta struct {
	// Book is unique to one book of one process; Seq counts its deltas from 1, zero for a Delta without increments.
	Book   string
	Seq    uint64
	Counts map[string]int64
}

// MsgID names one increment of the delta: the same at every repetition, and never that of another one.
func (d Delta) MsgID(name string) string {
	return d.Book + "." + strconv.FormatUint(d.Seq, 10) + "." + name
}

// Take returns what was added since the last delta that is done. Until Done is called with its Seq it returns that
// same delta again, whatever was added in the meantime.
func (b *Book) Take() Delta {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taken == nil && len(b.pending) > 0 {
		b.seq++
		b.taken = &Delta{Book: b.id, Seq: b.seq, Counts: b.drain()}
	}
	if b.taken == nil {
		return Delta{Book: b.id}
	}
	return *b.taken
}

// Done tells that the delta of that Seq is stored; another Seq changes nothing.
func (b *Book) Done(seq uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taken != nil && b.taken.Seq == seq {
		b.taken = nil
	}
}

func (b *Book) drain() map[string]int64 {
	out := map[string]int64{}
	for hour, p := range b.pending {
		p.fold(b.proxies.names(hour))
		p.export(startOf(hour).Format(hourLayout), out)
	}
	b.pending = map[int64]*part{}
	return out
}

// part is what was added to one hour and is not flushed yet.
type part struct {
	hour    Hour
	proxies map[string]*proxyCounts
}

func (b *Book) part(hour int64) *part {
	p := b.pending[hour]
	if p == nil {
		p = &part{proxies: map[string]*proxyCounts{}}
		b.pending[hour] = p
	}
	return p
}

func (p *part) proxy(id string) *proxyCounts {
	c := p.proxies[id]
	if c == nil && len(p.proxies) >= maxTracks {
		return p.proxy(Other)
	}
	if c == nil {
		c = &proxyCounts{}
		p.proxies[id] = c
	}
	return c
}

// fold puts the proxies without a name into Other.
func (p *part) fold(named func(id string) bool) {
	for id, c := range p.proxies {
		if id != Other && !named(id) {
			delete(p.proxies, id)
			p.proxy(Other).merge(c)
		}
	}
}

// export writes the part's increments.
func (p *part) export(hour string, out map[string]int64) {
	for k, n := range p.hour.counts {
		name := hour + "." + k.family
		if k.label != "" {
			name += "." + strings.ReplaceAll(k.label, "/", "-")
		}
		out[name] += n
	}
	for i, n := range p.hour.Latency.counts {
		addTo(out, hour+"."+famLatency+"."+strconv.Itoa(i), n)
	}
	addTo(out, hour+"."+famLatSum, p.hour.Latency.sum)
	for id, c := range p.proxies {
		for i, field := range proxyFieldNames() {
			addTo(out, hour+"."+famProxy+"."+id+"."+field, c[i])
		}
	}
}

func addTo(out map[string]int64, name string, n int64) {
	if n != 0 {
		out[name] += n
	}
}

// Set puts the sum of that name to total: what a flush of any number of books added up to. To set a sum again, also
// to an older value, is harmless. A name that no Delta has is an error; an hour that is no longer kept is left out.
func (b *Book) Set(name string, total int64) error {
	token, rest, _ := strings.Cut(name, ".")
	start, err := time.Parse(hourLayout, token)
	if err != nil || start.After(time.Now().Add(2*time.Hour)) {
		return fmt.Errorf("rollup %.80q: no hour of now", name)
	}
	family, label, _ := strings.Cut(rest, ".")
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loaded = true
	if family == famProxy {
		err = b.setProxy(hourOf(start), label, total)
	} else if h := b.hour(hourOf(start)); h != nil {
		err = h.set(family, label, total)
	}
	if err != nil {
		return fmt.Errorf("rollup %.80q: %w", name, err)
	}
	return nil
}

var errUnknown = errors.New("unknown name")

func (b *Book) setProxy(hour int64, label string, total int64) error {
	now := hourOf(time.Now())
	b.proxies.roll(now, false)
	id, name, _ := strings.Cut(label, ".")
	if hour <= now-proxyHours {
		return nil
	}
	if b.proxies.rows[id] == nil && len(b.proxies.rows) >= maxTracks {
		return ErrTooManyProxies // to add it to Other would count it twice when it is set again
	}
	for i, field := range proxyFieldNames() {
		if field == name && jobs.ValidProxyID(id) {
			b.proxies.at(id, hour)[i] = total
			return nil
		}
	}
	return errUnknown
}

func (h *Hour) set(family, label string, total int64) error {
	if family == famLatSum && label == "" {
		h.Latency.sum = total
		return nil
	}
	if family == famLatency {
		i, err := strconv.Atoi(label)
		if err != nil || i < 0 || i >= buckets {
			return errUnknown
		}
		h.Latency.counts[i] = total
		return nil
	}
	label = strings.ReplaceAll(label, "-", "/")
	if !known(family, label) {
		return errUnknown
	}
	h.add(key{family, label}, total-h.counts[key{family, label}])
	return nil
}

// known keeps the closed lists closed: whoever may write to the stream cannot make a book grow.
func known(family, label string) bool {
	switch family {
	case famAttempts, famRetries, famBytes:
		return label == ""
	case famJob:
		return label == jobs.Succeeded || oneOf(JobErrors(), label) == label
	case famSuccess:
		n, err := strconv.Atoi(label)
		return err == nil && attemptLabel(n) == label
	case famFailure:
		return oneOf(Reasons(), label) == label
	case famPolicy, famPolicyOK:
		return policyLabel(label) == label
	case famBreaker:
		return breakerState(label) == label
	}
	return false
}
