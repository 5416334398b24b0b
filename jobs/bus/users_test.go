package bus_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/stream"
)

// deployed runs a server with the shipped configuration.
func deployed(t *testing.T) *testenv.NATS {
	t.Helper()
	for _, user := range []string{"WORKER", "ADMIN", "PUBLISHER", "READER"} {
		t.Setenv("NATS_"+user+"_PASSWORD", "p-"+user)
	}
	opts, err := server.ProcessConfigFile("../../deploy/nats/server.conf")
	if err != nil {
		t.Fatal(err)
	}
	return testenv.StartNATS(t, func(o *server.Options) {
		dir := o.StoreDir
		*o = *opts
		o.Host, o.Port, o.StoreDir, o.NoLog, o.NoSigs = "127.0.0.1", server.RANDOM_PORT, dir, true, true
	})
}

// as connects as one of the shipped users.
func as(t *testing.T, s *testenv.NATS, user, password string) *installation {
	t.Helper()
	return on(t, s, bus.Dial{User: user, Password: password, InboxPrefix: "_INBOX_" + user})
}

// fleet is the shipped server with every user connected and the streams made by the worker.
type fleet struct{ worker, admin, publisher, reader *installation }

func deploy(t *testing.T) fleet {
	t.Helper()
	s := deployed(t)
	f := fleet{
		worker: as(t, s, "worker", "p-WORKER"), admin: as(t, s, "admin", "p-ADMIN"),
		publisher: as(t, s, "publisher", "p-PUBLISHER"), reader: as(t, s, "reader", "p-READER"),
	}
	must(t, f.worker.Ensure(soon(t), bus.Settings{}))
	return f
}

func TestEachShippedUserCanDoItsWork(t *testing.T) {
	f := deploy(t)
	body := make([]byte, jobs.MaxInlineBody+1)
	ack, err := f.publisher.client.Submit(soon(t), job("a"))
	must(t, err)
	_, err = f.publisher.client.Submit(soon(t), job("a"))
	isError(t, err, client.ErrQueued)
	if found, err := f.publisher.client.Find(soon(t), client.Key{Queue: "", ID: "a"}); err != nil || len(found) != 1 {
		t.Errorf("publisher: got %v, %v; want its job found", found, err)
	}
	waited := make(chan error, 1)
	go func() {
		r, err := f.publisher.client.Wait(soon(t), client.Key{Queue: "default", ID: "a"})
		if err == nil {
			err = readBody(t, f.publisher, r, len(body))
		}
		waited <- err
	}()
	f.work(t, ack, body)
	must(t, <-waited)

	must(t, f.reader.client.Follow(soon(t), bus.Filter{Durable: bus.Reader, UntilNow: true}, func(r jobs.Result) error {
		return readBody(t, f.reader, r, len(body))
	}))
	must(t, f.reader.client.Events(soon(t), bus.Filter{Durable: bus.Reader, UntilNow: true}, func(client.Event) error { return nil }))
	f.administer(t)
}

func readBody(t *testing.T, in *installation, r jobs.Result, want int) error {
	t.Helper()
	body, err := in.client.Body(soon(t), r)
	if err != nil {
		return err
	}
	got, err := io.ReadAll(body)
	if err == nil && len(got) != want {
		err = fmt.Errorf("got a body of %d bytes, want %d", len(got), want)
	}
	return err
}

