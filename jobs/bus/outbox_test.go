package bus_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

func TestMessagesThatAreSentSoonKeepTheOrderOfTheirSender(t *testing.T) {
	t.Parallel()
	in := bare(t)
	const senders, each = 20, 200
	sub, err := in.Conn().SubscribeSync("order")
	must(t, err)
	var sending sync.WaitGroup
	for sender := range senders {
		sending.Go(func() {
			for n := range each {
				in.SendSoon(nats.Msg{Subject: "order", Data: []byte{byte(sender), byte(n)}}, 0, failing(func(_ uint64, err error) { t.Error(err) }))
			}
		})
	}
	sending.Wait()
	var next [senders]byte
	for range senders * each {
		msg, err := sub.NextMsgWithContext(soon(t))
		must(t, err)
		if sender, n := msg.Data[0], msg.Data[1]; n != next[sender] {
			t.Fatalf("sender %d: got message %d, want %d", sender, n, next[sender])
		}
		next[msg.Data[0]]++
	}
}

func TestAMessageThatTheConnectionRefusesFailsWithItsToken(t *testing.T) {
	t.Parallel()
	in := bare(t)
	in.Conn().Close()
	type failure struct {
		token uint64
		err   error
	}
	failed := make(chan failure, 2)
	for token := range uint64(2) {
		in.SendSoon(nats.Msg{Subject: "refused"}, token, failing(func(token uint64, err error) { failed <- failure{token, err} }))
	}
	for token := range uint64(2) {
		select {
		case got := <-failed:
			if got.token != token || !errors.Is(got.err, nats.ErrConnectionClosed) {
				t.Errorf("got token %d and error %v, want token %d and %v", got.token, got.err, token, nats.ErrConnectionClosed)
			}
		case <-soon(t).Done():
			t.Fatal("no failure is reported")
		}
	}
}

// failing is a sender that wants each message to be sent.
type failing func(token uint64, err error)

func (failing) Wants(uint64) bool              { return true }
func (f failing) Fail(token uint64, err error) { f(token, err) }

// TestAPublishThatIsTriedAgainIsSentOnce has a connection that takes no bytes, and a publish that gives up and begins again many
// times meanwhile. The race detector sees to it that no attempt changes what another one sends.
func TestAPublishThatIsTriedAgainIsSentOnce(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	dialer := &countingDialer{}
	nc, err := nats.Connect(in.server.URL(), nats.SetCustomDialer(dialer))
	must(t, err)
	t.Cleanup(nc.Close)
	client, err := bus.New(nc, in.names)
	must(t, err)
	must(t, client.PublishOnce(soon(t), &nats.Msg{Subject: in.names.ResultIngress("default", "first"), Header: nats.Header{}}))
	before := dialer.publishes.Load()
	open := dialer.block()
	const results, tries = 10, 20
	var publishing, tried sync.WaitGroup
	for i := range results {
		tried.Add(1)
		publishing.Go(func() {
			// More than the connection buffers, so that the outbox has to wait.
			msg := &nats.Msg{Subject: in.names.ResultIngress("default", fmt.Sprint("r", i)), Header: nats.Header{}, Data: make([]byte, 64<<10)}
			for range tries {
				short, cancel := context.WithTimeout(soon(t), time.Millisecond)
				if err := client.PublishOnce(short, msg); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("publish %d on a connection that takes nothing: got %v", i, err)
				}
				cancel()
			}
			tried.Done()
			if err := client.PublishOnce(soon(t), msg); err != nil && !bus.IsTaken(err) {
				t.Errorf("publish %d: %v", i, err)
			}
		})
	}
	tried.Wait()
	open()
	publishing.Wait()
	if got := dialer.publishes.Load() - before; got > 3*results {
		t.Errorf("messages sent for %d results, each tried %d times: got %d, want at most %d", results, tries, got, 3*results)
	}
}

func TestAGuardedPublishOnAClosedConnectionFailsAtOnce(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	must(t, in.PublishOnce(soon(t), &nats.Msg{Subject: in.names.ResultIngress("default", "a"), Header: nats.Header{}}))
	in.Conn().Close()
	isError(t, in.PublishOnce(soon(t), &nats.Msg{Subject: in.names.ResultIngress("default", "b"), Header: nats.Header{}}), nats.ErrConnectionClosed)
}

// BenchmarkSending has 64 goroutines that each send a message and wait until it has come back, as runs do that store a result.
// It counts the writes of the connection beside those of plain publishes.
func BenchmarkSending(b *testing.B) {
	send := map[string]func(*bus.Client, nats.Msg) error{
		"publish": func(c *bus.Client, msg nats.Msg) error { return c.Conn().PublishMsg(&msg) },
		"soon": func(c *bus.Client, msg nats.Msg) error {
			c.SendSoon(msg, 0, failing(func(_ uint64, err error) { b.Error(err) }))
			return nil
		},
	}
	for _, name := range []string{"publish", "soon"} {
		b.Run(name, func(b *testing.B) {
			dialer := &countingDialer{}
			nc, err := nats.Connect(testenv.StartNATS(b, nil).URL(), nats.SetCustomDialer(dialer))
			if err != nil {
				b.Fatal(err)
			}
			defer nc.Close()
			client, err := bus.New(nc, jobs.Names{})
			if err != nil {
				b.Fatal(err)
			}
			echo(b, client, dialer, send[name])
		})
	}
}

// echo sends b.N messages.
func echo(b *testing.B, client *bus.Client, dialer *countingDialer, send func(*bus.Client, nats.Msg) error) {
	b.Helper()
	const senders = 64
	var back [senders]chan struct{}
	for i := range back {
		back[i] = make(chan struct{}, 1)
	}
	if _, err := client.Conn().Subscribe("echo", func(msg *nats.Msg) { back[binary.BigEndian.Uint16(msg.Data)] <- struct{}{} }); err != nil {
		b.Fatal(err)
	}
	var left atomic.Int64
	left.Store(int64(b.N))
	before := dialer.writes.Load()
	var sending sync.WaitGroup
	for i := range senders {
		sending.Go(func() {
			for left.Add(-1) >= 0 {
				if err := send(client, nats.Msg{Subject: "echo", Data: binary.BigEndian.AppendUint16(nil, uint16(i))}); err != nil {
					b.Error(err)
					return
				}
				<-back[i]
			}
		})
	}
	sending.Wait()
	b.ReportMetric(float64(dialer.writes.Load()-before)/float64(b.N), "writes/op")
}

// countingDialer counts the writes of the connections that it opens, and the messages with headers in them. Writes wait while it
// is blocked.
type countingDialer struct {
	writes, publishes atomic.Int64
	gate              sync.RWMutex // held for writing while it is blocked
}

// Dial opens a connection.
func (d *countingDialer) Dial(network, address string) (net.Conn, error) {
	conn, err := net.DialTimeout(network, address, 10*time.Second)
	return countingConn{conn, d}, err
}

// block lets writes wait until open is called.
func (d *countingDialer) block() (open func()) {
	d.gate.Lock()
	return d.gate.Unlock
}

type countingConn struct {
	net.Conn
	dialer *countingDialer
}

// Write counts one write.
func (c countingConn) Write(p []byte) (int, error) {
	c.dialer.gate.RLock()
	defer c.dialer.gate.RUnlock()
	c.dialer.writes.Add(1)
	c.dialer.publishes.Add(int64(bytes.Count(p, []byte("HPUB "))))
	return c.Conn.Write(p)
}
