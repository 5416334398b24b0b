package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/stream"
)

func TestAResultIsReadBackByName(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	_, err := in.Result(soon(t), client.Key{Queue: "default", ID: "a"})
	isError(t, err, bus.ErrNotFound)
	in.store(t, "a", []byte("hello"))
	got, err := in.Result(soon(t), client.Key{Queue: "default", ID: "a"})
	must(t, err)
	if got.ID != "a" || got.Outcome != jobs.Succeeded || string(got.Body) != "hello" {
		t.Errorf("got %+v", got)
	}
}

func TestWaitFindsAResultThatIsThereAndOneThatComes(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.store(t, "early", []byte("1"))
	got, err := in.Wait(soon(t), client.Key{Queue: "default", ID: "early"})
	must(t, err)
	if string(got.Body) != "1" {
		t.Errorf("got body %q", got.Body)
	}
	came := make(chan jobs.Result, 1)
	go func() {
		got, err := in.Wait(soon(t), client.Key{Queue: "default", ID: "late"})
		if err != nil {
			t.Error(err)
		}
		came <- got
	}()
	in.store(t, "late", []byte("2"))
	if got := <-came; string(got.Body) != "2" {
		t.Errorf("got body %q", got.Body)
	}
}

func TestWaitManyGetsEachResultOnce(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	const count = 1500
	var keys []bus.Key
	for i := range count {
		keys = append(keys, key(fmt.Sprintf("j%d", i)))
	}
	for _, k := range keys[:count/2] {
		in.store(t, k.ID, []byte("x"))
	}
	in.store(t, "not-waited-for", nil)
	var storing sync.WaitGroup
	defer storing.Wait()
	storing.Go(func() {
		for _, k := range keys[count/2:] {
			if _, err := in.bus.StoreResult(t.Context(), success(k.ID, []byte("x"))); err != nil {
				t.Error(err)
			}
		}
	})
	seen := map[string]int{}
	must(t, in.WaitMany(soon(t), append(keys, keys[0]), func(r jobs.Result) error {
		seen[r.ID]++
		return nil
	}))
	if len(seen) != count || slices.Max(values(seen)) != 1 {
		t.Errorf("got %d ids, want %d, each once", len(seen), count)
	}
}

func values(m map[string]int) (out []int) {
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

func TestWaitManyEndsWithItsContextOrItsCallersError(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.store(t, "a", nil)
	stop := errors.New("stop")
	isError(t, in.WaitMany(soon(t), []bus.Key{key("a"), key("b")}, func(jobs.Result) error { return stop }), stop)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, stop)
	defer cancel()
	_, err := in.Wait(ctx, client.Key{Queue: "default", ID: "never"})
	isError(t, err, stop)
}

// TestAWaiterFindsWhatItsSubscriptionLost takes the republishing away, so that no subscriber hears of any result.
func TestAWaiterFindsWhatItsSubscriptionLost(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	stream, err := in.js.Stream(soon(t), "GOFER_RESULTS")
	must(t, err)
	config := stream.CachedInfo().Config
	config.RePublish = nil
	_, err = in.js.UpdateStream(soon(t), config)
	must(t, err)
	_, err = in.Result(soon(t), client.Key{Queue: "default", ID: "a"})
	isError(t, err, bus.ErrNotFound)
	came := make(chan error, 1)
	before := in.nc.NumSubscriptions()
	go func() {
		_, err := in.Wait(soon(t), client.Key{Queue: "default", ID: "a"})
		came <- err
	}()
	testenv.Eventually(t, "the wait to subscribe", func() bool { return in.nc.NumSubscriptions() != before })
	in.store(t, "a", nil)
	must(t, <-came)
}

func TestFollowBeginsWhereItIsTold(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.store(t, "a", []byte("body"))
	stream, err := in.js.Stream(soon(t), "GOFER_RESULTS")
	must(t, err)
	first, err := stream.GetMsg(soon(t), 1)
	must(t, err)
	since := first.Time.Add(1) // right behind the first result, whatever the clocks say
	in.store(t, "b", []byte("body"))
	for name, c := range map[string]struct {
		filter bus.Filter
		want   string
	}{
		"all":           {bus.Filter{All: true, UntilNow: true}, "a:body b:body"},
		"since":         {bus.Filter{Since: since, UntilNow: true}, "b:body"},
		"until now":     {bus.Filter{UntilNow: true}, "a:body b:body"},
		"headers only":  {bus.Filter{UntilNow: true, HeadersOnly: true}, "a: b:"},
		"another queue": {bus.Filter{UntilNow: true, Queue: "other"}, ""},
		"durable":       {bus.Filter{UntilNow: true, Durable: bus.Reader}, "a:body b:body"},
	} {
		var got []string
		must(t, in.Follow(soon(t), c.filter, func(r jobs.Result) error {
			got = append(got, r.ID+":"+string(r.Body))
			return nil
		}))
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: got %v, want %s", name, got, c.want)
		}
	}
}