// work is everything that a worker does to NATS.
func (f fleet) work(t *testing.T, ack client.Ack, body []byte) {
	t.Helper()
	consumer, err := f.worker.EnsureJobConsumer(soon(t), "default", false)
	must(t, err)
	msg, err := consumer.Next()
	must(t, err)
	must(t, stream.New(f.worker.Client).Heartbeat(soon(t), msg))
	must(t, f.worker.HandBack(soon(t), msg))
	msg, err = consumer.Next()
	must(t, err)
	_, err = stream.New(f.worker.Client).Schedule(soon(t), "default", "a", msg.Data(), &jobs.Progress{JobSeq: ack.Seq}, time.Now())
	must(t, err)
	must(t, msg.DoubleAck(soon(t)))
	due, err := f.worker.EnsureJobConsumer(soon(t), "default", true)
	must(t, err)
	msg, err = due.Next()
	must(t, err)
	for _, won := range []bool{true, false} {
		r := success("a", body)
		r.Worker = fmt.Sprint(won)
		stored, err := f.worker.StoreResult(soon(t), r)
		if err != nil || stored.Won != won {
			t.Errorf("worker: got %+v, %v", stored, err)
		}
	}
	if got := f.admin.objects(t); got != 1 {
		t.Errorf("worker: %d objects left, want that of the stored result", got)
	}
	must(t, msg.DoubleAck(soon(t)))
	must(t, f.worker.RemoveScheduled(soon(t), "default", "cancelled"))
	f.worker.park(t, "due", time.Now())
	_, err = due.Next() // so that it is due
	must(t, err)
	must(t, f.worker.RemoveScheduled(soon(t), "default", "due"))
	f.release(t)
	f.waitForSite(t)
	dead := &jobs.Result{Queue: "default", ID: "dead", Outcome: jobs.Failed, Error: jobs.ErrPermanent, FinishedAt: time.Now()}
	must(t, stream.New(f.worker.Client).DeadLetter(soon(t), "default", "dead", []byte("http://dead.test/"), dead))
	must(t, stream.New(f.worker.Client).PublishRetry(soon(t), jobs.RetryEvent{Queue: "default", JobID: "a"}))
	f.share(t)
	f.show(t)
}

// show is what the HTTP API of a worker reads.
func (f fleet) show(t *testing.T) {
	t.Helper()
	letters := 0
	must(t, f.worker.client.DeadLetters(soon(t), func(client.DeadLetter) error { letters++; return nil }))
	letter, err := f.worker.client.DeadLetter(soon(t), key("dead"))
	if err != nil || letters != 1 || string(letter.Payload) != "http://dead.test/" {
		t.Errorf("worker: got %d dead letters, and %q, %v", letters, letter.Payload, err)
	}
	_, err = f.worker.client.DeadLetterAt(soon(t), letter.Seq)
	must(t, err)
	for _, id := range []string{"a", "dead", "sited"} {
		story, err := f.worker.client.Story(soon(t), key(id))
		if err != nil && !errors.Is(err, client.ErrNotFound) || story != nil && len(story.Unread) > 0 {
			t.Errorf("worker: the story of %s lacks %v, %v", id, story.Unread, err)
		}
	}
	for _, stream := range []string{"GOFER_RESULTS", "GOFER_DEAD"} {
		must(t, f.worker.ReadHeaders(soon(t), stream, ">", 0, math.MaxUint64, func(jetstream.Msg) {}))
	}
	_, err = f.worker.client.Queues(soon(t))
	must(t, err)
	must(t, f.worker.client.List(soon(t), client.ListFilter{}, func(client.Listed) error { return nil }))
	must(t, f.worker.nc.LastError())
}

// waitForSite is what a worker does with a job whose site rests, and when it leads the release of such jobs.
func (f fleet) waitForSite(t *testing.T) {
	t.Helper()
	w := stream.New(f.worker.Client)
	stored, err := w.WaitForSite(soon(t), "site.test", "default", "sited", 0, []byte("http://site.test/"), &jobs.Progress{JobSeq: 9}, time.Now().Add(time.Hour))
	if err != nil || !stored {
		t.Fatalf("worker: stored %t, %v", stored, err)
	}
	job, found, err := w.NextSiteWait(soon(t), jobs.SiteKey("site.test"), 0)
	if err != nil || !found {
		t.Fatalf("worker: found %t, %v", found, err)
	}
	if queues, err := w.DueConsumers(soon(t)); err != nil || len(queues) == 0 {
		t.Errorf("worker: the queues are %v, %v", queues, err)
	}
	seq, err := w.ReleaseAtSite(soon(t), job)
	must(t, err)
	if there, err := w.StillDue(soon(t), []uint64{seq}); err != nil || !there[seq] {
		t.Errorf("worker: the released job is due: %v, %v", there, err)
	}
	if again, err := w.WaitAgain(soon(t), map[uint64]bus.Key{seq: job.Key}); err != nil || again[seq] {
		t.Errorf("worker: the released job waits again: %v, %v", again, err)
	}
	f.worker.takeDue(t, "sited")
}

