package bus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/stream"
)

// mute is a server that answers nothing and lets nobody publish events.
func mute(t *testing.T) *bus.Client {
	t.Helper()
	nats := testenv.StartNATS(t, func(o *server.Options) {
		o.JetStream, o.StoreDir = false, ""
		o.Users = []*server.User{
			{Username: "silent", Password: "x"},
			{Username: "u", Password: "x", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"gofer.events.>"}}}},
		}
	})
	connect := func(user string) *bus.Client {
		nc, err := bus.Connect(t.Context(), bus.Dial{URL: nats.URL(), User: user, Password: "x"}, nil)
		must(t, err)
		t.Cleanup(nc.Close)
		if user == "silent" { // hears each request and never answers
			_, err := nc.SubscribeSync("$JS.API.>")
			must(t, err)
			must(t, nc.Flush())
		}
		names, err := jobs.NewNames("")
		must(t, err)
		b, err := bus.New(nc, names)
		must(t, err)
		return b
	}
	connect("silent")
	return connect("u")
}

func TestARefusedPublishIsNotTheCauseOfAnotherTimeOut(t *testing.T) {
	t.Parallel()
	b := mute(t)
	refuse := func() error { return stream.New(b).PublishPool(t.Context(), jobs.PoolEvent{Worker: "w"}) }
	isError(t, refuse(), bus.ErrPermission)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	during := make(chan error, 1)
	go func() { during <- refuse() }()
	_, err := b.Result(ctx, "default", "a")
	if errors.Is(err, bus.ErrConfig) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want a time-out", err)
	}
	err = <-during
	isError(t, err, bus.ErrPermission)
	if !strings.Contains(err.Error(), `publish to "gofer.events.pool.w"`) {
		t.Errorf("got %v, want the subject that is refused", err)
	}
}

func TestARequestWithoutAnAnswerSaysSo(t *testing.T) {
	t.Parallel()
	b := mute(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := b.Result(ctx, "default", "a")
	isError(t, err, context.DeadlineExceeded)
	if text := err.Error(); !strings.Contains(text, "default/a: the NATS server did not answer in time") || strings.Contains(text, "deadline") {
		t.Errorf("got %q, want what was asked, and that nobody answered", text)
	}
	full := b.Explain("follow stream GOFER_RESULTS", natsgo.ErrReconnectBufExceeded)
	if text := full.Error(); text != "follow stream GOFER_RESULTS: NATS is not connected" {
		t.Errorf("got %q, want that there is no connection", text)
	}
}

func TestTheRefusalOfASubjectWithAQuoteIsHeard(t *testing.T) {
	t.Parallel()
	b := mute(t)
	for _, name := range []string{`w"x`, `"`, `w\x`, "wü"} {
		if err := stream.New(b).PublishPool(t.Context(), jobs.PoolEvent{Worker: name}); !errors.Is(err, bus.ErrPermission) {
			t.Errorf("%s: got %v, want the refusal", name, err)
		}
	}
}

func TestAReaderThatMayNotAskForMessagesIsToldSo(t *testing.T) {
	t.Parallel()
	srv := testenv.StartNATS(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"$JS.API.CONSUMER.MSG.NEXT.GOFER_EVENTS.>"}},
		}}}
	})
	b, err := bus.New(connect(t, bus.Dial{URL: srv.URL(), User: "u", Password: "p"}), names(t))
	must(t, err)
	must(t, b.Ensure(soon(t), bus.Settings{}))
	must(t, stream.New(b).PublishPool(soon(t), jobs.PoolEvent{Worker: "w"}))
	none := func(jetstream.Msg) error { return nil }
	for _, f := range []bus.Filter{{All: true}, {All: true, UntilNow: true}} {
		err = b.FollowStream(soon(t), "GOFER_EVENTS", []string{"gofer.events.>"}, f, none)
		isError(t, err, bus.ErrPermission)
	}
	err = b.ReadHeaders(soon(t), "GOFER_EVENTS", "gofer.events.>", 0, 10, func(jetstream.Msg) {})
	isError(t, err, bus.ErrPermission)
	if !strings.Contains(err.Error(), `publish to "$JS.API.CONSUMER.MSG.NEXT.GOFER_EVENTS.`) {
		t.Errorf("got %v, want the right that is missing", err)
	}
	must(t, b.FollowStream(soon(t), "GOFER_RESULTS", []string{"gofer.results.>"}, bus.Filter{All: true, UntilNow: true}, none))
}

