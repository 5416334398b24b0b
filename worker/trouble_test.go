package worker_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
)

// newFullWorld is a world whose results have room for small ones only, and not for that of fills until somebody raises the limit.
func newFullWorld(t *testing.T, ackWait time.Duration) *world {
	t.Helper()
	w := newWorld(t, bus.Settings{ResultsMaxBytes: 64 << 10, AckWait: ackWait})
	kept := fills().Result
	kept.Queue, kept.ID = "default", "kept"
	if _, err := w.client.StoreResult(t.Context(), &kept); err != nil {
		t.Fatal(err)
	}
	return w
}

// fills is the outcome of a job whose result fits once into 64 KiB.
func fills() *jobs.RunOutcome { return finished(jobs.Succeeded, "", make([]byte, 40<<10)) }

func TestThatResultsWereFullIsForgottenWithTheLeaseOfTheJobThatSawIt(t *testing.T) {
	t.Parallel()
	w := newFullWorld(t, shortWait)
	w.start(func(_ context.Context, job *jobs.Job, _ *jobs.Progress) *jobs.RunOutcome {
		if job.ID == "big" {
			return fills()
		}
		return finished(jobs.Succeeded, "", nil)
	})
	w.publish("big", page)
	w.until("the results to be full", func() bool { return !w.storable() })
	w.nats.Stop()
	w.until("the lease to be lost", func() bool { return w.worker.Stats().LeasesLost > 0 })
	w.nats.Start()
	w.set.ResultsMaxBytes = 1 << 20
	w.until("room", func() bool {
		_, err := w.client.Apply(t.Context(), w.set)
		return err == nil
	})
	w.publish("small", page)
	w.until("the worker to go on", func() bool { return w.hasResult("small")() && w.hasResult("big")() && w.storable() })
}

// TestAWorkerSaysWhichLimitOfResultsIsReached, and goes on when the limit is gone, which gofer setup takes from the stream.
func TestAWorkerSaysWhichLimitOfResultsIsReached(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{})
	w.start(func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome {
		return finished(jobs.Succeeded, "", nil)
	})
	stream, err := w.client.JetStream().Stream(t.Context(), "GOFER_RESULTS")
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	config.MaxMsgs = 1
	if _, err := w.client.JetStream().UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	w.publish("a", page)
	w.publish("b", page)
	w.until("the results to be too many", func() bool { return errors.Is(w.worker.StoreError(), bus.ErrTooManyResults) })
	if _, err := w.client.Apply(t.Context(), w.set); err != nil {
		t.Fatal(err)
	}
	w.until("the worker to go on", func() bool { return w.hasResult("a")() && w.hasResult("b")() && w.storable() })
}

// TestAWorkerWithoutJobsIsReadySoonAfterItsServerIsBack: the pull that waits for minutes is no reason to stay unready for
// minutes.
func TestAWorkerWithoutJobsIsReadySoonAfterItsServerIsBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{AckWait: longWait})
	w.drain = 8 * time.Second // with less, a pull does not wait for long
	w.start(func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome {
		return finished(jobs.Succeeded, "", nil)
	})
	w.until("the worker to pull", func() bool { return w.worker.PullError() == nil })
	w.nats.Stop()
	w.until("the worker to notice", func() bool { return w.worker.PullError() != nil })
	w.nats.Start()
	began := time.Now()
	w.until("the worker to pull again", func() bool { return w.worker.PullError() == nil })
	if took := time.Since(began); took > 2*time.Minute {
		t.Errorf("it took %s, as long as a pull waits", took)
	}
}

// TestAJobThatComesWhileResultsAreFullGoesBack has a pull that waits already when the results become full.
func TestAJobThatComesWhileResultsAreFullGoesBack(t *testing.T) {
	t.Parallel()
	w := newFullWorld(t, longWait)
	w.drain = 8 * time.Second // with less, a pull ends before the job comes
	w.start(func(_ context.Context, job *jobs.Job, _ *jobs.Progress) *jobs.RunOutcome {
		if job.ID != "big" {
			t.Errorf("job %s runs, and its result cannot be stored", job.ID)
		}
		return fills()
	})
	w.publish("big", page)
	w.until("the results to be full", func() bool { return !w.storable() })
	w.publish("next", page)
	w.until("the next job to go back", func() bool { return w.worker.Stats().HandedBack > 0 })
}

func TestADrainEndsInTimeAlthoughResultsAreFullAndHandsTheJobBack(t *testing.T) {
	t.Parallel()
	w := newFullWorld(t, shortWait)
	w.drain = 8 * time.Second // its last sixteenth has to be enough for the job to go back
	w.start(func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome { return fills() })
	w.publish("big", page)
	w.until("the results to be full", func() bool { return !w.storable() })
	// The worker goes on with the result for as long as it has the lease, which is for ever.
	if took := w.stop(); took > w.drain+20*time.Second {
		t.Errorf("the drain took %v, want it to end after %v", took, w.drain)
	}
	w.until("the job to be anybody's", func() bool {
		b, err := w.client.JobConsumerInfo(t.Context(), "default", false)
		return err == nil && (b.Pending == 1 || b.Held == 1) && w.worker.Stats().HandedBack > 0
	})
}