// release is what a worker does about overdue jobs.
func (f fleet) release(t *testing.T) {
	t.Helper()
	f.worker.park(t, "overdue", time.Now().Add(time.Hour))
	var waiting []bus.WaitingJob
	_, _, err := f.worker.WaitingPage(soon(t), 0, 100, func(job bus.WaitingJob) { waiting = append(waiting, job) })
	must(t, err)
	for _, job := range waiting {
		must(t, f.worker.StillWaiting(soon(t), []uint64{job.Seq}, func(bus.WaitingJob) {}))
		if released, err := stream.New(f.worker.Client).Release(soon(t), job); err != nil || !released {
			t.Errorf("worker: released %t, %v", released, err)
		}
	}
	if len(waiting) != 1 {
		t.Errorf("worker: got %d waiting jobs, want 1", len(waiting))
	}
	f.worker.takeDue(t, "overdue")
}

// share is what the workers of a fleet tell one another.
func (f fleet) share(t *testing.T) {
	t.Helper()
	proxies, err := f.admin.js.KeyValue(soon(t), "gofer-proxies")
	must(t, err)
	_, err = proxies.Put(soon(t), "p1", []byte("http://u:p@proxy.test:3128"))
	must(t, err)
	for _, bucket := range []string{"gofer-proxies", "gofer-policy", "gofer-deny", "gofer-breakers", "gofer-sites"} {
		kv, err := f.worker.js.KeyValue(soon(t), bucket)
		must(t, err)
		watch, err := kv.WatchAll(soon(t))
		must(t, err)
		if entry := <-watch.Updates(); bucket == "gofer-proxies" && (entry == nil || entry.Key() != "p1") {
			t.Errorf("worker: got %v from %s, want the proxy", entry, bucket)
		}
		must(t, watch.Stop())
	}
	breakers, err := f.worker.js.KeyValue(soon(t), "gofer-breakers")
	must(t, err)
	_, err = breakers.Put(soon(t), "p1", []byte("{}"))
	must(t, err)
	must(t, breakers.Delete(soon(t), "p1"))
	f.addUp(t)
}

// addUp is what the workers do to their rollups, and to the breakers' events.
func (f fleet) addUp(t *testing.T) {
	t.Helper()
	hour := f.worker.names.Hour("2026010100", "totals", "a")
	seq, err := f.worker.Replace(soon(t), "ROLLUPS", hour, []byte("1"), 0, time.Hour)
	must(t, err)
	if last, err := f.worker.LastSeq(soon(t), "ROLLUPS", hour); last != seq || err != nil {
		t.Errorf("worker: got last sequence %d, %v; want %d", last, err, seq)
	}
	if subjects, err := f.worker.Subjects(soon(t), "ROLLUPS", hour); err != nil || len(subjects) != 1 {
		t.Errorf("worker: got subjects %v, %v; want that of the part", subjects, err)
	}
	if got := f.worker.read(t, f.worker.names.AllHours(), 1); len(got) != 1 {
		t.Errorf("worker: got parts %v, want one", got)
	}
	if state, err := f.worker.StateOf(soon(t), "ROLLUPS"); err != nil || time.Since(state.CreatedAt) > time.Hour || state.Messages != 1 || state.LastSeq != seq {
		t.Errorf("worker: got the state %+v, %v; want one message of sequence %d", state, err, seq)
	}
	must(t, stream.New(f.worker.Client).PublishBreaker(soon(t), jobs.BreakerEvent{ProxyID: "p1", ToState: "open"}))
	events := 0
	must(t, f.worker.ReadFrom(soon(t), "EVENTS", f.worker.names.BreakerEvent("*"), 1, func(bus.Message) { events++ }))
	if events == 0 {
		t.Error("worker: got no breaker event")
	}
}

// administer is what an admin does.
func (f fleet) administer(t *testing.T) {
	t.Helper()
	differences, err := f.admin.Apply(soon(t), bus.Settings{ResultsMaxAge: time.Hour})
	if err != nil || len(differences) != 2 {
		t.Errorf("admin: got %v, %v; want the two ages changed", differences, err)
	}
	_, err = f.publisher.client.Submit(soon(t), job("c"))
	must(t, err)
	must(t, f.admin.client.Cancel(soon(t), key("c")))
	must(t, f.admin.client.Pause(soon(t), "default", time.Time{}))
	must(t, f.admin.client.Resume(soon(t), "default"))
	if queues, err := f.admin.client.Queues(soon(t)); err != nil || len(queues) != 1 {
		t.Errorf("admin: got queues %v, %v", queues, err)
	}
	letter, err := f.admin.client.DeadLetter(soon(t), key("dead"))
	must(t, err)
	_, err = f.admin.client.Replay(soon(t), letter)
	must(t, err)
	must(t, f.admin.client.Follow(soon(t), bus.Filter{UntilNow: true}, func(jobs.Result) error { return nil }))
}

