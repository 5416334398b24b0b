package bus_test

import (
	"context"
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
)

func TestEnsureLeavesNothingToPlan(t *testing.T) {
	t.Parallel()
	s := bus.Settings{Queues: []string{"critical", "low"}, ResultsMaxBytes: 1 << 30, JobsMaxMsgs: 1000}
	in := install(t, s)
	got, err := in.Plan(soon(t), s)
	must(t, err)
	if len(got) != 0 {
		t.Errorf("got differences %v, want none", got)
	}
}

func TestManyWorkersMayEnsureAtOnce(t *testing.T) {
	t.Parallel()
	in := bare(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := in.Ensure(soon(t), bus.Settings{Queues: []string{"a", "b"}}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	must(t, in.Ensure(soon(t), bus.Settings{Queues: []string{"a", "b"}}))
}

func TestEnsureLeavesWhatIsThereAlone(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{ResultsMaxAge: time.Hour, AckWait: time.Second})
	must(t, in.Ensure(soon(t), bus.Settings{ResultsMaxAge: 2 * time.Hour}))
	stream, err := in.js.Stream(soon(t), "GOFER_RESULTS")
	must(t, err)
	if got := stream.CachedInfo().Config.MaxAge; got != time.Hour {
		t.Errorf("got max age %s, want the hour that it was made with", got)
	}
	consumer, err := in.EnsureJobConsumer(soon(t), "default", false)
	must(t, err)
	if got := consumer.CachedInfo().Config.AckWait; got != time.Second {
		t.Errorf("got ack wait %s, want the second that it was made with", got)
	}
}

func TestPlanSaysInWordsWhatApplyChanges(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{ResultsMaxAge: time.Hour})
	must(t, in.js.DeleteStream(soon(t), "GOFER_DEAD"))
	want := "stream GOFER_RESULTS: max_age is 1h0m0s, 24h0m0s is wanted\n" +
		"stream GOFER_DEAD is missing\n" +
		"stream OBJ_gofer-bodies: max_age is 2h0m0s, 25h0m0s is wanted\n" +
		"consumer reader of stream GOFER_DEAD is missing"
	planned, err := in.Plan(soon(t), bus.Settings{})
	must(t, err)
	if got := lines(planned); got != want {
		t.Errorf("got plan\n%s\nwant\n%s", got, want)
	}
	applied, err := in.Apply(soon(t), bus.Settings{})
	must(t, err)
	// A stream that Apply makes is there when its consumer is looked for.
	if got := lines(applied); got != want {
		t.Errorf("applied\n%s\nwant\n%s", got, want)
	}
	left, err := in.Plan(soon(t), bus.Settings{})
	must(t, err)
	if len(left) != 0 {
		t.Errorf("got %v left after Apply, want nothing", left)
	}
}

func TestApplyShortensTheDuplicateWindowOfAnExistingStream(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	stream, err := in.js.Stream(soon(t), "GOFER_JOBS")
	must(t, err)
	config := stream.CachedInfo().Config
	if config.Duplicates != 100*time.Millisecond {
		t.Errorf("a new stream has a window of %s, want 100ms", config.Duplicates)
	}
	config.Duplicates = 2 * time.Minute
	_, err = in.js.UpdateStream(soon(t), config)
	must(t, err)
	applied, err := in.Apply(soon(t), bus.Settings{})
	must(t, err)
	if got, want := lines(applied), "stream GOFER_JOBS: duplicate_window is 2m0s, 100ms is wanted"; got != want {
		t.Errorf("applied %q, want %q", got, want)
	}
}

func lines(differences []bus.Difference) string {
	var out []string
	for _, d := range differences {
		out = append(out, d.String())
	}
	return strings.Join(out, "\n")
}

func TestApplyKeepsSettingsThatAreTheOwners(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{ResultsMaxAge: time.Hour})
	stream, err := in.js.Stream(soon(t), "GOFER_RESULTS")
	must(t, err)
	config := stream.CachedInfo().Config
	config.Description = "ours"
	_, err = in.js.UpdateStream(soon(t), config)
	must(t, err)
	_, err = in.Apply(soon(t), bus.Settings{})
	must(t, err)
	stream, err = in.js.Stream(soon(t), "GOFER_RESULTS")
	must(t, err)
	if got := stream.CachedInfo().Config; got.Description != "ours" || got.MaxAge != 24*time.Hour {
		t.Errorf("got description %q and max age %s, want the owner's and gofer's", got.Description, got.MaxAge)
	}
}

func TestPlanOnAnEmptyServerNamesEverythingAsMissing(t *testing.T) {
	t.Parallel()
	got, err := bare(t).Plan(soon(t), bus.Settings{})
	must(t, err)
	if len(got) != 17 {
		t.Errorf("got %d differences, want 12 streams and 5 consumers", len(got))
	}
	for _, d := range got {
		if !strings.HasSuffix(d.String(), "is missing") {
			t.Errorf("got %q, want it to be missing", d)
		}
	}
}