// TestAQuestionThatTheServerRefusesEndsAtOnce asks a question whose answers are waited for without a bound.
func TestAQuestionThatTheServerRefusesEndsAtOnce(t *testing.T) {
	t.Parallel()
	b := mute(t)
	waits := func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }
	err := b.Ask(soon(t), "gofer.events", func(ctx context.Context) error {
		must(t, b.Conn().PublishRequest("gofer.events.x", b.Conn().NewInbox(), nil))
		return waits(ctx)
	})
	isError(t, err, bus.ErrPermission)
	ended := errors.New("ended")
	isError(t, b.Ask(soon(t), "gofer.ctl", func(context.Context) error { return ended }), ended)
}

func TestAStreamWithoutALeaderIsNotCalledMissing(t *testing.T) {
	testenv.Long(t)
	t.Parallel()
	cluster := testenv.StartCluster(t)
	names, err := jobs.NewNames("")
	must(t, err)
	b, err := bus.New(cluster.Connect(0), names)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*testenv.Patience)
	defer cancel()
	must(t, b.Ensure(ctx, bus.Settings{Replicas: 3}))
	cluster.Kill(1)
	cluster.Kill(2)
	var asking sync.WaitGroup
	for what, ask := range map[string]func() error{
		"submit": func() error {
			short, cancel := context.WithTimeout(ctx, 8*time.Second)
			defer cancel()
			_, err := client.New(b).Submit(short, job(""))
			return err
		},
		"plan": func() error {
			_, err := b.Plan(ctx, bus.Settings{Replicas: 3})
			return err
		},
		"event": func() error { return stream.New(b).PublishPool(ctx, jobs.PoolEvent{Worker: "w"}) },
		"result": func() error {
			_, err := b.StoreResult(ctx, success("a", nil))
			return err
		},
	} {
		asking.Go(func() {
			// The servers need some seconds to notice that they are too few.
			for err := ask(); !errors.Is(err, bus.ErrNoLeader); err = ask() {
				if err == nil || errors.Is(err, bus.ErrNotSetUp) || ctx.Err() != nil {
					t.Errorf("%s: got %v, want %v", what, err, bus.ErrNoLeader)
					break
				}
			}
		})
	}
	asking.Wait()
}

// TestPublishesThatGetNoAnswerTogetherAskOnce has a server that answers no publish, as one that is too slow, and counts the
// questions about the stream.
func TestPublishesThatGetNoAnswerTogetherAskOnce(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	must(t, in.js.DeleteStream(soon(t), in.names.Stream("RESULTS")))
	nc := in.nc
	silent, err := nc.Subscribe(in.names.ResultsIngress(), func(*natsgo.Msg) {})
	must(t, err)
	defer func() { must(t, silent.Unsubscribe()) }()
	var asked atomic.Int32
	questions, err := nc.Subscribe("$JS.API.STREAM.INFO."+in.names.Stream("RESULTS"), func(*natsgo.Msg) { asked.Add(1) })
	must(t, err)
	defer func() { must(t, questions.Unsubscribe()) }()
	must(t, nc.Flush())
	var publishing sync.WaitGroup
	for i := range 50 {
		publishing.Go(func() {
			if _, err := in.StoreResult(t.Context(), success(fmt.Sprint(i), nil)); !errors.Is(err, bus.ErrNotSetUp) {
				t.Errorf("got %v, want %v", err, bus.ErrNotSetUp)
			}
		})
	}
	publishing.Wait()
	// Each publish has its own timeout, so on a busy machine they fail in several groups. Without sharing there are 50 questions.
	if n := asked.Load(); n < 1 || n > 25 {
		t.Errorf("50 publishes asked %d times, want one question for those that fail together", n)
	}
}
