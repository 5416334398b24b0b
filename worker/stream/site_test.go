package stream_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
)

// waitForSite stores a job that waits for a site.
func (in *installation) waitForSite(t *testing.T, site, id string, until time.Time) (stored bool) {
	t.Helper()
	progress := jobs.Progress{JobSeq: 7, SiteSince: time.Now().UTC(), Attempts: []jobs.Attempt{{Attempt: 1, Proxy: "p1"}}}
	stored, err := in.WaitForSite(soon(t), site, "default", id, 0, []byte("https://example.com/"+id), &progress, until)
	must(t, err)
	return stored
}

func (in *installation) nextAtSite(t *testing.T, site string) (bus.WaitingJob, bool) {
	t.Helper()
	job, found, err := in.NextSiteWait(soon(t), jobs.SiteKey(site), 0)
	must(t, err)
	return job, found
}

func TestAJobOfASiteIsReleasedWithItsAttemptsAndAMark(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.waitForSite(t, "example.com", "a", time.Now().Add(time.Hour))
	in.waitForSite(t, "other.test", "b", time.Now().Add(time.Hour))
	job, found := in.nextAtSite(t, "example.com")
	if !found || job.ID != "a" || job.Queue != "default" || job.Message().Header.Get(bus.HeaderSite) != "example.com" || job.Site != "a379a6f6eeafb9a5" {
		t.Fatalf("got %+v of site %q, want job a of example.com", job, job.Message().Header.Get(bus.HeaderSite))
	}
	seq, err := in.ReleaseAtSite(soon(t), job)
	must(t, err)
	if there, err := in.StillDue(soon(t), []uint64{seq, seq + 1}); err != nil || !there[seq] || len(there) != 1 {
		t.Errorf("still due: %v, %v; want the released job", there, err)
	}
	if again, err := in.ReleaseAtSite(soon(t), job); again != 0 || err != nil {
		t.Errorf("released again: %d, %v; want nothing", again, err)
	}
	consumer, err := in.EnsureJobConsumer(soon(t), "default", true)
	must(t, err)
	msg, err := consumer.Next(jetstream.FetchMaxWait(testenv.Patience))
	must(t, err)
	progress, err := jobs.ParseProgress(msg.Headers().Get(jobs.HeaderProgress))
	must(t, err)
	if !progress.Released || progress.JobSeq != 7 || len(progress.Attempts) != 1 || string(msg.Data()) != "https://example.com/a" {
		t.Errorf("got %q with %+v, want the job with its progress and the mark", msg.Data(), progress)
	}
	must(t, msg.DoubleAck(soon(t)))
	if there, err := in.StillDue(soon(t), []uint64{seq}); err != nil || len(there) != 0 {
		t.Errorf("still due: %v, %v; want none after its end", there, err)
	}
	if _, found := in.nextAtSite(t, "example.com"); found {
		t.Error("a job still waits for example.com")
	}
	if job, found := in.nextAtSite(t, "other.test"); !found || job.ID != "b" {
		t.Errorf("got %v, want job b to wait for other.test", job.Key)
	}
}

func TestTheOldestJobOfAQueueIsFoundBehindThoseOfOthers(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	for _, name := range []string{"default/a", "low/b", "default/c", "low/d"} {
		queue, id, _ := strings.Cut(name, "/")
		stored, err := in.WaitForSite(soon(t), "example.com", queue, id, 0, []byte("https://example.com/"), &jobs.Progress{}, time.Now().Add(time.Hour))
		if err != nil || !stored {
			t.Fatalf("%s: stored %t, %v", name, stored, err)
		}
	}
	key := jobs.SiteKey("example.com")
	first, found, err := in.NextSiteWaitOfQueue(soon(t), key, "low", 0)
	if err != nil || !found || first.ID != "b" || first.Queue != "low" {
		t.Fatalf("got %v, %t, %v; want job b", first.Key, found, err)
	}
	if next, found, err := in.NextSiteWaitOfQueue(soon(t), key, "low", first.Seq); err != nil || !found || next.ID != "d" {
		t.Errorf("got %v, %t, %v; want job d", next.Key, found, err)
	}
	if _, found, err := in.NextSiteWaitOfQueue(soon(t), key, "other", 0); err != nil || found {
		t.Errorf("found %t, %v in a queue without jobs", found, err)
	}
	if _, _, err := in.NextSiteWaitOfQueue(soon(t), key, "*", 0); err == nil {
		t.Error("a name that is no queue reaches a filter")
	}
}