func TestAStreamThatSomebodyDeletedIsMadeAnew(t *testing.T) {
	t.Parallel()
	for stream, outcome := range map[string]*jobs.RunOutcome{
		"GOFER_JOBS":       finished(jobs.Succeeded, "", nil),
		"GOFER_RESULTS":    finished(jobs.Succeeded, "", nil),
		"GOFER_DEAD":       finished(jobs.Failed, jobs.ErrPermanent, nil),
		"OBJ_gofer-bodies": finished(jobs.Succeeded, "", make([]byte, jobs.MaxInlineBody+1)),
		"GOFER_RETRIES":    {Kind: jobs.RunScheduled},
	} {
		t.Run(stream, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, bus.Settings{})
			w.start(func(_ context.Context, job *jobs.Job, _ *jobs.Progress) *jobs.RunOutcome {
				if outcome.Kind == jobs.RunScheduled && job.ID == "before" {
					return finished(jobs.Succeeded, "", nil)
				}
				o := *outcome
				o.At, o.Result.FinishedAt = time.Now().Add(time.Hour), time.Now()
				return &o
			})
			w.publish("before", page)
			w.until("the first job to end", w.hasResult("before"))
			if err := w.client.JetStream().DeleteStream(t.Context(), stream); err != nil {
				t.Fatal(err)
			}
			w.until("the job to be taken in", func() bool {
				_, err := w.client.JetStream().Publish(t.Context(), "gofer.jobs.default.after", []byte(page))
				return err == nil
			})
			w.until("the next job to end", func() bool {
				found, err := client.New(w.client).Find(t.Context(), client.Key{Queue: "default", ID: "after"})
				return err == nil && len(found) == 1 && (found[0].Place == client.Finished || found[0].Place == client.Waiting) &&
					w.worker.Stats().InFlight["default"] == 0
			})
			if !w.storable() {
				t.Error("the worker says that outcomes cannot be stored, want it to see that they can again")
			}
		})
	}
}

func TestAWorkerSaysThatOutcomesCannotBeStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{})
	w.set.Replicas = 3 // which this server refuses; the worker learns of it when it creates a stream
	w.start(func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome {
		return finished(jobs.Succeeded, "", nil)
	})
	if err := w.client.JetStream().DeleteStream(t.Context(), "GOFER_RESULTS"); err != nil {
		t.Fatal(err)
	}
	w.publish("j1", page)
	w.until("the worker to say so", func() bool {
		err := w.worker.StoreError()
		return err != nil && strings.Contains(err.Error(), "streams are missing")
	})
	w.until("another look at the streams", func() bool { return time.Since(w.worker.Unsettled()[0].Since) > 5*time.Second })
	if n := w.restores.Load(); n != 1 {
		t.Errorf("the streams are created %d times, want once: a refusal lasts until somebody changes the server", n)
	}
}

// TestAJobOfAnImpossibleNameEndsAndHurtsNoOther takes an id that fits into a publish of its client, and not into what a worker
// would send: the server closes the connection of whoever sends that.
func TestAJobOfAnImpossibleNameEndsAndHurtsNoOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{AckWait: longWait})
	w.start(func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome {
		return finished(jobs.Succeeded, "", nil)
	})
	for _, id := range []string{strings.Repeat("a", 129), strings.Repeat("b", 600), strings.Repeat("c", 3900), strings.Repeat("d.", 1900) + "d"} {
		w.publish(id, page)
	}
	w.publish("good", page)
	w.until("the good job to end", w.hasResult("good"))
	w.until("the bad ones to end", func() bool { return w.worker.Stats().DeadLetters == 4 && w.worker.Stats().InFlight["default"] == 0 })
	if lost := w.worker.Stats().LeasesLost; lost != 0 {
		t.Errorf("%d leases lost, want none", lost)
	}
}

func TestAJobWhoseTimeHasComeByTheServersClockIsRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{AckWait: longWait})
	var early, runs atomic.Int32
	w.start(func(_ context.Context, job *jobs.Job, _ *jobs.Progress) *jobs.RunOutcome {
		runs.Add(1)
		if !job.NotBefore.IsZero() && job.ID == "past" {
			early.Add(1)
		}
		if job.ID == "future" && job.NotBefore.IsZero() {
			early.Add(1)
		}
		return finished(jobs.Succeeded, "", nil)
	})
	w.publish("past", `{"url": "`+page+`", "not_before": "`+time.Now().UTC().Add(-time.Second).Format(time.RFC3339Nano)+`"}`)
	w.publish("future", `{"url": "`+page+`", "not_before": "`+time.Now().UTC().Add(time.Hour).Format(time.RFC3339Nano)+`"}`)
	w.until("both to be run", func() bool { return runs.Load() == 2 })
	if early.Load() != 0 {
		t.Error("a worker is asked to wait for a time that has passed at the server, or not for one that has not")
	}
}

