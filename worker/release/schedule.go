package release

import (
	"container/heap"
	"time"
)

// lineSchedule holds lines by the time of their next look. A line is the waiting jobs of one site. The zero value is empty. It
// has no lock of its own: the lock of the Releaser guards it.
type lineSchedule struct{ heap lineHeap }

// idleWait is how long a runner waits at most for a line that nobody has announced.
const idleWait = time.Minute

func (q *lineSchedule) push(l *line) { heap.Push(&q.heap, l) }

// pop takes the first line whose time has come, or says how long that takes. The wait is bounded by idleWait in
// both cases, so a runner never sleeps on a line whose time changed without a signal.
func (q *lineSchedule) pop(now time.Time) (l *line, wait time.Duration) {
	if len(q.heap) == 0 {
		return nil, idleWait
	}
	if wait := q.heap[0].next.Sub(now); wait > 0 {
		return nil, min(wait, idleWait)
	}
	return heap.Pop(&q.heap).(*line), 0
}

// move brings a queued line's time forward; it never delays it. A later time is set by push, when the runner gives the line back.
func (q *lineSchedule) move(l *line, next time.Time) {
	if l.index >= 0 && next.Before(l.next) {
		l.next = next
		heap.Fix(&q.heap, l.index)
	}
}

// remove takes a line out. The line must be queued, so its index is not -1.
func (q *lineSchedule) remove(l *line) { heap.Remove(&q.heap, l.index) }

// lineHeap is what container/heap works on. Each line knows its index, -1 outside. It is a slice of pointers,
// because lookSoon and forget find a line by the map and need its place in the heap.
type lineHeap []*line

func (h lineHeap) Len() int           { return len(h) }
func (h lineHeap) Less(i, j int) bool { return h[i].next.Before(h[j].next) }
func (h lineHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *lineHeap) Push(x any) {
	l := x.(*line)
	l.index = len(*h)
	*h = append(*h, l)
}

func (h *lineHeap) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	*h = (*h)[:last]
	l.index = -1
	return l
}
