package bus_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
)

// refusing is a client of a server whose stream of results is a stand-in: answer says what it has against a message.
func refusing(t *testing.T, answer func(*nats.Msg) *server.ApiError) *bus.Client {
	t.Helper()
	plain := testenv.StartNATS(t, func(o *server.Options) { o.JetStream, o.StoreDir = false, "" })
	_, err := plain.Connect().Subscribe("_gofer.results.>", func(msg *nats.Msg) {
		reply := map[string]any{"stream": "GOFER_RESULTS", "seq": 1}
		if refusal := answer(msg); refusal != nil {
			reply["error"] = refusal
		}
		data, err := json.Marshal(reply)
		if err != nil {
			t.Error(err)
		}
		_ = msg.Respond(data)
	})
	must(t, err)
	names, err := jobs.NewNames("")
	must(t, err)
	client, err := bus.New(plain.Connect(), names)
	must(t, err)
	return client
}

// TestAResultThatIsRefusedForGoodIsStoredSmallerOnTheFirstTry has the stream refuse a result with each error of the server.
func TestAResultThatIsRefusedForGoodIsStoredSmallerOnTheFirstTry(t *testing.T) {
	t.Parallel()
	var refusal atomic.Pointer[server.ApiError]
	client := refusing(t, func(*nats.Msg) *server.ApiError { return refusal.Swap(nil) })
	for _, documented := range server.ApiErrors {
		r := success("a", nil)
		r.Header = map[string][]string{"X": {"y"}}
		refusal.Store(documented)
		stored, err := client.StoreResult(soon(t), r)
		switch class := bus.Classify(jetstream.ErrorCode(documented.ErrCode)); {
		case documented.ErrCode == 10071 || documented.ErrCode == 10164: // another result is there, which cannot be read here
		case class == bus.Refused:
			if err != nil || !stored.Won || !slices.Equal(stored.Omitted, []string{"headers"}) || stored.Refusal == nil {
				t.Errorf("code %d (%s): got %+v, %v; want the result without its headers", documented.ErrCode, documented.Description, stored, err)
			}
		case err == nil || bus.IsPermanent(err) != (class == bus.Misconfigured) || !strings.Contains(err.Error(), documented.Description):
			t.Errorf("code %d (%s): got %v; want that error, permanent: %v", documented.ErrCode, documented.Description, err, class == bus.Misconfigured)
		}
	}
}

func TestTheFactsOfAResultAreStoredIfNothingElseCanBe(t *testing.T) {
	t.Parallel()
	client := refusing(t, func(msg *nats.Msg) *server.ApiError {
		if len(msg.Data) > 500 || len(msg.Header) > 14 || msg.Header.Get("Gofer-Url") != "" {
			return server.ApiErrors[server.JSStreamMessageExceedsMaximumErr]
		}
		return nil
	})
	r := &jobs.Result{
		Queue: "default", ID: "a", Outcome: jobs.Failed, Error: jobs.ErrAttemptsExhausted, Status: 503, URL: "http://a.test/", Detail: strings.Repeat("d", 500),
		Attempts: []jobs.Attempt{{Attempt: 1, Error: strings.Repeat("e", 500)}}, AttemptCount: 1, Meta: map[string]string{"a": "1", "b": "2", "c": "3", "d": "4"},
		Worker: "w",
	}
	stored, err := client.StoreResult(soon(t), r)
	if want := []string{"attempts", "meta", "url"}; err != nil || !stored.Won || !slices.Equal(stored.Omitted, want) {
		t.Errorf("got %+v, %v; want %q omitted", stored, err, want)
	}
}

func TestAResultThatIsTooLargeForItsStreamKeepsItsBody(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	limit(t, in, "GOFER_RESULTS", 2000)
	body := bytes.Repeat([]byte("b"), 100<<10)
	r := success("a", body)
	r.Header, r.Meta = map[string][]string{"X": {strings.Repeat("h", 5000)}}, map[string]string{"order": "4711"}
	stored, err := in.StoreResult(soon(t), r)
	if err != nil || !stored.Won || !slices.Equal(stored.Omitted, []string{"headers"}) {
		t.Fatalf("got %+v, %v; want it stored without headers", stored, err)
	}
	kept, err := in.Result(soon(t), "default", "a")
	must(t, err)
	reader, err := in.client.Body(soon(t), kept)
	must(t, err)
	got, err := io.ReadAll(reader)
	if err != nil || !bytes.Equal(got, body) || kept.Outcome != jobs.Succeeded || !kept.Truncated || kept.Meta["order"] != "4711" {
		t.Errorf("got %+v with %d bytes, %v; want the body and meta", kept, len(got), err)
	}
}