// TestWhatAUserMayNotDoIsRefused tries what would break the promise or give away secrets.
func TestWhatAUserMayNotDoIsRefused(t *testing.T) {
	f := deploy(t)
	_, err := f.publisher.client.Submit(soon(t), job("a"))
	must(t, err)
	for _, c := range []struct {
		user    string
		in      *installation
		subject string
	}{
		{"publisher forges a result", f.publisher, "_gofer.results.default.a"},
		{"publisher forges a public result", f.publisher, "gofer.results.default.a"},
		{"publisher forges a waiting job", f.publisher, "_gofer.at.default.a"},
		{"publisher forges a due job", f.publisher, "_gofer.due.default.a"},
		{"publisher cancels", f.publisher, "_gofer.cancel.default.a"},
		{"publisher purges", f.publisher, "$JS.API.STREAM.PURGE.GOFER_JOBS"},
		{"publisher deletes a job", f.publisher, "$JS.API.STREAM.MSG.DELETE.GOFER_JOBS"},
		{"publisher acks a job", f.publisher, "$JS.ACK.GOFER_JOBS.worker-default.1.1.1.1.0"},
		{"publisher takes a job", f.publisher, "$JS.API.CONSUMER.MSG.NEXT.GOFER_JOBS.worker-default"},
		{"publisher creates a consumer", f.publisher, "$JS.API.CONSUMER.CREATE.GOFER_RESULTS.x"},
		{"publisher reads proxies", f.publisher, "$JS.API.DIRECT.GET.KV_gofer-proxies.$KV.gofer-proxies.p1"},
		{"publisher writes proxies", f.publisher, "$KV.gofer-proxies.p1"},
		{"publisher writes breakers", f.publisher, "$KV.gofer-breakers.p1"},
		{"publisher deletes a stream", f.publisher, "$JS.API.STREAM.DELETE.GOFER_JOBS"},
		{"reader publishes a job", f.reader, "gofer.jobs.default.x"},
		{"reader reads jobs", f.reader, "$JS.API.DIRECT.GET.GOFER_JOBS.gofer.jobs.default.a"},
		{"reader reads proxies", f.reader, "$JS.API.DIRECT.GET.KV_gofer-proxies.$KV.gofer-proxies.p1"},
		{"reader writes breakers", f.reader, "$KV.gofer-breakers.p1"},
		{"reader creates a consumer", f.reader, "$JS.API.CONSUMER.CREATE.GOFER_RESULTS.x"},
		{"reader forges a result", f.reader, "_gofer.results.default.a"},
		{"worker publishes a job", f.worker, "gofer.jobs.default.x"},
		{"worker forges a public result", f.worker, "gofer.results.default.x"},
		{"worker writes proxies", f.worker, "$KV.gofer-proxies.p1"},
		{"worker purges jobs", f.worker, "$JS.API.STREAM.PURGE.GOFER_JOBS"},
		{"reader writes sites", f.reader, "$KV.gofer-sites.a379a6f6eeafb9a5"},
		{"worker purges breakers", f.worker, "$JS.API.STREAM.PURGE.KV_gofer-breakers"},
		{"worker purges dead letters", f.worker, "$JS.API.STREAM.PURGE.GOFER_DEAD"},
		{"worker deletes a dead letter", f.worker, "$JS.API.STREAM.MSG.DELETE.GOFER_DEAD"},
		{"worker deletes a result", f.worker, "$JS.API.STREAM.MSG.DELETE.GOFER_RESULTS"},
		{"worker purges rollups", f.worker, "$JS.API.STREAM.PURGE.GOFER_ROLLUPS"},
		{"worker deletes a rollup", f.worker, "$JS.API.STREAM.MSG.DELETE.GOFER_ROLLUPS"},
		{"worker changes a stream", f.worker, "$JS.API.STREAM.UPDATE.GOFER_JOBS"},
	} {
		must(t, c.in.nc.Publish(c.subject, nil))
		must(t, c.in.nc.Flush())
		if got := c.in.nc.LastError(); !errors.Is(got, nats.ErrPermissionViolation) || !strings.Contains(got.Error(), `"`+c.subject+`"`) {
			t.Errorf("%s: got %v, want it refused", c.user, got)
		}
	}
	for user, in := range map[string]*installation{"publisher": f.publisher, "reader": f.reader, "worker": f.worker} {
		for _, subject := range []string{"_INBOX.>", "_INBOX_admin.>", "$KV.>", "_gofer.results.>", ">"} {
			sub, err := in.nc.SubscribeSync(subject)
			must(t, err)
			must(t, in.nc.Flush())
			if got := in.nc.LastError(); !errors.Is(got, nats.ErrPermissionViolation) || !strings.Contains(got.Error(), `"`+subject+`"`) {
				t.Errorf("%s subscribes to %s: got %v, want it refused", user, subject, got)
			}
			must(t, sub.Unsubscribe())
		}
	}
}

