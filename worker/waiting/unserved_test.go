package waiting_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/waiting"
)

// overheard returns the requests that a subscription has got so far and that hold a text.
func (w *world) overheard(sub *nats.Subscription, text string) (bodies []string) {
	w.Helper()
	w.must(w.bus.Conn().Flush())
	for {
		n, _, err := sub.Pending()
		w.must(err)
		if n == 0 {
			return bodies
		}
		msg, err := sub.NextMsgWithContext(w.soon())
		w.must(err)
		if strings.Contains(string(msg.Data), text) {
			bodies = append(bodies, string(msg.Data))
		}
	}
}

func (w *world) listen(subject string) *nats.Subscription {
	w.Helper()
	sub, err := w.bus.Conn().SubscribeSync(subject)
	w.must(err)
	w.must(w.bus.Conn().Flush())
	return sub
}

// unservedOf names the queues of a snapshot that nobody serves.
func unservedOf(s waiting.Snapshot) string {
	var list []string
	for _, q := range s.Queues {
		if !q.Served {
			list = append(list, fmt.Sprint(q.Queue, " ", q.Queued))
		}
	}
	return strings.Join(list, ", ")
}

// TestAQueueThatNobodyServesIsFoundByReadingFewJobsACount: however many jobs there are, a count asks for a bounded number of them
// and for no list of subjects. Once all jobs are known, only later ones are read.
func TestAQueueThatNobodyServesIsFoundByReadingFewJobsACount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.counter(waiting.Config{ReadJobs: 10})
	for range 25 {
		w.store("default")
	}
	w.submit("misspelt")
	infos, reads := w.listen("$JS.API.STREAM.INFO.GOFER_JOBS"), w.listen("$JS.API.DIRECT.GET.GOFER_JOBS")
	step := func(what, want string, read int) {
		t.Helper()
		if got := unservedOf(w.count(c)); got != want {
			t.Errorf("%s: queues that nobody serves: got %q, want %q", what, got, want)
		}
		got := w.overheard(reads, `"next_by_subj":"\u003e"`)
		if len(got) != read || slices.ContainsFunc(got, func(body string) bool { return !strings.Contains(body, `"batch":10,`) }) {
			t.Errorf("%s: pages read: got %q, want %d of 10 jobs", what, got, read)
		}
	}
	step("jobs 1 to 10", "", 1)
	step("jobs 11 to 20", "", 1)
	step("jobs 21 to 26", "misspelt 1", 1)
	step("all jobs are known", "misspelt 1", 0)
	w.store("misspelt")
	w.store("wrong")
	step("another job, once", "misspelt 2", 0)
	step("another job, twice", "misspelt 2", 0)
	step("only the later jobs are read", "misspelt 2, wrong 1", 1)
	step("all jobs are known again", "misspelt 2, wrong 1", 0)
	w.must(w.bus.EnsureQueue(w.soon(), "wrong", bus.Settings{}))
	step("one is served now", "misspelt 2", 0)
	if got := w.overheard(infos, "subjects_filter"); len(got) > 0 {
		t.Errorf("lists of subjects: got %q, want none", got)
	}
}

// TestJobsThatComeDuringACountAreNotTakenForUnservedOnes: a busy fleet must not read all its jobs for ever.
func TestJobsThatComeDuringACountAreNotTakenForUnservedOnes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.counter(waiting.Config{})
	stop := make(chan struct{})
	var publisher sync.WaitGroup
	publisher.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				_, _ = w.bus.Conn().Request(fmt.Sprint("gofer.jobs.default.busy-", i), []byte("http://shop.test/"), time.Second)
			}
		}
	})
	w.count(c) // the first count reads what it finds
	reads := w.listen("$JS.API.DIRECT.GET.GOFER_JOBS")
	for range 12 {
		w.count(c)
	}
	close(stop)
	publisher.Wait()
	if got := w.overheard(reads, `"next_by_subj":"\u003e"`); len(got) > 0 {
		t.Errorf("pages of jobs read: got %q, want none", got)
	}
}

