package bus_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/stream"
)

// park stores a waiting job with one attempt.
func (in *installation) park(t *testing.T, id string, at time.Time) {
	t.Helper()
	parked, err := stream.New(in.Client).Schedule(soon(t), "default", id, []byte("https://example.com/"+id), &jobs.Progress{JobSeq: 7, Attempts: []jobs.Attempt{{Attempt: 1, Proxy: "p1"}}}, at)
	must(t, err)
	if !parked {
		t.Fatalf("job %s waits already", id)
	}
}

// firstSeq is the sequence of the oldest message of a stream.
func (in *installation) firstSeq(t *testing.T, stream string) uint64 {
	t.Helper()
	info, err := in.StreamInfo(soon(t), stream)
	must(t, err)
	return info.State.FirstSeq
}

// overdue are the jobs that will be overdue in an hour if the server forgets them.
func (in *installation) overdue(t *testing.T) (list []bus.WaitingJob) {
	t.Helper()
	must(t, in.Overdue(soon(t), -time.Hour, func(job bus.WaitingJob) { list = append(list, job) }))
	return list
}

func TestJobsThatTheServerForgotAreOverdue(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.park(t, "later", time.Now().Add(time.Hour))
	at := time.Now().Add(20 * time.Second).Truncate(time.Millisecond)
	in.park(t, "a", at)
	in.park(t, "b", at)
	in.server.ForgetTimers("GOFER_RETRIES")
	testenv.Eventually(t, "the connection", in.nc.IsConnected)
	var list []bus.WaitingJob
	testenv.Eventually(t, "the overdue jobs", func() bool {
		list = nil
		must(t, in.Overdue(soon(t), 0, func(job bus.WaitingJob) { list = append(list, job) }))
		return len(list) > 0
	})
	if len(list) != 2 || list[0].Key != key("a") || list[1].Key != key("b") || !list[0].Until.Equal(at) {
		t.Errorf("got %v, want a and b and their time", list)
	}
	must(t, in.Overdue(soon(t), time.Minute, func(job bus.WaitingJob) { t.Errorf("%s is not overdue by a minute", job.ID) }))
}

func TestStillWaitingKnowsWhichJobsAreGone(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	for i := range 4 {
		in.park(t, fmt.Sprint("j", i), time.Now().Add(time.Hour))
	}
	first := in.firstSeq(t, "GOFER_RETRIES")
	must(t, in.RemoveScheduled(soon(t), "default", "j1"))
	var got []uint64
	must(t, in.StillWaiting(soon(t), []uint64{first, first + 1, first + 2, first + 99}, func(job bus.WaitingJob) { got = append(got, job.Seq) }))
	slices.Sort(got)
	if !slices.Equal(got, []uint64{first, first + 2}) {
		t.Errorf("got %v, want the two of those four that are there", got)
	}
}

func TestNextWaitingJobIsTheFirstAfterASequence(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	for _, id := range []string{"a", "b", "c"} {
		in.park(t, id, time.Now().Add(time.Hour))
	}
	a := in.firstSeq(t, "GOFER_RETRIES")
	must(t, in.RemoveScheduled(soon(t), "default", "b"))
	for after, want := range map[uint64]string{0: "a", a: "c", a + 1: "c", a + 2: ""} {
		got, found, err := in.NextWaiting(soon(t), after)
		if err != nil || found != (want != "") || got.ID != want {
			t.Errorf("after %d: got %q, %t, %v; want %q", after, got.ID, found, err, want)
		}
	}
}

func TestPagesHoldEveryWaitingJobOnce(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	const n = 40
	body := make([]byte, 500<<10) // sixteen fill a page
	for i := range n {
		_, err := stream.New(in.Client).Schedule(soon(t), "default", fmt.Sprint("j", i), body, &jobs.Progress{}, time.Now().Add(time.Hour))
		must(t, err)
	}
	seen, pages := map[uint64]bool{}, 0
	for after, more := uint64(0), true; more; pages++ {
		var err error
		after, more, err = in.WaitingPage(soon(t), after, 30, func(job bus.WaitingJob) {
			if seen[job.Seq] {
				t.Errorf("sequence %d comes twice", job.Seq)
			}
			seen[job.Seq] = true
		})
		must(t, err)
	}
	if len(seen) != n || pages != 3 {
		t.Errorf("got %d jobs on %d pages, want %d on 3", len(seen), pages, n)
	}
}

// TestReadWaitingReadsEveryJobOnce, with gaps between the jobs and others that come after the last read. The bounds of a page
// hold.
func TestReadWaitingReadsEveryJobOnce(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	const n = 600
	for i := range n {
		in.park(t, fmt.Sprint("j", i), time.Now().Add(time.Hour))
	}
	first := in.firstSeq(t, "GOFER_RETRIES")
	want := map[uint64]bool{}
	for i := range uint64(n) {
		// Every third one is gone at first, and all but the last one of the second half.
		if i%3 == 1 || i > n/2 && i < n-1 {
			must(t, in.RemoveScheduled(soon(t), "default", fmt.Sprint("j", i)))
		} else {
			want[first+i] = true
		}
	}
	var got []uint64
	after, read := uint64(0), 0
	use := func(job bus.WaitingJob) {
		read++
		got = append(got, job.Seq)
	}
	readAll := func() {
		t.Helper()
		for more := true; more; {
			var err error
			read = 0
			after, more, err = in.ReadWaiting(soon(t), after, 50, use)
			must(t, err)
			if read > 50 {
				t.Errorf("got %d jobs at once, want at most 50", read)
			}
		}
	}
	readAll()
	if last := first + n - 1; after != last {
		t.Errorf("read up to %d, want up to the last one, %d", after, last)
	}
	in.park(t, "later", time.Now().Add(time.Hour))
	want[first+n] = true
	readAll()
	if !slices.IsSorted(got) || len(got) != len(want) || slices.ContainsFunc(got, func(seq uint64) bool { return !want[seq] }) {
		t.Errorf("got %d jobs, sorted %t: %v; want these %d, each once and in order", len(got), slices.IsSorted(got), got, len(want))
	}
}

func TestWhoeverMayNotReadWaitingJobsIsToldSo(t *testing.T) {
	f := deploy(t)
	f.worker.park(t, "a", time.Now().Add(time.Hour))
	_, _, err := f.publisher.NextWaiting(soon(t), 0)
	isError(t, err, bus.ErrPermission)
	_, _, err = f.publisher.WaitingPage(soon(t), 0, 10, func(bus.WaitingJob) {})
	isError(t, err, bus.ErrPermission)
	_, _, err = f.publisher.ReadWaiting(soon(t), 0, 10, func(bus.WaitingJob) {})
	isError(t, err, bus.ErrPermission)
	isError(t, f.publisher.StillWaiting(soon(t), []uint64{1}, func(bus.WaitingJob) {}), bus.ErrPermission)
	isError(t, f.publisher.client.CountOverdue(soon(t), nil), bus.ErrPermission)
	_, err = stream.New(f.publisher.Client).Release(soon(t), f.worker.overdue(t)[0])
	isError(t, err, bus.ErrPermission)
}
