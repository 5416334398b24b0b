package rollup

import (
	"cmp"
	"crypto/rand"
	"slices"
	"time"
)

// Part is what one book counted of one kind in one hour, since it began the part. Its sums only grow, so a newer version takes
// the place of an older one. The hour of a fleet is the sum of the newest versions of all parts of that hour.
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
	// version counts the facts in sum, stored those of them that are in data. data is the version that was stored last.
	version, stored uint64
	data            []byte
}

// part is the one that facts of that hour are added to. A new part gets a random id, so that parts of two workers,
// or of two runs of one worker, never replace each other.
func (b *Book) part(hour int64, kind Kind) *part {
	at := partOf{hour, kind}
	p := b.parts[at]
	if p == nil {
		p = &part{id: rand.Text(), sum: NewSum(kind)}
		b.parts[at] = p
	}
	// Every caller adds a fact next, under the same lock.
	p.version++
	return p
}

// Changed returns the parts whose newest version is not stored, the oldest hour first. It also forgets the parts of hours that
// ended long ago, once they are stored: a fact that still comes for such an hour begins another part.
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
		// Facts of the hour before still come, from jobs that end late.
		case at.hour < now-1 || at.hour > now+aheadHours:
			delete(b.parts, at)
		}
	}
	slices.SortFunc(out, func(a, b Part) int { return cmp.Or(a.Hour.Compare(b.Hour), cmp.Compare(a.Kind, b.Kind)) })
	return out
}

// Stored says that a version of a part is stored. A version that is older than the stored one is ignored: answers
// may come in another order.
func (b *Book) Stored(p Part) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if held := b.parts[partOf{hourOf(p.Hour), p.Kind}]; held != nil && held.id == p.ID && p.version > held.stored {
		held.stored, held.data = p.version, p.Data
	}
}

// Lost says that the versions of a part that were stored are no longer there: somebody deleted them. What was counted since the
// latest of them goes on as another part.
func (b *Book) Lost(p Part) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := partOf{hourOf(p.Hour), p.Kind}
	held := b.parts[at]
	if held == nil || held.id != p.ID {
		return
	}
	// Without this, what the deleted versions held would be counted again in a stream that has lost it on purpose.
	held.sum.subtract(held.data)
	if held.sum.isEmpty() {
		delete(b.parts, at)
		return
	}
	b.parts[at] = &part{id: rand.Text(), sum: held.sum, version: 1}
}
