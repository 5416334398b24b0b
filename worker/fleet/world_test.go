package fleet_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/fleet"
)

// installation is a server with the installation's buckets.
type installation struct {
	*testing.T
	nats  *testenv.NATS
	names jobs.Names
	kv    jetstream.KeyValue
}

func newFleet(t *testing.T) *installation {
	t.Helper()
	f := &installation{T: t, nats: testenv.StartNATS(t, nil)}
	var err error
	if f.names, err = jobs.NewNames(""); err != nil {
		t.Fatal(err)
	}
	client, err := bus.New(f.nats.Connect(), f.names)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	if f.kv, err = client.JetStream().KeyValue(t.Context(), f.names.Bucket("breakers")); err != nil {
		t.Fatal(err)
	}
	return f
}

// member is a worker as far as breakers go.
type member struct {
	*fleet.Breakers
	t    *testing.T
	pool *rotation.Pool
	log  *testenv.Log
}

const (
	openTime = 30 * time.Second
	slack    = 10 * time.Second
	longest  = time.Minute
)

// newMember makes a worker whose pool has the proxies p0, p1, …; its breakers open at the first failure.
func newMember(t *testing.T, name string, proxies int) *member {
	t.Helper()
	m := &member{t: t, log: new(testenv.Log)}
	m.pool = rotation.New(rotation.Config{Breaker: breaker.Config{FailureThreshold: 1, OpenTimeout: openTime, Jitter: -1}})
	m.list(proxies)
	m.Breakers = fleet.NewBreakers(fleet.BreakersConfig{
		Pool: m.pool, Worker: name, Slack: slack, MaxDuration: longest, Log: slog.New(slog.NewTextHandler(m.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	return m
}

// list makes the pool of that many proxies. The last one has delivered something.
func (m *member) list(proxies int) {
	m.t.Helper()
	var lines strings.Builder
	for i := range proxies {
		fmt.Fprintf(&lines, "http://192.0.2.1:%d id=p%d\n", 1000+i, i)
	}
	list, err := proxylist.ParseList(strings.NewReader(lines.String()))
	if err != nil {
		m.t.Fatal(err)
	}
	m.pool.Replace(list)
	if proxies > 0 {
		m.settle(fmt.Sprint("p", proxies-1), rotation.Relayed)
	}
}

// settle makes an attempt through a proxy.
func (m *member) settle(id string, kind rotation.Kind) []rotation.Event {
	m.t.Helper()
	l, events, err := m.pool.Pick(rotation.Need{ID: id})
	if err != nil {
		m.t.Fatal(err)
	}
	return append(events, l.Report(rotation.Verdict{Kind: kind, Reason: "refused"})...)
}

// join makes a worker and runs its breakers until the test ends.
func (f *installation) join(name string, proxies int) *member {
	f.Helper()
	m := newMember(f.T, name, proxies)
	f.run(m)
	return m
}

// run returns what ends the worker.
func (f *installation) run(m *member) (end func()) {
	f.Helper()
	js, err := jetstream.New(f.nats.Connect())
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { m.Run(ctx, js, f.names) })
	end = func() { cancel(); running.Wait() }
	f.Cleanup(end)
	return end
}

// attempt makes one through a proxy and tells the fleet what changed.
func (m *member) attempt(id string, kind rotation.Kind) {
	m.t.Helper()
	for _, e := range m.settle(id, kind) {
		m.ShareChange(e)
	}
}

func (m *member) status(id string) rotation.Status {
	m.t.Helper()
	s, found := m.pool.StatusOf(id)
	if !found {
		m.t.Fatalf("no proxy %s", id)
	}
	return s
}

func (m *member) avoids(id string) bool { return !m.status(id).AvoidedUntil.IsZero() }

// avoided is which proxies the worker avoids.
func (m *member) avoided() (ids []string) {
	for _, s := range m.pool.Status() {
		if !s.AvoidedUntil.IsZero() {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// tell writes a finding as another worker would.
func (f *installation) tell(proxy string, what fleet.Finding) {
	f.Helper()
	data, err := json.Marshal(what)
	if err != nil {
		f.Fatal(err)
	}
	f.put(proxy, data)
}

func (f *installation) put(proxy string, data []byte) {
	f.Helper()
	if _, err := f.kv.Put(f.Context(), proxy, data); err != nil {
		f.Fatal(err)
	}
}

func finding(worker string, d time.Duration) fleet.Finding {
	return fleet.Finding{Worker: worker, Duration: jobs.Duration(d)}
}
