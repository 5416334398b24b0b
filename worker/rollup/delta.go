package rollup

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// hourLayout writes an hour as one token of a subject, in the order of time.
const hourLayout = "2006010215"

// maxIncrements is how many increments a delta has at most: the server takes no more than 1,000 messages at once, and
// one is the mark's.
const maxIncrements = 999

// Delta is a part of what was added to a book since the last flush: named increments, to be added to sums that live
// elsewhere, all of them or none. Names are ends of subjects, such as "hour.2026112319.job.succeeded"; increments are
// whole decimal numbers. Its maker hands out the same Delta until it is told that this one was stored, so whoever
// stores it stores its ID along with it, under Mark, as the guard against counting it twice.
type Delta struct {
	// Book is unique to one book of one process; Seq counts its deltas from 1, zero for a Delta without increments.
	Book   string
	Seq    uint64
	Counts map[string]string
	// More tells that the next Delta belongs to the same flush: there was too much for one.
	More bool
}

// ID names the delta: the same at every repetition, and never that of another one.
func (d Delta) ID() string { return d.Book + "." + strconv.FormatUint(d.Seq, 10) }

// Mark is the name of a counter that nobody but this book's owner increments.
func (d Delta) Mark() string { return famMark + "." + d.Book }

// Take returns what was added since the last delta that is done. Until Done is called with its Seq it returns that
// same delta again, whatever was added in the meantime.
func (b *Book) Take() Delta {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.taken) == 0 {
		b.taken = b.drain()
	}
	if len(b.taken) == 0 {
		return Delta{Book: b.id}
	}
	return b.taken[0]
}

// Done tells that the delta of that Seq is stored; another Seq changes nothing.
func (b *Book) Done(seq uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.taken) > 0 && b.taken[0].Seq == seq {
		b.taken = b.taken[1:]
	}
}

func (b *Book) drain() []Delta {
	var c cutter
	for hour, p := range b.pending {
		name := startOf(hour).Format(hourLayout)
		p.hour.export(famHour+"."+name+".", &c)
		p.fold(b.proxies.names(hour))
		p.exportRows(famProxy+"."+name+".", &c)
	}
	clear(b.pending)
	out := make([]Delta, len(c.counts))
	for i, counts := range c.counts {
		b.seq++
		out[i] = Delta{Book: b.id, Seq: b.seq, Counts: counts, More: i < len(out)-1}
	}
	return out
}

// cutter cuts increments into as few deltas as the server takes.
type cutter struct{ counts []map[string]string }

// room is the newest delta's increments, or a new one's if that one has no room for n more.
func (c *cutter) room(n int) map[string]string {
	if last := len(c.counts) - 1; last >= 0 && len(c.counts[last])+n <= maxIncrements {
		return c.counts[last]
	}
	counts := map[string]string{}
	c.counts = append(c.counts, counts)
	return counts
}

func (c *cutter) put(name string, n int64) {
	if n != 0 {
		c.room(1)[name] = strconv.FormatInt(n, 10)
	}
}