func TestAJobThatIsCancelledWhileItIsParkedDoesNotWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{AckWait: longWait})
	w.start(func(ctx context.Context, job *jobs.Job, _ *jobs.Progress) *jobs.RunOutcome {
		if err := client.New(w.client).Cancel(t.Context(), bus.Key{Queue: "default", ID: job.ID}); err != nil {
			t.Error(err)
		}
		<-ctx.Done() // the worker has heard of it
		return &jobs.RunOutcome{Kind: jobs.RunScheduled, At: time.Now().Add(time.Hour)}
	})
	w.publish("j1", page)
	w.until("the run to end", func() bool { s := w.worker.Stats(); return s.Scheduled == 1 && s.InFlight["default"] == 0 })
	found, err := client.New(w.client).Find(t.Context(), client.Key{Queue: "default", ID: "j1"})
	if err != nil || len(found) != 1 || found[0].Place != client.Finished {
		t.Errorf("found %v, %v; want the job finished and nowhere else", found, err)
	}
}

// TestAJobThatLooksLikeAWordOfTheServerEnds has jobs without a payload whose headers are what a server says to a pull, or what it
// says of a payload that it leaves out.
func TestAJobThatLooksLikeAWordOfTheServerEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{AckWait: longWait})
	w.start(func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome {
		return finished(jobs.Succeeded, "", nil)
	})
	var ids []string
	for _, status := range []string{"100", "400", "404", "408", "409", "423", "503"} {
		for kind, header := range map[string]nats.Header{
			"plain":    {"Status": {status}, "Description": {"Consumer Deleted"}},
			"left-out": {"Status": {status}, "Nats-Msg-Size": {"7"}},
		} {
			id := kind + status
			if _, err := w.client.JetStream().PublishMsg(t.Context(), &nats.Msg{Subject: "gofer.jobs.default." + id, Header: header}); err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
	}
	w.publish("good", page)
	w.until("the good job to end", w.hasResult("good"))
	w.until("all jobs to be acked, after their dead letters", func() bool { return w.queued() == 0 })
	for _, id := range ids {
		w.until("job "+id+" to end", w.hasResult(id))
		r, err := w.client.Result(t.Context(), "default", id)
		if err != nil || r.Outcome != jobs.Failed || r.Error != jobs.ErrInvalidJob {
			t.Errorf("job %s ended as %s %s, %v; want an invalid job", id, r.Outcome, r.Error, err)
		}
		if letter, err := client.New(w.client).DeadLetter(t.Context(), bus.Key{Queue: "default", ID: id}); err != nil || len(letter.Payload) != 0 {
			t.Errorf("job %s has the dead letter %q, %v", id, letter.Payload, err)
		}
	}
	if s := w.worker.Stats(); s.Redelivered != 0 {
		t.Errorf("%d jobs redelivered, want none", s.Redelivered)
	}
}

// TestAJobWithForgedHeadersEnds has jobs without a payload that say that it was left out, or whose headers cannot be read.
func TestAJobWithForgedHeadersEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{AckWait: longWait})
	w.start(func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome {
		return finished(jobs.Succeeded, "", nil)
	})
	readable, unreadable := testenv.ForgedHeaders("1", "gofer.jobs.default.good")
	var ids []string
	for _, blocks := range []map[string]string{readable, unreadable} {
		for kind, header := range blocks {
			sized := strings.Replace(header, "\n", "\nNats-Msg-Size: 7\r\n", 1)
			w.nats.StoreRaw(t, "gofer.jobs.default."+kind, header, "")
			w.nats.StoreRaw(t, "gofer.jobs.default.sized-"+kind, sized, "")
			ids = append(ids, kind, "sized-"+kind)
		}
	}
	for _, id := range ids {
		w.until("job "+id+" to end", w.hasResult(id))
		r, err := w.client.Result(t.Context(), "default", id)
		if err != nil || r.Outcome != jobs.Failed || r.Error != jobs.ErrInvalidJob {
			t.Errorf("job %s ended as %s %s, %v; want an invalid job", id, r.Outcome, r.Error, err)
		}
	}
	w.until("all jobs to be acked", func() bool { return w.queued() == 0 })
}

// TestAWorkerIsReadyBesideTheRollupsOfAnOlderVersion has a stream of counters, which the server never turns into another one.
func TestAWorkerIsReadyBesideTheRollupsOfAnOlderVersion(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{})
	js := w.client.JetStream()
	if err := js.DeleteStream(t.Context(), "GOFER_ROLLUPS"); err != nil {
		t.Fatal(err)
	}
	old := jetstream.StreamConfig{Name: "GOFER_ROLLUPS", Subjects: []string{"_gofer.rollups.>"}, AllowMsgCounter: true, AllowDirect: true}
	if _, err := js.CreateStream(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	w.start(func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome {
		return finished(jobs.Succeeded, "", nil)
	})
	w.until("the worker to name the stream", func() bool { return strings.Contains(w.logged.String(), "allow_msg_counter") })
	if err := w.worker.StreamsError(); err != nil {
		t.Errorf("the worker is not ready: %v", err)
	}
	w.publish("j1", page)
	w.until("the job to end", w.hasResult("j1"))
}