// TestUntilNowEndsThoughTheRestIsGone purges the stream under a reader, as its age limit does.
func TestUntilNowEndsThoughTheRestIsGone(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	kept, err := in.js.Stream(soon(t), "GOFER_EVENTS")
	must(t, err)
	for name, c := range map[string]struct {
		filter bus.Filter
		events int // more than are read ahead
	}{"own consumer": {bus.Filter{UntilNow: true}, 150}, "durable": {bus.Filter{UntilNow: true, Durable: bus.Reader}, 5}} {
		for i := range c.events {
			must(t, stream.New(in.bus).PublishBreaker(soon(t), jobs.BreakerEvent{ProxyID: fmt.Sprint("p", i)}))
		}
		in.counted(t, uint64(c.events))
		used := 0
		must(t, in.Events(soon(t), c.filter, func(client.Event) error {
			used++
			return kept.Purge(soon(t))
		}))
		if used == 0 || used >= c.events {
			t.Errorf("%s: used %d events, want some of %d", name, used, c.events)
		}
	}
}

// counted waits until the server has counted the events that a durable has to deliver, which it does a little later than it
// stores them.
func (in *installation) counted(t *testing.T, want uint64) {
	t.Helper()
	for ctx := soon(t); ; {
		durable, err := in.js.Consumer(ctx, "GOFER_EVENTS", bus.Reader)
		must(t, err)
		if durable.CachedInfo().NumPending == want {
			return
		}
	}
}

// TestUntilNowEndsBesideAWriter has a new event come for each that is read.
func TestUntilNowEndsBesideAWriter(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	publish := func(id string) error {
		return stream.New(in.bus).PublishBreaker(soon(t), jobs.BreakerEvent{ProxyID: id})
	}
	for i := range 10 {
		must(t, publish(fmt.Sprint("p", i)))
	}
	in.counted(t, 10)
	used := 0
	must(t, in.Events(soon(t), bus.Filter{UntilNow: true, Durable: bus.Reader}, func(client.Event) error {
		used++
		return publish(fmt.Sprint("q", used))
	}))
	if used < 10 || used > 11 {
		t.Errorf("used %d events, want the 10 that were there, and a later one at most", used)
	}
}

func TestFollowEndsWithItsContextWhileItsConsumerIsMadeAgain(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.store(t, "a", nil)
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	used := make(chan bool, 1)
	go func() {
		ended <- in.Follow(ctx, bus.Filter{All: true}, func(jobs.Result) error {
			used <- true
			return nil
		})
	}()
	<-used
	in.server.Stop()
	// Another server, on which JetStream takes requests and never answers.
	silent := testenv.StartNATS(t, func(o *server.Options) { o.JetStream, o.StoreDir, o.Port = false, "", in.server.Port() })
	asked := make(chan *nats.Msg, 10)
	_, err := silent.Connect().ChanSubscribe("$JS.API.>", asked)
	must(t, err)
	for !strings.Contains((<-asked).Subject, "CONSUMER.CREATE") {
		continue
	}
	cancel(stop)
	select {
	case err := <-ended:
		isError(t, err, stop)
	case <-time.After(9 * time.Second): // it would be tried for ten
		t.Error("the reader goes on after its context has ended")
	}
}

func TestADurableGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	stop := errors.New("stop")
	for _, id := range []string{"a", "b"} {
		in.store(t, id, nil)
	}
	isError(t, in.Follow(soon(t), bus.Filter{Durable: bus.Reader}, func(r jobs.Result) error {
		if r.ID == "b" {
			return stop
		}
		return nil
	}), stop)
	began := time.Now()
	isError(t, in.Follow(soon(t), bus.Filter{Durable: bus.Reader}, func(r jobs.Result) error {
		if r.ID != "b" {
			t.Errorf("got %s again, want the one that was not used", r.ID)
		}
		return stop
	}), stop)
	if took := time.Since(began); took > 20*time.Second { // its ack wait has thirty
		t.Errorf("it came after %s, want it handed back at once", took)
	}
	if err := in.Follow(soon(t), bus.Filter{Durable: bus.Reader, All: true}, nil); err == nil {
		t.Error("a durable took a beginning that it cannot have")
	}
	isError(t, in.Follow(soon(t), bus.Filter{Durable: "nobodys"}, func(jobs.Result) error { return nil }), bus.ErrNotFound)
}

func TestFollowOutlivesARestartAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.store(t, "a", nil)
	ctx, cancel := context.WithCancel(soon(t))
	seen := make(chan string, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- in.Follow(ctx, bus.Filter{All: true}, func(r jobs.Result) error {
			seen <- r.ID
			return nil
		})
	}()
	if got := <-seen; got != "a" {
		t.Fatalf("got %s first, want a", got)
	}
	in.restart()
	writer := on(t, in.server, bus.Dial{})
	writer.store(t, "b", nil)
	if got := <-seen; got != "b" {
		t.Errorf("got %s after the restart, want b", got)
	}
	cancel()
	isError(t, <-ended, context.Canceled)
}

func TestEventsComeWithTheirKind(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	must(t, stream.New(in.bus).PublishRetry(soon(t), jobs.RetryEvent{Queue: "default", JobID: "a"}))
	must(t, stream.New(in.bus).PublishBreaker(soon(t), jobs.BreakerEvent{ProxyID: "p1"}))
	must(t, stream.New(in.bus).PublishSite(soon(t), jobs.SiteEvent{Site: "example.com"}))
	must(t, stream.New(in.bus).PublishDuplicate(soon(t), jobs.DuplicateEvent{Queue: "other", JobID: "a"}))
	for _, c := range []struct {
		filter bus.Filter
		want   string
	}{
		{bus.Filter{UntilNow: true}, "retry breaker site duplicate"},
		{bus.Filter{UntilNow: true, Queue: "other"}, "duplicate"},
		{bus.Filter{UntilNow: true, Durable: bus.Reader}, "retry breaker site duplicate"},
	} {
		var got []string
		must(t, in.Events(soon(t), c.filter, func(e client.Event) error {
			got = append(got, e.Kind)
			if e.StoredAt.IsZero() || !bytes.HasPrefix(e.Payload, []byte("{")) {
				t.Errorf("got event %+v", e)
			}
			return nil
		}))
		if strings.Join(got, " ") != c.want {
			t.Errorf("got %v, want %s", got, c.want)
		}
	}
}

func TestABodyReadsTheSameWhereverItIsKept(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	for _, size := range []int{0, 5, jobs.MaxInlineBody, jobs.MaxInlineBody + 1, 3<<20 + 7} {
		want := bytes.Repeat([]byte("0123456"), size/7+1)[:size]
		id := fmt.Sprint("b", size)
		in.store(t, id, want)
		r, err := in.Result(soon(t), client.Key{Queue: "default", ID: id})
		must(t, err)
		if stored := r.Object != ""; stored != (size > jobs.MaxInlineBody) {
			t.Errorf("%d bytes: got object %q", size, r.Object)
		}
		body, err := in.Body(soon(t), r)
		must(t, err)
		got, err := io.ReadAll(body)
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes: got %d other ones", size, len(got))
		}
		must(t, body.Close())
	}
}

func TestATamperedBodyIsNoticed(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.store(t, "a", make([]byte, jobs.MaxInlineBody+1))
	r, err := in.Result(soon(t), client.Key{Queue: "default", ID: "a"})
	must(t, err)
	store, err := in.js.ObjectStore(soon(t), "gofer-bodies")
	must(t, err)
	_, name, _ := strings.Cut(r.Object, "/")
	_, err = store.PutBytes(soon(t), name, []byte("another body"))
	must(t, err)
	body, err := in.Body(soon(t), r)
	must(t, err)
	_, err = io.ReadAll(body)
	isError(t, err, client.ErrDigest)

	must(t, store.Delete(soon(t), name))
	_, err = in.Body(soon(t), r)
	isError(t, err, bus.ErrNotFound)
	_, err = in.Body(soon(t), jobs.Result{Object: "no-slash"})
	if err == nil {
		t.Error("a nameless object was read")
	}
}

func TestOtherClientsReadAnObjectAsWell(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	want := bytes.Repeat([]byte("x"), jobs.MaxInlineBody+1)
	in.store(t, "a", want)
	r, err := in.Result(soon(t), client.Key{Queue: "default", ID: "a"})
	must(t, err)
	store, err := in.js.ObjectStore(soon(t), "gofer-bodies")
	must(t, err)
	_, name, _ := strings.Cut(r.Object, "/")
	got, err := store.GetBytes(soon(t), name)
	must(t, err)
	info, err := store.GetInfo(soon(t), name)
	must(t, err)
	if !bytes.Equal(got, want) || info.Digest != r.ObjectDigest {
		t.Errorf("got %d bytes with digest %s, want %d with %s", len(got), info.Digest, len(want), r.ObjectDigest)
	}
}