// part is what was added to one hour and is not flushed yet.
type part struct {
	hour    Hour
	every   proxyCounts // of all proxies, those without a row included
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

func (p *part) add(id string, c *proxyCounts) {
	held := p.proxies[id]
	if held == nil && len(p.proxies) < maxTracks {
		held = &proxyCounts{}
		p.proxies[id] = held
	}
	if held != nil {
		held.merge(c)
	}
}

// fold takes their rows from the proxies without a name.
func (p *part) fold(named func(id string) bool) {
	for id := range p.proxies {
		if !named(id) {
			delete(p.proxies, id)
		}
	}
}

// export writes the hour's increments under names with that prefix.
func (h *Hour) export(prefix string, c *cutter) {
	for k, n := range h.counts {
		name := prefix + k.family
		if k.label != "" {
			name += "." + strings.ReplaceAll(k.label, "/", "-")
		}
		c.put(name, n)
	}
	for i, n := range h.Latency.counts {
		c.put(prefix+famLatency+"."+strconv.Itoa(i), n)
	}
	c.put(prefix+famLatSum, h.Latency.sum)
}

// exportRows writes the rows and, with those of each delta, their sum: a worker that is killed between two deltas leaves
// none that disagrees with its rows. What has no row goes with the last ones.
func (p *part) exportRows(prefix string, c *cutter) {
	ids := slices.Sorted(maps.Keys(p.proxies))
	for left := p.every; left != (proxyCounts{}); {
		counts := c.room(2)
		n := min(len(ids), maxIncrements-len(counts)-1)
		var sum proxyCounts
		for _, id := range ids[:n] {
			counts[prefix+id] = p.proxies[id].pack()
			sum.merge(p.proxies[id])
		}
		if ids = ids[n:]; len(ids) == 0 {
			sum = left
		}
		counts[prefix+everyProxy] = sum.pack()
		left.less(&sum)
	}
}

// fieldDigits is the width of one field in a packed row. No sum of an hour comes near to a number of 18 digits, and
// each of those fits into 63 bits.
const fieldDigits = 18

// pack writes all fields as one decimal number, side by side: numbers of any length can be added up, and a row of one
// counter costs the server a sixth of what six cost. No field may be negative.
func (c *proxyCounts) pack() string {
	var out strings.Builder
	for _, n := range slices.Backward(c[:]) {
		fmt.Fprintf(&out, "%0*d", fieldDigits, max(n, 0))
	}
	return cmp.Or(strings.TrimLeft(out.String(), "0"), "0")
}

func (c *proxyCounts) unpack(text string) error {
	if text == "" || len(text) > proxyFields*fieldDigits {
		return errNumber
	}
	for i := range c {
		cut := max(0, len(text)-fieldDigits)
		n, err := strconv.ParseUint(cmp.Or(text[cut:], "0"), 10, 63)
		if err != nil {
			return errNumber
		}
		c[i], text = int64(n), text[:cut]
	}
	return nil
}

// Set puts the sum of that name to total, a decimal number: what a flush of any number of books added up to. To set a
// sum again, also to an older value, is harmless. A name that no Delta has is an error; the mark of a book, and an hour
// that is no longer kept, are left out.
func (b *Book) Set(name, total string) error {
	kind, rest, _ := strings.Cut(name, ".")
	if kind == famMark {
		return nil
	}
	token, rest, _ := strings.Cut(rest, ".")
	start, err := time.Parse(hourLayout, token)
	if err != nil || start.After(time.Now().Add(aheadHours*time.Hour)) {
		return fmt.Errorf("rollup %.80q: no hour of now", name)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loaded = true
	switch kind {
	case famProxy:
		err = b.setProxy(hourOf(start), rest, total)
	case famHour:
		err = b.setHour(hourOf(start), rest, total)
	default:
		err = errUnknown
	}
	if err != nil {
		return fmt.Errorf("rollup %.80q: %w", name, err)
	}
	return nil
}

var (
	errUnknown = errors.New("unknown name")
	errNumber  = errors.New("not a sum")
)

// setProxy leaves out the row of a proxy when there are too many: it is in the sum of all.
func (b *Book) setProxy(hour int64, id, total string) error {
	now := hourOf(time.Now())
	b.proxies.roll(now, false)
	if id != everyProxy && !jobs.ValidProxyID(id) {
		return errUnknown
	}
	var counts proxyCounts
	if err := counts.unpack(total); err != nil {
		return err
	}
	if hour <= now-proxyHours {
		return nil
	}
	if r := b.proxies.row(id); r != nil {
		r.set(hour, &counts)
	}
	return nil
}

func (b *Book) setHour(hour int64, name, total string) error {
	n, err := strconv.ParseUint(total, 10, 63)
	if err != nil {
		return errNumber
	}
	family, label, _ := strings.Cut(name, ".")
	if h := b.hour(hour); h != nil {
		return h.set(family, label, int64(n))
	}
	return nil
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
