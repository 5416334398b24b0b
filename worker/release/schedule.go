package release

import (
	"container/heap"
	"time"
)

// schedule holds backlogs by the time of their next visit. The zero value is empty. The lock of the Releaser guards it.
type schedule struct{ heap backlogHeap }

// idleWait is how long a runner waits at most without a signal.
const idleWait = time.Minute

func (q *schedule) push(b *backlog) { heap.Push(&q.heap, b) }

// pop removes and returns the backlog with the earliest visit that is due. If no visit is due, it returns nil and the time until
// the next visit, at most idleWait.
func (q *schedule) pop(now time.Time) (b *backlog, wait time.Duration) {
	if len(q.heap) == 0 {
		return nil, idleWait
	}
	if wait := q.heap[0].next.Sub(now); wait > 0 {
		return nil, min(wait, idleWait)
	}
	return heap.Pop(&q.heap).(*backlog), 0
}

// move makes the next visit earlier; it never delays it. It does nothing while a runner holds the backlog.
func (q *schedule) move(b *backlog, next time.Time) {
	if b.index >= 0 && next.Before(b.next) {
		b.next = next
		heap.Fix(&q.heap, b.index)
	}
}

// remove removes a backlog that no runner holds.
func (q *schedule) remove(b *backlog) { heap.Remove(&q.heap, b.index) }

// backlogHeap implements heap.Interface. Each backlog has its index in the heap, because move and remove need the index.
type backlogHeap []*backlog

func (h backlogHeap) Len() int           { return len(h) }
func (h backlogHeap) Less(i, j int) bool { return h[i].next.Before(h[j].next) }
func (h backlogHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *backlogHeap) Push(x any) {
	b := x.(*backlog)
	b.index = len(*h)
	*h = append(*h, b)
}

func (h *backlogHeap) Pop() any {
	last := len(*h) - 1
	b := (*h)[last]
	*h = (*h)[:last]
	b.index = -1
	return b
}
