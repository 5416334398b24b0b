package bus_test

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// onCluster is an installation on a cluster of three.
func onCluster(t *testing.T, s bus.Settings) (*installation, *testenv.Killable) {
	t.Helper()
	c := testenv.StartKillable(t)
	in := &installation{nc: c.Connect(), names: names(t)}
	var err error
	in.js, err = jetstream.New(in.nc)
	must(t, err)
	in.Client, err = bus.New(in.nc, in.names)
	must(t, err)
	must(t, in.Ensure(soon(t), s))
	return in, c
}

func TestWaitingJobsOutliveAChangeOfReplicas(t *testing.T) {
	testenv.Long(t)
	t.Parallel()
	in, _ := onCluster(t, bus.Settings{})
	const n = 20
	at := time.Now().Add(3 * time.Second)
	for i := range n {
		in.park(t, fmt.Sprint("j", i), at)
	}
	for _, replicas := range []int{3, 1, 3} {
		done, err := in.Apply(soon(t), bus.Settings{Replicas: replicas})
		if err != nil || len(done) == 0 {
			t.Fatalf("to %d replicas: got %v, %v", replicas, done, err)
		}
	}
	consumer, err := in.EnsureJobConsumer(soon(t), "default", true)
	must(t, err)
	for range n {
		msg, err := consumer.Next(jetstream.FetchMaxWait(testenv.Patience))
		must(t, err)
		if meta, err := msg.Metadata(); err != nil || meta.Timestamp.Before(at) {
			t.Errorf("%s was due at %s, before %s", msg.Subject(), meta.Timestamp, at)
		}
		must(t, msg.DoubleAck(soon(t)))
	}
}

func TestSetupAsksAgainWhenAClusterDoesNotAnswer(t *testing.T) {
	t.Parallel()
	for _, subject := range []string{
		"STREAM.INFO.GOFER_RETRIES", "STREAM.UPDATE.GOFER_RESULTS", "CONSUMER.INFO.GOFER_RETRIES.due-default", "CONSUMER.CREATE.GOFER_JOBS.worker-default.>",
	} {
		t.Run(subject, func(t *testing.T) {
			t.Parallel()
			in := install(t, bus.Settings{ResultsMaxAge: time.Hour, AckWait: time.Second})
			in.server.Swallow("$JS.API." + subject)
			_, err := in.Apply(soon(t), bus.Settings{})
			must(t, err)
			left, err := in.Plan(soon(t), bus.Settings{})
			must(t, err)
			if len(left) != 0 {
				t.Errorf("got %v left after Apply, want nothing", left)
			}
		})
	}
}

// pretends connects to servers that claim another version than theirs.
type pretends struct{ inInfo, inMetadata string }

func (p pretends) Dial(network, address string) (net.Conn, error) {
	conn, err := net.Dial(network, address)
	return &pretending{Conn: conn, pretends: p}, err
}

type pretending struct {
	net.Conn
	pretends
	ready []byte // read and changed already
}

// Read changes what one read of the connection brings. A name in it is never split: the server sends each message whole.
func (c *pretending) Read(b []byte) (int, error) {
	if len(c.ready) == 0 {
		chunk := make([]byte, len(b))
		n, err := c.Conn.Read(chunk)
		if err != nil {
			return 0, err
		}
		c.ready = bytes.ReplaceAll(chunk[:n], []byte(`"version":"`+server.VERSION), []byte(`"version":"`+c.inInfo))
		// Both texts are as long.
		c.ready = bytes.ReplaceAll(c.ready, []byte(`"_nats.ver":"`+server.VERSION), []byte(`"_nats.ver":"`+c.inMetadata))
	}
	n := copy(b, c.ready)
	c.ready = c.ready[n:]
	return n, nil
}

// through is the same installation, seen through a connection with options.
func (in *installation) through(t *testing.T, url string, opts ...nats.Option) *installation {
	t.Helper()
	nc, err := nats.Connect(url, opts...)
	must(t, err)
	t.Cleanup(nc.Close)
	out := &installation{nc: nc, names: in.names, server: in.server}
	out.Client, err = bus.New(nc, in.names)
	must(t, err)
	out.client = client.New(out.Client)
	return out
}

func TestReplicasOfWaitingJobsMayChangeOnServersThatKeepTheirTimers(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	refused := func(p pretends) bool {
		seen := in.through(t, in.server.URL(), nats.SetCustomDialer(p))
		plan, err := seen.Plan(soon(t), bus.Settings{Replicas: 3})
		must(t, err)
		i := slices.IndexFunc(plan, func(d bus.Difference) bool {
			return d.Name == "stream GOFER_RETRIES" && d.Field == "num_replicas"
		})
		return strings.Contains(plan[i].Refused, "forgets the times") // a single server refuses more replicas anyway
	}
	if refused(pretends{"2.12.0", server.VERSION}) {
		t.Error("refused without a waiting job")
	}
	in.park(t, "a", time.Now().Add(time.Hour))
	for version, want := range map[string]bool{
		"2.12.0": true, "2.13.99": true, "2.14.9": true, "2.14.10": false, "2.15.0": true, "2.15.2": true, "2.15.3": false, "2.15.3-RC.1": false,
		"2.15.30": false, "2.16.0": false, "3.0.0": false, "1.99.99": true, "": true, "edge": true,
	} {
		if got := refused(pretends{version, server.VERSION}); got != want {
			t.Errorf("connected to %q: got refused %t, want %t", version, got, want)
		}
	}
	if !refused(pretends{server.VERSION, "2.15.2"}) {
		t.Error("the leader is 2.15.2: got it not refused")
	}
}

func TestSetupDoesTheRestWhenItRefusesToChangeReplicas(t *testing.T) {
	testenv.Long(t)
	t.Parallel()
	in, c := onCluster(t, bus.Settings{})
	in.park(t, "a", time.Now().Add(time.Hour))
	old := in.through(t, c.URL(), nats.SetCustomDialer(pretends{"2.15.2", server.VERSION}))
	_, err := old.Apply(soon(t), bus.Settings{Replicas: 3})
	if err == nil || !strings.Contains(err.Error(), "2.15.2 forgets") || !strings.Contains(err.Error(), "GOFER_RETRIES") {
		t.Errorf("got %v, want it said which stream and why", err)
	}
	left, err := old.Plan(soon(t), bus.Settings{Replicas: 3})
	if err != nil || len(left) != 1 || left[0].Name != "stream GOFER_RETRIES" {
		t.Errorf("got %v left, %v; want the replicas of the waiting jobs alone", left, err)
	}
	must(t, in.RemoveScheduled(soon(t), "default", "a"))
	if done, err := old.Apply(soon(t), bus.Settings{Replicas: 3}); err != nil || len(done) != 1 {
		t.Errorf("without a waiting job: got %v, %v; want the replicas changed", done, err)
	}
}