func TestTheNextJobOfASiteIsFoundWhateverLiesBefore(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	until := time.Now().Add(time.Hour)
	in.waitForSite(t, "example.com", "a", until)
	in.waitForSite(t, "example.com", "b", until)
	in.waitForSite(t, "other.test", "c", until)
	in.schedule(t, "d", until)
	in.waitForSite(t, "example.com", "e", until)
	in.waitForSite(t, "example.com", "f", until)
	must(t, in.client.Cancel(soon(t), client.Key{Queue: "default", ID: "e"}))
	var got []string
	for after := uint64(0); ; {
		job, found, err := in.NextSiteWait(soon(t), jobs.SiteKey("example.com"), after)
		must(t, err)
		if !found {
			break
		}
		got, after = append(got, job.ID), job.Seq
	}
	if want := []string{"a", "b", "f"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestTheConsumersOfDueJobsTellWhatWasTaken(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.waitForSite(t, "example.com", "a", time.Now().Add(time.Hour))
	consumer, err := in.EnsureJobConsumer(soon(t), "default", true)
	must(t, err)
	job, _ := in.nextAtSite(t, "example.com")
	seq, err := in.ReleaseAtSite(soon(t), job)
	must(t, err)
	tells := func(what string, holds func(bus.DueConsumer) bool) {
		t.Helper()
		testenv.Eventually(t, what, func() bool {
			got, err := in.DueConsumers(soon(t))
			must(t, err)
			return len(got) == 1 && got[0].Queue == "default" && holds(got[0])
		})
	}
	tells("a job that nobody has taken", func(c bus.DueConsumer) bool { return c.Pending == 1 && c.Delivered < seq && !c.Paused })
	_, err = consumer.Next(jetstream.FetchMaxWait(testenv.Patience))
	must(t, err)
	must(t, in.client.Pause(soon(t), "default", time.Time{}))
	tells("the job that was taken, and the pause", func(c bus.DueConsumer) bool {
		return c == bus.DueConsumer{Queue: "default", Delivered: seq, Paused: true}
	})
}

func TestAJobWaitsOnceUnderItsName(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.schedule(t, "a", time.Now().Add(time.Hour))
	if in.waitForSite(t, "example.com", "a", time.Now().Add(time.Hour)) {
		t.Error("a job that waits for its time waits for a site as well")
	}
	for i, want := range []bool{true, false} {
		if got := in.waitForSite(t, "example.com", "b", time.Now().Add(time.Hour)); got != want {
			t.Errorf("try %d: stored %t, want %t", i, got, want)
		}
	}
	if in.waitForSite(t, "other.test", "b", time.Now().Add(time.Hour)) {
		t.Error("a job waits for two sites")
	}
}

func TestTheServerReleasesAJobOfASiteAtItsTime(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.waitForSite(t, "example.com", "timed", time.Now().Add(time.Second))
	in.takeDue(t, "timed")
}

func TestAJobThatWaitsForASiteIsFoundCountedAndCancelled(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	key := client.Key{Queue: "default", ID: "a"}
	in.waitForSite(t, "example.com", "a", time.Now().Add(2*time.Hour))
	for _, queue := range []string{"", "default"} {
		found, err := in.client.Find(soon(t), client.Key{Queue: queue, ID: "a"})
		if err != nil || len(found) != 1 || found[0].Place != client.Waiting || found[0].Queue != "default" {
			t.Errorf("found %v, %v; want it waiting", found, err)
		}
	}
	queues, err := in.client.Queues(soon(t))
	if err != nil || len(queues) != 1 || queues[0].Waiting != 1 || queues[0].Queue != "default" {
		t.Errorf("queues %+v, %v; want one job of default that waits", queues, err)
	}
	list := in.overdue(t)
	if len(list) != 0 {
		t.Errorf("overdue within the hour: %v, want none", list)
	}
	must(t, in.client.Cancel(soon(t), key))
	if result, err := in.client.Result(soon(t), key); err != nil || result.Outcome != jobs.Cancelled || result.JobSeq != 7 {
		t.Errorf("result %+v, %v; want it cancelled", result, err)
	}
	if _, found := in.nextAtSite(t, "example.com"); found {
		t.Error("a cancelled job still waits")
	}
}

func TestAnOverdueJobOfASiteIsReleased(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.waitForSite(t, "example.com", "a", time.Now().Add(30*time.Minute))
	list := in.overdue(t)
	if len(list) != 1 || list[0].ID != "a" || list[0].Site == "" {
		t.Fatalf("got %v, want the job", list)
	}
	released, err := in.Release(soon(t), list[0])
	if err != nil || !released {
		t.Fatalf("released %t, %v", released, err)
	}
	in.takeDue(t, "a")
}

// TestAJobThatCameDueWaitsAgainThoughItsOldWaitIsStillShown: a replica that is behind its leader shows the message that the job
// waited as before it came due. To take that for a wait, and to ack the due job, would lose the job.
func TestAJobThatCameDueWaitsAgainThoughItsOldWaitIsStillShown(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.waitForSite(t, "old.test", "a", time.Now().Add(time.Hour))
	old, found := in.nextAtSite(t, "old.test") // stands for what such a replica shows
	if !found {
		t.Fatal("the job does not wait")
	}
	again := func(due uint64) bool {
		t.Helper()
		stored, err := in.WaitForSite(soon(t), "new.test", "default", "a", due, []byte("https://example.com/a"), &jobs.Progress{JobSeq: 7}, time.Now().Add(time.Hour))
		must(t, err)
		return stored
	}
	if again(0) {
		t.Error("a second job of the name is stored beside the one that waits")
	}
	if !again(old.Seq + 1) {
		t.Error("a job that came due later than that wait is not stored")
	}
}

// TestReleasedJobsThatWaitAgainAreToldFromOthers asks for jobs that wait for a site or an attempt, that ended, and that a lagging
// replica shows as they waited before.
func TestReleasedJobsThatWaitAgainAreToldFromOthers(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	later := time.Now().Add(time.Hour)
	in.waitForSite(t, "old.test", "before", later)
	old, _ := in.nextAtSite(t, "old.test")
	due := old.Seq // every wait that is newer counts
	for i := range 20 {
		in.waitForSite(t, "site.test", fmt.Sprint("sited-", i), later)
		in.schedule(t, fmt.Sprint("timed-", i), later)
	}
	released := map[uint64]bus.Key{due + 1: {Queue: "default", ID: "before"}, due: {Queue: "default", ID: "sited-0"}, due - 1: {Queue: "default", ID: "timed-1"}}
	for i, id := range []string{"timed-0", "ended", "sited-1", "*"} { // no id of a job is a wildcard
		released[due+1_000_000+uint64(i)] = bus.Key{Queue: "default", ID: id}
	}
	again, err := in.WaitAgain(soon(t), released)
	must(t, err)
	for seq, key := range released {
		if got, want := again[seq], seq <= due; got != want {
			t.Errorf("%s, due as %d: got %t, want %t", key.ID, seq, got, want)
		}
	}
}

// TestLargeJobsThatWaitAgainAreAllFound: the server cuts an answer short at 8 MiB.
func TestLargeJobsThatWaitAgainAreAllFound(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	released := map[uint64]bus.Key{}
	for i := range 24 {
		id := fmt.Sprint("large-", i)
		_, err := in.WaitForSite(soon(t), "site.test", "default", id, 0, bytes.Repeat([]byte("x"), 700<<10), &jobs.Progress{JobSeq: 7}, time.Now().Add(time.Hour))
		must(t, err)
		released[uint64(i)] = bus.Key{Queue: "default", ID: id}
	}
	again, err := in.WaitAgain(soon(t), released)
	must(t, err)
	for seq, key := range released {
		if !again[seq] {
			t.Errorf("%s is not found", key.ID)
		}
	}
}
