package totals_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/rollup"
	"github.com/gofer-mq/gofer/worker/totals"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// crew is some workers on a real server.
type crew struct {
	*testing.T
	client *bus.Client
	books  []*rollup.Book
	fleets []*totals.Totals
	log    *testenv.Log
	most   int64         // what all of them have counted
	stored chan struct{} // a worker has stored its counts
	end    func()
}

func newCrew(t *testing.T, settings bus.Settings, connect func() *nats.Conn) *crew {
	t.Helper()
	names, err := jobs.NewNames("")
	if err != nil {
		t.Fatal(err)
	}
	c := &crew{T: t, log: new(testenv.Log), stored: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	c.end = func() { cancel(); running.Wait() }
	t.Cleanup(c.end)
	for range 3 {
		client, err := bus.New(connect(), names)
		if err == nil {
			err = client.Ensure(t.Context(), settings)
		}
		if err != nil {
			t.Fatal(err)
		}
		book := rollup.NewBook()
		fleet := totals.New(totals.Config{Book: book, Flushed: c.flushed, Log: slog.New(slog.NewTextHandler(c.log, nil))})
		running.Go(func() { fleet.Run(ctx, context.WithoutCancel(ctx), client) })
		c.client, c.books, c.fleets = client, append(c.books, book), append(c.fleets, fleet)
	}
	return c
}

// flushed is called by each worker after each flush.
func (c *crew) flushed(ok bool) {
	if !ok {
		return
	}
	select {
	case c.stored <- struct{}{}:
	default:
	}
}

// count counts a job and an attempt on each worker, and returns how many jobs that are.
func (c *crew) count() int64 {
	for i, b := range c.books {
		b.AddJob(rollup.JobFact{Outcome: jobs.Succeeded, Attempts: 1})
		b.AddAttempt(rollup.AttemptFact{Proxy: fmt.Sprint("p", i), Status: 200, Bytes: 7})
	}
	return int64(len(c.books))
}

// countWhileStoring counts until a worker has stored, and once more while the others store. It returns how many jobs it counted.
func (c *crew) countWhileStoring() int64 {
	c.Helper()
	select {
	case <-c.stored:
	default:
	}
	n := c.count()
	select {
	case <-c.stored:
	case <-time.After(testenv.Patience):
		c.Fatal("no worker has stored its counts")
	}
	return n + c.count()
}

// expect waits until each worker's book of the fleet has so many jobs and attempts.
func (c *crew) expect(when string, want int64) {
	c.Helper()
	for _, f := range c.fleets {
		testenv.Eventually(c.T, fmt.Sprint(want, " jobs ", when), func() bool {
			book, known := f.FleetByProxy(c.Context())
			total, attempts := book.Total(2), int64(0)
			for _, p := range book.ByProxy(2) {
				attempts += p.TotalAttempts
			}
			if c.most = max(c.most, want); total.Jobs() > c.most || attempts > c.most {
				c.Fatalf("%s: got %d jobs and %d attempts by proxy, want never more than %d", when, total.Jobs(), attempts, c.most)
			}
			return known && total.Jobs() == want && attempts == want
		})
	}
}

// TestRestartsOfTheServerLoseNothing restarts the server while workers store, and purges the stream in the end.
func TestRestartsOfTheServerLoseNothing(t *testing.T) {
	testenv.Long(t)
	t.Parallel()
	server := testenv.StartNATS(t, nil)
	c := newCrew(t, bus.Settings{}, server.Connect)
	n := int64(0)
	for range 3 {
		n += c.countWhileStoring()
		server.Stop()
		n += c.count()
		server.Start()
	}
	c.expect("after three restarts", n)
	js := c.client.JetStream()
	stream, err := js.Stream(t.Context(), "GOFER_ROLLUPS")
	if err == nil {
		err = stream.Purge(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	c.count()
	c.expect("after a purge", 3)
	if err := js.DeleteStream(t.Context(), "GOFER_ROLLUPS"); err != nil {
		t.Fatal(err)
	}
	if err := c.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	c.count()
	c.expect("in a new stream", 3)
}

// TestKilledServersLoseNothing kills one server of three after the other with SIGKILL while workers store.
func TestKilledServersLoseNothing(t *testing.T) {
	testenv.Long(t)
	t.Parallel()
	cluster := testenv.StartKillable(t)
	c := newCrew(t, bus.Settings{Replicas: 3}, cluster.Connect)
	n := int64(0)
	for i := range 3 {
		n += c.countWhileStoring()
		cluster.Kill(i)
		n += c.countWhileStoring()
		cluster.Start(i)
		cluster.Ready()
	}
	c.expect("after each server was killed", n)
}
