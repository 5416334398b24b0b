package bus_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

// read lists the data of the messages under a filter.
func (in *installation) read(tb testing.TB, filter string, from uint64) (out []string) {
	tb.Helper()
	must(tb, in.ReadFrom(soon(tb), "ROLLUPS", filter, from, func(m bus.Message) { out = append(out, string(m.Data)) }))
	return out
}

func TestNewestMessageIsReplacedOnlyByWhoKnowsIt(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	subject := in.names.Hour("2026010100", "totals", "a")
	replace := func(data string, last uint64) (uint64, error) {
		return in.Replace(soon(t), "ROLLUPS", subject, []byte(data), last, 0)
	}
	first, err := replace("1", 0)
	must(t, err)
	_, err = replace("1", 0)
	isError(t, err, bus.ErrReplaced)
	second, err := replace("2", first)
	must(t, err)
	_, err = replace("3", first)
	isError(t, err, bus.ErrReplaced)
	if got := in.read(t, subject, 1); !slices.Equal(got, []string{"2"}) {
		t.Errorf("got %v, want the newest message alone", got)
	}
	if got, err := in.LastSeq(soon(t), "ROLLUPS", subject); got != second || err != nil {
		t.Errorf("last sequence: got %d, %v; want %d", got, err, second)
	}
	in.restart()
	testenv.Eventually(t, "the second version to be stored", func() bool { _, err = replace("4", second); return err == nil })
	stream, err := in.js.Stream(soon(t), "GOFER_ROLLUPS")
	must(t, err)
	must(t, stream.Purge(soon(t)))
	_, err = replace("5", second+1)
	isError(t, err, bus.ErrReplaced)
	if got, err := in.LastSeq(soon(t), "ROLLUPS", subject); got != 0 || err != nil {
		t.Errorf("last sequence after a purge: got %d, %v; want none", got, err)
	}
	must(t, in.js.DeleteStream(soon(t), "GOFER_ROLLUPS"))
	_, err = replace("6", 0)
	isError(t, err, bus.ErrNotSetUp)
}

func TestMessageIsKeptAsLongAsAsked(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	short, long := in.names.Hour("2026010100", "proxies", "a"), in.names.Hour("2026010100", "totals", "a")
	for subject, keep := range map[string]time.Duration{short: time.Second, long: 0} {
		_, err := in.Replace(soon(t), "ROLLUPS", subject, []byte(subject), 0, keep)
		must(t, err)
	}
	testenv.Eventually(t, "the last version", func() bool { return slices.Equal(in.read(t, in.names.AllHours(), 1), []string{long}) })
}

func TestMessagesAreReadInBatches(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	const messages = 2500
	var acks []jetstream.PubAckFuture
	for i := range messages {
		ack, err := in.js.PublishAsync(in.names.Hour("2026010100", "totals", fmt.Sprint(i)), fmt.Append(nil, i))
		must(t, err)
		acks = append(acks, ack)
	}
	<-in.js.PublishAsyncComplete()
	for _, ack := range acks {
		if len(ack.Err()) > 0 {
			t.Fatal(<-ack.Err())
		}
	}
	filter := in.names.Hour("2026010100", "totals", "*")
	for _, from := range []uint64{0, 1, 2, 1000, 2001, messages, messages + 1} {
		want := messages - int(max(1, from)) + 1
		got := in.read(t, filter, from)
		if len(got) != want || want > 0 && (got[0] != fmt.Sprint(max(1, from)-1) || got[want-1] != fmt.Sprint(messages-1)) {
			t.Errorf("from %d: got %d messages, want %d in their order", from, len(got), want)
		}
		if n, err := in.CountFrom(soon(t), "ROLLUPS", filter, from); n != uint64(want) || err != nil {
			t.Errorf("count from %d: got %d, %v; want %d", from, n, err, want)
		}
	}
	if got := in.read(t, in.names.Hour("2026010101", "totals", "*"), 1); len(got) != 0 {
		t.Errorf("of another hour: got %v, want nothing", got)
	}
}

func TestReadingEndsWithoutAConnection(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.server.Stop()
	testenv.Eventually(t, "the end of the connection", func() bool { return !in.nc.IsConnected() })
	// An answer has five seconds. A busy machine may be late, but not each time.
	testenv.Eventually(t, "a read that waits for no answer that cannot come", func() bool {
		began := time.Now()
		isError(t, in.ReadFrom(context.Background(), "ROLLUPS", in.names.AllHours(), 1, func(bus.Message) {}), nats.ErrDisconnected)
		return time.Since(began) < 4*time.Second
	})
}

// TestCountersOfAnOlderVersionStay has the stream that workers of an older version add to, under the same name. It takes no part,
// and its owner has to remove it.
func TestCountersOfAnOlderVersionStay(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	must(t, in.js.DeleteStream(soon(t), "GOFER_ROLLUPS"))
	_, err := in.js.CreateStream(soon(t), jetstream.StreamConfig{
		Name: "GOFER_ROLLUPS", Subjects: []string{"_gofer.rollups.>"}, AllowMsgCounter: true, AllowAtomicPublish: true, AllowDirect: true, MaxMsgsPerSubject: 2,
	})
	must(t, err)
	must(t, in.Ensure(soon(t), bus.Settings{}))
	differences, err := in.Apply(soon(t), bus.Settings{})
	if err == nil || !strings.Contains(err.Error()+lines(differences), "allow_msg_counter") {
		t.Errorf("setup: got %v, %v; want the counters named", differences, err)
	}
	msg := nats.NewMsg("_gofer.rollups.hour.2026010100.attempts")
	msg.Header.Set("Nats-Incr", "+5")
	ack, err := in.js.PublishMsg(soon(t), msg)
	if err != nil || ack.Value != "5" {
		t.Errorf("an older worker: got %+v, %v; want its count", ack, err)
	}
	if _, err = in.Replace(soon(t), "ROLLUPS", in.names.Hour("2026010100", "totals", "a"), nil, 0, 0); err == nil {
		t.Error("a part went into a stream of counters")
	}
}

// TestWorkerStartsWithoutTheRightToTheHours has the rights of an older version, which did not know the stream.
func TestWorkerStartsWithoutTheRightToTheHours(t *testing.T) {
	t.Parallel()
	s := testenv.StartNATS(t, func(o *server.Options) {
		o.Users = []*server.User{{
			Username: "worker", Password: "p",
			Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.API.STREAM.CREATE.GOFER_ROLLUPS", "_gofer.rollups.>"}}},
		}}
	})
	worker := on(t, s, bus.Dial{User: "worker", Password: "p"})
	must(t, worker.Ensure(soon(t), bus.Settings{}))
	streams, err := worker.InspectStreams(soon(t), bus.Settings{})
	must(t, err)
	if got := lines(streams.Differences); got != "stream GOFER_ROLLUPS is missing" {
		t.Errorf("got %q, want the missing stream named", got)
	}
	_, err = worker.Replace(soon(t), "ROLLUPS", worker.names.Hour("2026010100", "totals", "a"), nil, 0, 0)
	isError(t, err, bus.ErrPermission)
}