func TestBucketsAreWhatOtherClientsExpect(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	for _, bucket := range []string{"gofer-proxies", "gofer-policy", "gofer-deny", "gofer-breakers", "gofer-sites"} {
		kv, err := in.js.KeyValue(soon(t), bucket)
		must(t, err)
		_, err = kv.Put(soon(t), "k", []byte("v"))
		must(t, err)
		must(t, kv.Purge(soon(t), "k"))
	}
	store, err := in.js.ObjectStore(soon(t), "gofer-bodies")
	must(t, err)
	_, err = store.PutString(soon(t), "name", "text")
	must(t, err)
	if got, err := store.GetString(soon(t), "name"); got != "text" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestADeletedConsumerIsCreatedAgain(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	must(t, in.js.DeleteConsumer(soon(t), "GOFER_JOBS", "worker-default"))
	consumer, err := in.EnsureJobConsumer(soon(t), "default", false)
	must(t, err)
	if got := consumer.CachedInfo().Config; got.AckWait != bus.AckWait || got.FilterSubject != "gofer.jobs.default.>" {
		t.Errorf("got ack wait %s and filter %s", got.AckWait, got.FilterSubject)
	}
}

func TestJetStreamSwitchedOffIsSaid(t *testing.T) {
	t.Parallel()
	in := on(t, testenv.StartNATS(t, func(o *server.Options) { o.JetStream = false }), bus.Dial{})
	err := in.Ensure(soon(t), bus.Settings{})
	isError(t, err, bus.ErrNoJetStream)
	isError(t, err, bus.ErrConfig)
	if !strings.Contains(err.Error(), "-js") {
		t.Errorf("got %q, want it to say what to do", err)
	}
}

// TestAnOldServerIsNamed speaks to a server that says of itself what 2.11 says.
func TestAnOldServerIsNamed(t *testing.T) {
	t.Parallel()
	in := on(t, testenv.StartNATS(t, func(o *server.Options) { o.JetStream = false }), bus.Dial{})
	_, err := in.nc.Subscribe("$JS.API.INFO", func(m *nats.Msg) {
		_ = m.Respond([]byte(`{"type":"io.nats.jetstream.api.v1.account_info_response","api":{"level":1}}`))
	})
	must(t, err)
	err = in.Ensure(soon(t), bus.Settings{})
	isError(t, err, bus.ErrServerTooOld)
	if want := "nats-server 2.12 or newer is needed, this one is " + server.VERSION; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

func TestWithoutStreamsEveryCallSaysSo(t *testing.T) {
	t.Parallel()
	in := bare(t)
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	_, submit := in.client.Submit(ctx, job("a"))
	_, result := in.Result(ctx, "default", "a")
	_, stored := in.StoreResult(ctx, success("a", nil))
	_, queues := in.client.Queues(ctx)
	follow := in.client.Follow(ctx, bus.Filter{}, func(jobs.Result) error { return nil })
	_, body := in.StoreResult(ctx, success("a", make([]byte, 600<<10)))
	for what, err := range map[string]error{"submit": submit, "result": result, "store": stored, "queues": queues, "follow": follow, "body": body} {
		if !strings.Contains(err.Error(), bus.ErrNotSetUp.Error()) {
			t.Errorf("%s: got %v, want %v", what, err, bus.ErrNotSetUp)
		}
	}
}

func TestStreamsHaveNoSilentLimits(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	for _, name := range []string{"GOFER_JOBS", "GOFER_RETRIES"} {
		stream, err := in.js.Stream(soon(t), name)
		must(t, err)
		c := stream.CachedInfo().Config
		if c.MaxAge != 0 || c.MaxMsgs != -1 || c.MaxBytes != -1 || c.AllowMsgTTL || c.Retention != jetstream.WorkQueuePolicy {
			t.Errorf("%s: got %+v, want a work queue without age, size or TTL", name, c)
		}
	}
}

func TestBucketsOfFindingsAreBoundedAndForget(t *testing.T) {
	t.Parallel()
	for _, bucket := range []string{"gofer-breakers", "gofer-sites"} {
		boundedAndForgets(t, install(t, bus.Settings{}), "KV_"+bucket)
	}
}

func boundedAndForgets(t *testing.T, in *installation, name string) {
	t.Helper()
	stream, err := in.js.Stream(soon(t), name)
	must(t, err)
	if c := stream.CachedInfo().Config; c.MaxBytes <= 0 || c.MaxAge <= 12*time.Minute || c.MaxMsgsPerSubject != 1 {
		t.Errorf("got %d bytes, age %s, %d a proxy; want a bound, an age above the longest open time, and one", c.MaxBytes, c.MaxAge, c.MaxMsgsPerSubject)
	}
	config := stream.CachedInfo().Config
	config.MaxBytes = -1
	_, err = in.js.UpdateStream(soon(t), config)
	must(t, err)
	planned, err := in.Plan(soon(t), bus.Settings{})
	must(t, err)
	if got, want := lines(planned), "stream "+name+": max_bytes is unlimited, 33554432 is wanted"; got != want {
		t.Errorf("got plan %q, want %q", got, want)
	}
}
