package rollup

import (
	"cmp"
	"crypto/rand"
	"slices"
	"time"
)

// Part has the sums of one kind that one book counted in one hour since the part began. The sums only grow, so a newer version
// replaces an older one. An hour of the fleet is the sum of the newest versions of all its parts.
type Part struct {
	// Hour is the hour's start.
	Hour time.Time
	Kind Kind
	// ID is unique to the part, [A-Z2-7].
	ID string
	// Data is for Sum.Add.
	Data []byte
	// version counts the facts that are in Data.
	version uint64
}

// partOf names the part that a book adds to.
type partOf struct {
	hour int64
	kind Kind
}

// part is a part that facts are added to.
type part struct {
	id  string
	sum *Sum
	// version counts the facts in sum. data is the encoded sum that was stored last, and stored is its version.
	version, stored uint64
	data            []byte
}

// part returns the part of an hour for the next fact, and counts that fact in its version. A new part gets a random id, so that
// parts of two workers, or of two starts of one worker, never replace each other.
func (b *Book) part(hour int64, kind Kind) *part {
	at := partOf{hour, kind}
	p := b.parts[at]
	if p == nil {
		p = &part{id: rand.Text(), sum: NewSum(kind)}
		b.parts[at] = p
	}
	// Each caller adds a fact next, under the same lock.
	p.version++
	return p
}

// Changed returns the parts whose newest version is not stored, the oldest hour first. It also forgets stored parts of hours
// before the previous one. A later fact of such an hour begins a new part.
func (b *Book) Changed() []Part {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := hourOf(time.Now())
	b.roll(now)
	var out []Part
	for at, p := range b.parts {
		switch {
		case p.version != p.stored:
			out = append(out, Part{Hour: startOf(at.hour), Kind: at.kind, ID: p.id, Data: p.sum.encode(), version: p.version})
		// Facts of the previous hour still arrive, from jobs that end late.
		case at.hour < now-1 || at.hour > now+aheadHours:
			delete(b.parts, at)
		}
	}
	slices.SortFunc(out, func(a, b Part) int { return cmp.Or(a.Hour.Compare(b.Hour), cmp.Compare(a.Kind, b.Kind)) })
	return out
}

// Stored notes that a version of a part is stored. It ignores a version that is older than the stored one, because answers of the
// server may arrive in another order.
func (b *Book) Stored(p Part) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if held := b.parts[partOf{hourOf(p.Hour), p.Kind}]; held != nil && held.id == p.ID && p.version > held.stored {
		held.stored, held.data = p.version, p.Data
	}
}

// Lost notes that somebody deleted the stored versions of a part. A new part begins, with the counts since the latest stored
// version.
func (b *Book) Lost(p Part) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := partOf{hourOf(p.Hour), p.Kind}
	held := b.parts[at]
	if held == nil || held.id != p.ID {
		return
	}
	// Without the subtraction, the next version would bring back the counts that somebody deleted on purpose.
	held.sum.subtract(held.data)
	if held.sum.isEmpty() {
		delete(b.parts, at)
		return
	}
	b.parts[at] = &part{id: rand.Text(), sum: held.sum, version: 1}
}
