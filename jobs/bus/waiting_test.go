package bus_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
)

// park stores a waiting job with one attempt.
func (in *installation) park(t *testing.T, id string, at time.Time) {
	t.Helper()
	parked, err := in.Park(soon(t), "default", id, []byte("https://example.com/"+id), jobs.Progress{JobSeq: 7, Attempts: []jobs.Attempt{{Attempt: 1, Proxy: "p1"}}}, at)
	must(t, err)
	if !parked {
		t.Fatalf("job %s waits already", id)
	}
}

// overdue are the jobs that will be overdue in an hour if the server forgets them.
func (in *installation) overdue(t *testing.T) (list []bus.WaitingJob) {
	t.Helper()
	must(t, in.Overdue(soon(t), -time.Hour, func(job bus.WaitingJob) { list = append(list, job) }))
	return list
}

// waiting is an installation with a job that waits, and the job.
func waiting(t *testing.T) (*installation, bus.WaitingJob) {
	t.Helper()
	in := install(t, bus.Settings{})
	in.park(t, "a", time.Now().Add(time.Minute))
	list := in.overdue(t)
	if len(list) != 1 {
		t.Fatalf("got %v, want one job", list)
	}
	return in, list[0]
}

func TestJobsThatTheServerForgotAreOverdue(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.park(t, "later", time.Now().Add(time.Hour))
	at := time.Now().Add(3 * time.Second).Truncate(time.Millisecond)
	in.park(t, "a", at)
	in.park(t, "b", at)
	in.server.ForgetTimers("GOFER_RETRIES")
	eventually(t, in.nc.IsConnected)
	var list []bus.WaitingJob
	eventually(t, func() bool {
		list = nil
		must(t, in.Overdue(soon(t), 0, func(job bus.WaitingJob) { list = append(list, job) }))
		return len(list) > 0
	})
	if len(list) != 2 || list[0].Key != key("a") || list[1].Key != key("b") || !list[0].Until.Equal(at) {
		t.Errorf("got %v, want a and b and their time", list)
	}
	must(t, in.Overdue(soon(t), time.Minute, func(job bus.WaitingJob) { t.Errorf("%s is not overdue by a minute", job.ID) }))
}

func TestReleasedJobIsDueWithItsAttemptsAndHeaders(t *testing.T) {
	t.Parallel()
	in, job := waiting(t)
	released, err := in.Release(soon(t), job)
	must(t, err)
	if !released {
		t.Fatal("the job is not released")
	}
	lane, err := in.Lane(soon(t), "default", true)
	must(t, err)
	msg, err := lane.Next()
	must(t, err)
	progress, err := jobs.ParseProgress(msg.Headers().Get(jobs.HeaderProgress))
	must(t, err)
	if string(msg.Data()) != "https://example.com/a" || len(progress.Attempts) != 1 || msg.Headers().Get(jobs.HeaderJobSeq) != "7" {
		t.Errorf("got %q with %v, want the job, its attempt and its sequence", msg.Data(), msg.Headers())
	}
	if found, err := in.client.Find(soon(t), client.Key{Queue: "", ID: "a"}); err != nil || len(found) != 1 || found[0].Place != client.Due {
		t.Errorf("the job is %v, %v; want it due and nowhere else", found, err)
	}
}

func TestReleaseLeavesAloneWhatIsNoLongerTheJobThatWasRead(t *testing.T) {
	t.Parallel()
	changes := map[string]func(*installation, bus.WaitingJob) error{
		"released": func(in *installation, job bus.WaitingJob) error {
			_, err := in.Release(soon(t), job)
			in.takeDue(t, "a")
			return err
		},
		"cancelled": func(in *installation, _ bus.WaitingJob) error { return in.Unpark(soon(t), "default", "a") },
		"parked again": func(in *installation, _ bus.WaitingJob) error {
			err := in.Unpark(soon(t), "default", "a")
			in.park(t, "a", time.Now().Add(time.Hour))
			return err
		},
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in, job := waiting(t)
			must(t, change(in, job))
			released, err := in.Release(soon(t), job)
			if err != nil || released {
				t.Errorf("got released %t, %v; want the job left alone", released, err)
			}
			found, err := in.client.Find(soon(t), client.Key{Queue: "", ID: "a"})
			if err != nil || slices.ContainsFunc(found, func(f client.Found) bool { return f.Place == client.Due }) {
				t.Errorf("the job is %v, %v; want it not due", found, err)
			}
		})
	}
}

// takeDue takes a due job and ends it.
func (in *installation) takeDue(t *testing.T, id string) {
	t.Helper()
	lane, err := in.Lane(soon(t), "default", true)
	must(t, err)
	msg, err := lane.Next(jetstream.FetchMaxWait(10 * time.Second))
	must(t, err)
	if msg.Subject() != "_gofer.due.default."+id {
		t.Fatalf("got %s, want job %s", msg.Subject(), id)
	}
	must(t, msg.DoubleAck(soon(t)))
}

func TestMessageWithoutATimeIsScheduledForWhenItWasStored(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	_, err := in.js.PublishMsg(soon(t), &nats.Msg{Subject: "_gofer.at.default.a", Data: []byte("https://example.com/a"), Header: nats.Header{"Gofer-Job-Seq": {"7"}}})
	must(t, err)
	job := in.overdue(t)[0]
	if age := time.Since(job.Until); age.Abs() > time.Minute {
		t.Errorf("its time is %s ago, want that when it was stored", age)
	}
	released, err := in.Release(soon(t), job)
	if err != nil || !released {
		t.Fatalf("got released %t, %v", released, err)
	}
	in.takeDue(t, "a")
}

func TestStillWaitingKnowsWhichJobsAreGone(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	for i := range 4 {
		in.park(t, fmt.Sprint("j", i), time.Now().Add(time.Hour))
	}
	must(t, in.Unpark(soon(t), "default", "j1"))
	var got []uint64
	must(t, in.StillWaiting(soon(t), []uint64{1, 2, 3, 99}, func(job bus.WaitingJob) { got = append(got, job.Seq) }))
	slices.Sort(got)
	if !slices.Equal(got, []uint64{1, 3}) {
		t.Errorf("got %v, want the two of those four that are there", got)
	}
}

func TestNextWaitingJobIsTheFirstAfterASequence(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	for _, id := range []string{"a", "b", "c"} {
		in.park(t, id, time.Now().Add(time.Hour))
	}
	must(t, in.Unpark(soon(t), "default", "b"))
	for after, want := range map[uint64]string{0: "a", 1: "c", 2: "c", 3: ""} {
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
		_, err := in.Park(soon(t), "default", fmt.Sprint("j", i), body, jobs.Progress{}, time.Now().Add(time.Hour))
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

func TestWhoeverMayNotReadWaitingJobsIsToldSo(t *testing.T) {
	f := deploy(t)
	f.worker.park(t, "a", time.Now().Add(time.Hour))
	_, _, err := f.publisher.NextWaiting(soon(t), 0)
	isError(t, err, bus.ErrPermission)
	_, _, err = f.publisher.WaitingPage(soon(t), 0, 10, func(bus.WaitingJob) {})
	isError(t, err, bus.ErrPermission)
	isError(t, f.publisher.StillWaiting(soon(t), []uint64{1}, func(bus.WaitingJob) {}), bus.ErrPermission)
	isError(t, f.publisher.client.CountOverdue(soon(t), nil), bus.ErrPermission)
	_, err = f.publisher.Release(soon(t), f.worker.overdue(t)[0])
	isError(t, err, bus.ErrPermission)
}
