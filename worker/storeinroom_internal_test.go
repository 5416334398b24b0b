package worker

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/stream"
)

// filled is a worker whose server says how full the stream of waiting jobs is, whatever is in it.
type filled struct {
	*Worker
	asked chan *nats.Msg // by the worker, to be answered by answer
}

func newFilled(t *testing.T) *filled {
	t.Helper()
	nc := testenv.StartNATS(t, func(o *server.Options) { o.JetStream = false }).Connect()
	names, err := jobs.NewNames("")
	if err != nil {
		t.Fatal(err)
	}
	client, err := bus.New(nc, names)
	if err != nil {
		t.Fatal(err)
	}
	w, err := New(Config{Client: client, Queues: []Queue{{Name: "default"}}})
	if err != nil {
		t.Fatal(err)
	}
	f := &filled{w, make(chan *nats.Msg, 64)}
	if _, err := nc.ChanSubscribe("$JS.API.STREAM.INFO.GOFER_RETRIES", f.asked); err != nil {
		t.Fatal(err)
	}
	return f
}

func answer(t *testing.T, question *nats.Msg, fill bus.Fill) {
	t.Helper()
	err := question.Respond(fmt.Appendf(nil, `{"type":"io.nats.jetstream.api.v1.stream_info_response","created":"2030-01-01T00:00:00Z",
		"config":{"name":"GOFER_RETRIES","max_bytes":%d,"max_msgs":%d},"state":{"bytes":%d,"messages":%d,"last_seq":%d}}`,
		fill.MaxBytes, fill.MaxMsgs, fill.Bytes, fill.Msgs, fill.LastSeq))
	if err != nil {
		t.Error(err)
	}
}

const (
	notStored       = "not stored"
	storedUnguarded = "stored without a guard"
	storedGuarded   = "stored with a guard"
)

// store stores a job, and returns how.
func (f *filled) store(t *testing.T, again bool) (how string) {
	t.Helper()
	how = notStored
	err := f.storeInRoom(t.Context(), 1000, again, &jobs.Progress{}, func(_ context.Context, c *stream.Client) error {
		if how = storedGuarded; c == f.client {
			how = storedUnguarded
		}
		return nil
	})
	if err != nil && !errors.Is(err, errNoRoomToWait) || (err != nil) != (how == notStored) {
		t.Errorf("%s: error %v", how, err)
	}
	return how
}

// TestHowAJobIsStoredFollowsFromTheRoomThatTheServerNames: what the worker knew before decides only whether it asks.
func TestHowAJobIsStoredFollowsFromTheRoomThatTheServerNames(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	empty := bus.Fill{MaxBytes: 1024 * mib}
	for name, c := range map[string]struct {
		known        bus.Fill
		age          time.Duration // of what is known
		now          bus.Fill
		fresh, again string
	}{
		"much is free":                         {empty, 0, bus.Fill{MaxBytes: 1024 * mib, Bytes: 100 * mib}, storedUnguarded, storedUnguarded},
		"much is free, but a fresh job's part": {empty, 0, bus.Fill{MaxBytes: 1024 * mib, Bytes: 800 * mib}, notStored, storedUnguarded},
		"others have filled it meanwhile":      {empty, 0, bus.Fill{MaxBytes: 128 * mib, Bytes: 70 * mib}, storedGuarded, storedGuarded},
		"a limit of bytes is new":              {bus.Fill{}, time.Minute, bus.Fill{MaxBytes: 4 * mib, Bytes: 4 * mib}, notStored, notStored},
		"a limit of messages is new":           {bus.Fill{}, time.Minute, bus.Fill{MaxMsgs: 100, Msgs: 100}, notStored, notStored},
		"there is no limit any more":           {bus.Fill{MaxBytes: 4 * mib, Bytes: 4 * mib}, time.Minute, bus.Fill{}, storedUnguarded, storedUnguarded},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFilled(t)
			ctx := t.Context()
			go func() {
				for {
					select {
					case question := <-f.asked:
						answer(t, question, c.now)
					case <-ctx.Done():
						return
					}
				}
			}()
			for _, again := range []bool{false, true} {
				// In the future it is as good as new: the test may be slow.
				at := time.Now().Add(time.Hour)
				if c.age > 0 {
					at = time.Now().Add(-c.age)
				}
				f.waitingFill.Store(&knownFill{askedAt: at, fill: c.known})
				want := c.fresh
				if again {
					want = c.again
				}
				if got := f.store(t, again); got != want {
					t.Errorf("scheduled before: %t: the job is %s, want %s", again, got, want)
				}
			}
		})
	}
}

// TestTheAnswerAboutTheRoomIsKeptThoughTheJobThatAskedEnds: other jobs wait for the same answer.
func TestTheAnswerAboutTheRoomIsKeptThoughTheJobThatAskedEnds(t *testing.T) {
	t.Parallel()
	f := newFilled(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := f.knownFill(ctx)
		ended <- err
	}()
	question := <-f.asked
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the job that asked and ended got %v, want %v", err, context.Canceled)
	}
	answer(t, question, bus.Fill{MaxBytes: 1 << 20})
	testenv.Eventually(t, "the answer to be kept", func() bool { return f.waitingFill.Load() != nil })
}

// TestAJobWaitsThoughTheUserMayNotAskForTheRoom: it is stored as in a stream without a limit.
func TestAJobWaitsThoughTheUserMayNotAskForTheRoom(t *testing.T) {
	t.Parallel()
	f := newFilled(t)
	nats := testenv.StartNATS(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "w", Password: "w", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"$JS.API.STREAM.INFO.>"}},
		}}}
	})
	nc, err := bus.Connect(t.Context(), bus.Dial{URL: fmt.Sprintf("nats://w:w@127.0.0.1:%d", nats.Port())}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	client, err := bus.New(nc, f.client.Names())
	if err != nil {
		t.Fatal(err)
	}
	f.client = stream.New(client)
	if got := f.store(t, false); got != storedUnguarded {
		t.Errorf("the job is %s, want %s", got, storedUnguarded)
	}
}