func TestABodyThatTheObjectStoreRefusesIsLeftOutAndSaid(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	limit(t, in, "OBJ_gofer-bodies", 1000)
	r := success("a", make([]byte, jobs.MaxInlineBody+1))
	stored, err := in.StoreResult(soon(t), r)
	if err != nil || !stored.Won || !slices.Equal(stored.Omitted, []string{"body"}) {
		t.Fatalf("got %+v, %v; want it stored without its body", stored, err)
	}
	kept, err := in.Result(soon(t), "default", "a")
	must(t, err)
	_, err = in.client.Body(soon(t), kept)
	isError(t, err, client.ErrNoBody)
	if kept.Outcome != jobs.Succeeded || kept.Status != r.Status {
		t.Errorf("got %+v, want the facts", kept)
	}
}

// TestABodyThatNeverFitsKeepsNoWorker stores bodies that are larger than the limit of their stream. They would wait for room for
// ever, and the worker would take no other jobs. A body that may fit later waits.
func TestABodyThatNeverFitsKeepsNoWorker(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{JobsMaxBytes: 4 << 20, ResultsMaxBytes: 2 << 20})
	for _, size := range []int{2<<20 - 1, 2 << 20, 3 << 20} {
		id := fmt.Sprint("b", size)
		stored, err := in.StoreResult(soon(t), success(id, make([]byte, size)))
		if err != nil || !stored.Won || !slices.Equal(stored.Omitted, []string{"body"}) || !bus.IsFull(stored.Refusal) {
			t.Errorf("%d bytes: got %+v, %v; want it stored without its body", size, stored, err)
		}
	}
	_, err := in.StoreResult(soon(t), success("first", make([]byte, 3<<19)))
	must(t, err)
	stored, err := in.StoreResult(soon(t), success("second", make([]byte, 3<<19)))
	if !errors.Is(err, bus.ErrResultsFull) {
		t.Errorf("a second large body: got %+v, %v; want it to wait for room", stored, err)
	}
}

// TestABodyThatIsLargerThanItsAccountKeepsNoWorker lowers the limit of an account below a body; the streams have no limits. A body
// that may fit later waits, and the error says whose room is used up.
func TestABodyThatIsLargerThanItsAccountKeepsNoWorker(t *testing.T) {
	t.Parallel()
	limited := func(maxFile string) func(*server.Options) {
		path := filepath.Join(t.TempDir(), "nats.conf")
		text := "jetstream: true, no_auth_user: a, accounts: {A: {users: [{user: a, password: a}], jetstream: {max_file: " + maxFile + "}}}"
		must(t, os.WriteFile(path, []byte(text), 0o600))
		read, err := server.ProcessConfigFile(path)
		must(t, err)
		return func(o *server.Options) {
			o.Accounts, o.Users, o.NoAuthUser = read.Accounts, read.Users, read.NoAuthUser
		}
	}
	in := on(t, testenv.StartNATS(t, limited("1GB")), bus.Dial{})
	must(t, in.Ensure(t.Context(), bus.Settings{}))
	in.server.Reload(limited("2MB"))
	stored, err := in.StoreResult(soon(t), success("large", make([]byte, 3<<20)))
	if err != nil || !stored.Won || !slices.Equal(stored.Omitted, []string{"body"}) || !errors.Is(stored.Refusal, bus.ErrResultsFull) {
		t.Errorf("a body above the limit: got %+v, %v; want it stored without its body", stored, err)
	}
	_, err = in.StoreResult(soon(t), success("first", make([]byte, 3<<19)))
	must(t, err)
	_, err = in.StoreResult(soon(t), success("second", make([]byte, 3<<19)))
	isError(t, err, bus.ErrNoStorage)
	isError(t, err, bus.ErrResultsFull)
	in.server.Reload(limited("1GB"))
	if stored, err = in.StoreResult(soon(t), success("second", make([]byte, 3<<19))); err != nil || !stored.Won || len(stored.Omitted) > 0 {
		t.Errorf("with room again: got %+v, %v; want it stored", stored, err)
	}
}