// TestJobsOfNamesThatAreWildcardsAreCountedTogether: no request can count those, and they must not count the jobs of other
// queues.
func TestJobsOfNamesThatAreWildcardsAreCountedTogether(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.counter(waiting.Config{})
	w.submit("default")
	for _, id := range []string{"a", "b"} {
		w.must(w.bus.Conn().Publish("gofer.jobs.*."+id, []byte("http://shop.test/")))
	}
	w.must(w.bus.Conn().Flush())
	for range 3 {
		s := w.count(c)
		if got, want := unservedOf(s), waiting.OtherQueues+" 2"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if i := slices.IndexFunc(s.Queues, func(q waiting.Queue) bool { return q.Queue == "default" }); s.Queues[i].Queued != 1 {
			t.Errorf("queue default has %d queued jobs, want 1", s.Queues[i].Queued)
		}
	}
}

// TestACountSucceedsThoughJobsCannotBeRead: what it knows without them is shared all the same.
func TestACountSucceedsThoughJobsCannotBeRead(t *testing.T) {
	t.Parallel()
	srv := testenv.StartNATS(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "all", Password: "p"}, {Username: "some", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"$JS.API.DIRECT.GET.GOFER_JOBS"}},
		}}}
	})
	names, err := jobs.NewNames("")
	if err != nil {
		t.Fatal(err)
	}
	as := func(user string) *bus.Client {
		nc, err := nats.Connect(srv.URL(), nats.UserInfo(user, "p"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		client, err := bus.New(nc, names)
		if err != nil {
			t.Fatal(err)
		}
		return client
	}
	w := &world{T: t, bus: as("all")}
	w.must(w.bus.Ensure(w.soon(), bus.Settings{Queues: []string{"default"}}))
	w.submit("misspelt")
	if s := w.count(waiting.NewCounter(as("some"), waiting.Config{})); len(s.Queues) != 1 || s.Queues[0].Queue != "default" {
		t.Errorf("got %+v, want queue default only", s.Queues)
	}
}

// TestTheAgeOfJobsThatNobodyServesIsKnown: an alert about it is the only sign of a misspelt queue at night.
func TestTheAgeOfJobsThatNobodyServesIsKnown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.submit("misspelt")
	first, err := w.bus.NextMessage(t.Context(), "GOFER_JOBS", "gofer.jobs.misspelt.>", 1)
	w.must(err)
	w.submit("misspelt")
	for _, q := range w.count(w.counter(waiting.Config{})).Queues {
		if got := q.Since[jobs.StateQueued].Format(time.RFC3339Nano); q.Queue == "misspelt" && got != first.Header.Get(jetstream.TimeStampHeaer) {
			t.Errorf("the oldest job is queued since %s, want %s", got, first.Header.Get(jetstream.TimeStampHeaer))
		} else if q.Queue == "misspelt" {
			return
		}
	}
	t.Error("the queue is not counted")
}

// TestJobsThatComeDuringACountAreAllRead: a count asks for no sequence that is still to come. Between two such questions a job
// may come, and the later one would find a job behind it, which would then never be read.
func TestJobsThatComeDuringACountAreAllRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	asked := w.listen("$JS.API.DIRECT.GET." + w.bus.Names().Stream("RETRIES"))
	c := w.counter(waiting.Config{})
	single := 0
	for range 3 {
		w.parkMany(3)
		w.check("jobs", w.count(c))
		state, err := w.bus.WaitingState(w.soon())
		w.must(err)
		for _, body := range w.overheard(asked, `"seq"`) {
			var request struct {
				Seq   uint64 `json:"seq"`
				Batch int    `json:"batch"` // of a page, which the server reads in order
			}
			w.must(json.Unmarshal([]byte(body), &request))
			if request.Batch == 0 && request.Seq > state.LastSeq {
				t.Errorf("sequence %d is asked for, and the last one is %d", request.Seq, state.LastSeq)
			}
			if request.Batch == 0 && request.Seq+3 > state.LastSeq {
				single++
			}
		}
	}
	if single < 6 { // the first three may come in a page
		t.Errorf("%d jobs are asked for one by one, want those of the second and the third time", single)
	}
}
