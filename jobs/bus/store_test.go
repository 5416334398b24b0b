package bus_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

func TestOfTwentyRacingResultsOneIsStoredAndSeen(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	var seen atomic.Int64
	sub, err := in.nc.Subscribe("gofer.>", func(*nats.Msg) { seen.Add(1) })
	must(t, err)
	for _, size := range []int{10, jobs.MaxInlineBody + 1} {
		id := fmt.Sprint("size", size)
		var won atomic.Int64
		var racing sync.WaitGroup
		for i := range 20 {
			racing.Go(func() {
				r := success(id, make([]byte, size))
				r.Worker = fmt.Sprint("w", i)
				stored, err := in.StoreResult(soon(t), r)
				switch {
				case err != nil:
					t.Error(err)
				case stored.Won:
					won.Add(1)
				case stored.Previous.Worker == "" || stored.Previous.Worker == r.Worker || stored.Previous.Body != nil:
					t.Errorf("%s lost to %+v", r.Worker, stored.Previous)
				}
			})
		}
		racing.Wait()
		if got := won.Load(); got != 1 {
			t.Errorf("%d bytes: %d results won, want 1", size, got)
		}
	}
	drained := make(chan struct{})
	sub.SetClosedHandler(func(string) { close(drained) })
	must(t, sub.Drain())
	<-drained
	if got := seen.Load(); got != 2 {
		t.Errorf("a plain subscriber saw %d results of 2 jobs", got)
	}
	if got := in.objects(t); got != 1 {
		t.Errorf("got %d objects, want that of the winner alone", got)
	}
}

func TestAResultStoredWithoutAnAnswerIsRecognised(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	for _, body := range [][]byte{[]byte("x"), make([]byte, jobs.MaxInlineBody+1)} {
		r := success(fmt.Sprint("b", len(body)), body)
		for range 2 {
			stored, err := in.StoreResult(soon(t), r)
			if err != nil || !stored.Won {
				t.Errorf("got %+v, %v; want that it won", stored, err)
			}
		}
	}
	if got := in.objects(t); got != 1 {
		t.Errorf("got %d objects, want 1", got)
	}
}

func TestTheStreamItselfTakesOneResultOfAJob(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.store(t, "a", nil)
	_, err := in.js.Publish(soon(t), in.names.ResultIngress("default", "a"), []byte("unguarded"))
	if err == nil {
		t.Error("a second result was stored without a guard")
	}
}

// TestTheLimitOfResultsThatIsReachedIsNamed: more bytes help nobody whose limit is a number.
func TestTheLimitOfResultsThatIsReachedIsNamed(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{ResultsMaxBytes: 1 << 20})
	stream, err := in.js.Stream(soon(t), "GOFER_RESULTS")
	must(t, err)
	config := stream.CachedInfo().Config
	config.MaxMsgs = 1
	_, err = in.js.UpdateStream(soon(t), config)
	must(t, err)
	in.store(t, "a", nil)
	_, err = in.StoreResult(soon(t), success("b", nil))
	isError(t, err, bus.ErrTooManyResults)
	isError(t, err, bus.ErrResultsFull)
	config.MaxMsgs, config.MaxBytes = -1, 4000
	_, err = in.js.UpdateStream(soon(t), config)
	must(t, err)
	in.store(t, "b", make([]byte, 2000))
	if _, err = in.StoreResult(soon(t), success("c", make([]byte, 2000))); !errors.Is(err, bus.ErrResultsFull) || errors.Is(err, bus.ErrTooManyResults) {
		t.Errorf("too many bytes: got %v, want ErrResultsFull alone", err)
	}
}

func TestNoRoomForResultsIsSaid(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{ResultsMaxBytes: 20 << 10})
	in.store(t, "a", make([]byte, 15<<10))
	r := success("b", make([]byte, 15<<10))
	_, err := in.StoreResult(soon(t), r)
	isError(t, err, bus.ErrResultsFull)
	stream, err := in.js.Stream(soon(t), "GOFER_RESULTS")
	must(t, err)
	must(t, stream.Purge(soon(t)))
	stored, err := in.StoreResult(soon(t), r)
	if err != nil || !stored.Won {
		t.Errorf("got %+v, %v once there was room", stored, err)
	}
}

func TestTheResultOfAJobWithADottedIDIsStored(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.store(t, "a.b", nil)
	for _, id := range []string{"*", "a.*", ">", "a..b", "a b", ""} {
		if _, err := in.StoreResult(soon(t), success(id, nil)); err == nil {
			t.Errorf("a result was stored under %q", id)
		}
	}
}

// Every value that a job may have comes back byte for byte, whoever reads the headers.
func TestMetaComesBackAsItWasGiven(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	meta := map[string]string{
		"empty": "", "case": "a", "CASE": "b", "colon": ": a: b:", "inner": "a  b", "quotes": `"a" 'b' \r\n`, "umlaut": "\u00fc", "wide": "\u00a0a\u2003",
		"lines": "\u2028a\u2029", "mark": "\ufeffa", "emoji": "\U0001f600", "comma": ",a,,b,", "-_9": "=?utf-8?q?a?=", "percent": "%0d%0aGofer-Outcome: failed",
		"long": strings.Repeat("m", 7000),
	}
	given := job("meta")
	given.Queue, given.Meta = "default", meta
	payload, err := given.Encode()
	must(t, err)
	arrived, err := jobs.Decode("default", "meta", payload)
	must(t, err)
	r := success("meta", nil)
	r.Meta = arrived.Meta
	_, err = in.StoreResult(soon(t), r)
	must(t, err)
	read, err := in.Result(soon(t), "default", "meta")
	must(t, err)
	if !maps.Equal(read.Meta, meta) {
		t.Errorf("got %q, want %q", read.Meta, meta)
	}
}

// objects counts what is in the object store.
func (in *installation) objects(t *testing.T) int {
	t.Helper()
	store, err := in.js.ObjectStore(soon(t), "gofer-bodies")
	must(t, err)
	list, err := store.List(soon(t))
	if errors.Is(err, jetstream.ErrNoObjectsFound) {
		return 0
	}
	must(t, err)
	return len(list)
}