func TestABodyWaitsForRoomInAStreamThatSomebodyHasClosedForAWhile(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{ResultsMaxBytes: 1000})
	stored, err := in.StoreResult(soon(t), success("a", make([]byte, 2000)))
	if !errors.Is(err, bus.ErrResultsFull) {
		t.Errorf("got %+v, %v; want it to wait for room", stored, err)
	}
}

// TestAnInlineBodyThatNeverFitsGoesToTheObjectStore bounds the results alone, below the size of a body that a message carries.
func TestAnInlineBodyThatNeverFitsGoesToTheObjectStore(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{ResultsMaxBytes: 200 << 10})
	body := bytes.Repeat([]byte("b"), 200<<10)
	r := success("a", body)
	stored, err := in.StoreResult(soon(t), r)
	if err != nil || !stored.Won || len(stored.Omitted) > 0 || r.Object == "" {
		t.Fatalf("got %+v in object %q, %v; want all of it stored", stored, r.Object, err)
	}
	reader, err := in.client.Body(soon(t), *r)
	must(t, err)
	if got, err := io.ReadAll(reader); err != nil || !bytes.Equal(got, body) {
		t.Errorf("got %d bytes, %v; want the body", len(got), err)
	}
}

// limit bounds the messages of a stream, as an owner may do.
func limit(t *testing.T, in *installation, stream string, size int32) {
	t.Helper()
	s, err := in.js.Stream(soon(t), stream)
	must(t, err)
	config := s.CachedInfo().Config
	config.MaxMsgSize = size
	_, err = in.js.UpdateStream(soon(t), config)
	must(t, err)
}

// TestTheMessageOfAResultIsBuiltOnce changes a result between two tries, which shows in a message that is built again.
func TestTheMessageOfAResultIsBuiltOnce(t *testing.T) {
	t.Parallel()
	var tries, late atomic.Int32
	client := refusing(t, func(msg *nats.Msg) *server.ApiError {
		if msg.Header.Get("Http-Late") != "" {
			late.Add(1)
		}
		if tries.Add(1) == 1 {
			return server.ApiErrors[server.JSClusterNotAvailErr]
		}
		return nil
	})
	r := success("a", nil)
	r.Header = map[string][]string{"X": {"y"}}
	p := client.Pending(r)
	if _, err := p.Store(soon(t)); err == nil {
		t.Error("the first try is stored, want it refused")
	}
	r.Header["Late"] = []string{"z"}
	stored, err := p.Store(soon(t))
	if err != nil || !stored.Won || tries.Load() != 2 || late.Load() != 0 {
		t.Errorf("got %+v, %v after %d tries, %d of them built later; want the first message again", stored, err, tries.Load(), late.Load())
	}
}

// TestAResultGoesThroughAServerThatTakesSmallerMessagesNow lowers max_payload below what a worker needs to start.
func TestAResultGoesThroughAServerThatTakesSmallerMessagesNow(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.server.Reload(func(o *server.Options) { o.MaxPayload = 100 << 10 })
	must(t, in.nc.ForceReconnect())
	connecting := soon(t)
	for in.nc.MaxPayload() != 100<<10 { // until it is connected again
		must(t, connecting.Err())
		_ = in.nc.FlushTimeout(time.Second)
	}
	body := bytes.Repeat([]byte("b"), 300<<10)
	r := success("a", body)
	r.Header = map[string][]string{"X": {"y"}}
	stored, err := in.StoreResult(soon(t), r)
	if err != nil || !stored.Won || len(stored.Omitted) > 0 {
		t.Fatalf("got %+v, %v; want all of it stored", stored, err)
	}
	reader, err := in.client.Body(soon(t), *r)
	must(t, err)
	if got, err := io.ReadAll(reader); err != nil || !bytes.Equal(got, body) {
		t.Errorf("got %d bytes, %v; want the body", len(got), err)
	}
}
