package stream_test

import (
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
)

// waiting is an installation with a job that waits, and the job.
func waiting(t *testing.T) (*installation, bus.WaitingJob) {
	t.Helper()
	in := install(t, bus.Settings{})
	in.schedule(t, "a", time.Now().Add(time.Minute))
	list := in.overdue(t)
	if len(list) != 1 {
		t.Fatalf("got %v, want one job", list)
	}
	return in, list[0]
}

func TestReleasedJobIsDueWithItsAttemptsAndHeaders(t *testing.T) {
	t.Parallel()
	in, job := waiting(t)
	released, err := in.Release(soon(t), job)
	must(t, err)
	if !released {
		t.Fatal("the job is not released")
	}
	consumer, err := in.EnsureJobConsumer(soon(t), "default", true)
	must(t, err)
	msg, err := consumer.Next()
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
		"cancelled": func(in *installation, _ bus.WaitingJob) error { return in.RemoveScheduled(soon(t), "default", "a") },
		"scheduled again": func(in *installation, _ bus.WaitingJob) error {
			err := in.RemoveScheduled(soon(t), "default", "a")
			in.schedule(t, "a", time.Now().Add(time.Hour))
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
	consumer, err := in.EnsureJobConsumer(soon(t), "default", true)
	must(t, err)
	msg, err := consumer.Next(jetstream.FetchMaxWait(testenv.Patience))
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

// schedule stores a waiting job with one attempt.
func (in *installation) schedule(t *testing.T, id string, at time.Time) {
	t.Helper()
	scheduled, err := in.Schedule(soon(t), "default", id, []byte("https://example.com/"+id), &jobs.Progress{JobSeq: 7, Attempts: []jobs.Attempt{{Attempt: 1, Proxy: "p1"}}}, at)
	must(t, err)
	if !scheduled {
		t.Fatalf("job %s waits already", id)
	}
}

// overdue are the jobs that will be overdue in an hour if the server forgets them.
func (in *installation) overdue(t *testing.T) (list []bus.WaitingJob) {
	t.Helper()
	must(t, in.Overdue(soon(t), -time.Hour, func(job bus.WaitingJob) { list = append(list, job) }))
	return list
}