// TestAnAnswerCannotBeAddressedToAStream: a publish names the subject for its answer, which the server does not check.
func TestAnAnswerCannotBeAddressedToAStream(t *testing.T) {
	f := deploy(t)
	_, err := f.worker.StoreResult(soon(t), success("page", []byte("http://evil.test:1")))
	must(t, err)
	requests := []string{"gofer.jobs.default.x", "$JS.API.DIRECT.GET.GOFER_RESULTS.gofer.results.default.page"}
	answers := []string{"_gofer.results.default.victim", "_gofer.due.default.victim", "$KV.gofer-proxies.victim", "gofer.dead.default.victim"}
	for _, in := range []*installation{f.publisher, f.reader} {
		for _, request := range requests {
			for _, answer := range answers {
				must(t, in.nc.PublishRequest(request, answer, []byte("http://a.test/")))
			}
		}
		must(t, in.nc.Flush())
	}
	// What was asked before has been answered when the next question has.
	_, err = f.publisher.client.Submit(soon(t), job("y"))
	must(t, err)
	_, err = f.publisher.Result(soon(t), "default", "page")
	must(t, err)
	for _, name := range []string{"GOFER_RETRIES", "KV_gofer-proxies", "GOFER_DEAD"} {
		stream, err := f.admin.js.Stream(soon(t), name)
		must(t, err)
		if state := stream.CachedInfo().State; state.LastSeq >= max(1, state.FirstSeq) {
			t.Errorf("%s: an answer was stored", name)
		}
	}
	_, err = f.admin.Result(soon(t), "default", "victim")
	isError(t, err, bus.ErrNotFound)
}

func TestWithoutItsPasswordsTheShippedServerDoesNotStart(t *testing.T) {
	for _, user := range []string{"WORKER", "ADMIN", "PUBLISHER"} {
		t.Setenv("NATS_"+user+"_PASSWORD", "p")
	}
	if _, err := server.ProcessConfigFile("../../deploy/nats/server.conf"); err == nil || !strings.Contains(err.Error(), "NATS_READER_PASSWORD") {
		t.Errorf("got %v, want the missing variable named", err)
	}
}

func TestAUserWithoutRightsIsToldSo(t *testing.T) {
	f := deploy(t)
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	_, err := f.reader.client.Submit(ctx, job("a"))
	isError(t, err, bus.ErrPermission)
	if !strings.Contains(err.Error(), "gofer.jobs.default.a") {
		t.Errorf("got %v, want the subject named", err)
	}
}

// TestAUserWithoutItsInboxPrefixIsToldSoAtOnce: its jobs would be stored, run, and be called refused.
func TestAUserWithoutItsInboxPrefixIsToldSoAtOnce(t *testing.T) {
	s := deployed(t)
	for _, prefix := range []string{"", "_INBOX_admin"} {
		_, err := bus.Connect(soon(t), bus.Dial{URL: s.URL(), User: "publisher", Password: "p-PUBLISHER", InboxPrefix: prefix}, quiet())
		isError(t, err, bus.ErrPermission)
		if !strings.Contains(err.Error(), "InboxPrefix: ") {
			t.Errorf("prefix %q: got %v, want the variable named", prefix, err)
		}
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
