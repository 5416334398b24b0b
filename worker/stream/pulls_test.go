package stream_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/stream"
)

func (in *installation) openPulls(t *testing.T) *stream.Pulls {
	t.Helper()
	p, err := in.OpenPulls()
	must(t, err)
	t.Cleanup(p.Close)
	return p
}

// fromQueue asks the fresh jobs of a queue for n jobs.
func fromQueue(queue string, n int, wait time.Duration) stream.PullRequest {
	return stream.PullRequest{Stream: "GOFER_JOBS", Consumer: "worker-" + queue, Jobs: n, Wait: wait, Patience: testenv.Patience}
}

// pulled sends a pull request and returns what comes of it.
func pulled(t *testing.T, p *stream.Pulls, r stream.PullRequest) (got []*stream.Delivery, err error) {
	t.Helper()
	pull, err := p.Pull(r)
	must(t, err)
	for d := pull.Next(); d != nil; d = pull.Next() {
		got = append(got, d)
	}
	return got, pull.Err()
}

func (in *installation) publish(t *testing.T, msg *nats.Msg) {
	t.Helper()
	_, err := in.js.PublishMsg(soon(t), msg)
	must(t, err)
}

// serverWords are jobs that look like what a server says to a pull.
func serverWords() (all []*nats.Msg) {
	for i, status := range []string{"100", "400", "404", "408", "409", "412", "423", "503", "999", "x"} {
		all = append(all, &nats.Msg{
			Subject: fmt.Sprint("gofer.jobs.default.word", i),
			Header:  nats.Header{"Status": {status}, "Description": {"Consumer Deleted"}, "Nats-Pending-Messages": {"7"}},
		})
	}
	return all
}

func TestAJobThatLooksLikeAWordOfTheServerIsAJob(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	words := serverWords()
	var sequences []uint64
	for _, msg := range words {
		ack, err := in.js.PublishMsg(soon(t), msg)
		must(t, err)
		sequences = append(sequences, ack.Sequence)
	}
	p := in.openPulls(t)
	got, err := pulled(t, p, fromQueue("default", len(words), time.Minute))
	if err != nil || len(got) != len(words) {
		t.Fatalf("the pull brought %d of %d jobs and %v", len(got), len(words), err)
	}
	for i, d := range got {
		meta := d.Metadata()
		if d.Subject() != words[i].Subject || d.Headers().Get("Status") != words[i].Header.Get("Status") || len(d.Data()) != 0 ||
			meta.Sequence.Stream != sequences[i] || meta.NumDelivered != 1 {
			t.Errorf("job %d is %s with %v and %+v", i, d.Subject(), d.Headers(), meta)
		}
	}
}

func TestAPullEndsWhenTheServerHasNoMore(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	p := in.openPulls(t)
	for _, wait := range []time.Duration{0, 50 * time.Millisecond} {
		in.publish(t, &nats.Msg{Subject: "gofer.jobs.default.after" + wait.String(), Data: []byte("x")})
		testenv.AwaitCounts(t, in.js, "GOFER_JOBS") // a pull without a wait takes what the consumer knows
		began := time.Now()
		for _, want := range []int{1, 0} {
			got, err := pulled(t, p, fromQueue("default", 8, wait))
			if err != nil || len(got) != want {
				t.Errorf("a pull that waits %s brought %d jobs and %v, want %d", wait, len(got), err, want)
			}
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("the server's word that there is no more was not heard: it took %s", took)
		}
	}
}

// TestARefusedPullNamesTheReason has consumers that refuse a pull in different ways.
func TestARefusedPullNamesTheReason(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{Queues: []string{"bounded"}})
	consumer, err := in.js.Consumer(soon(t), "GOFER_JOBS", "worker-bounded")
	must(t, err)
	config := consumer.CachedInfo().Config
	config.MaxRequestBatch = 1
	_, err = in.js.UpdateConsumer(soon(t), "GOFER_JOBS", config)
	must(t, err)
	p := in.openPulls(t)
	if got, err := pulled(t, p, fromQueue("bounded", 2, 0)); len(got) != 0 || err == nil || err.Error() != "the server ended the pull: 409 Exceeded MaxRequestBatch of 1" {
		t.Errorf("a pull that is too large brought %d jobs and %v", len(got), err)
	}
	if got, err := pulled(t, p, fromQueue("missing", 2, 0)); len(got) != 0 || !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("a pull from a consumer that is not there brought %d jobs and %v", len(got), err)
	}
	pull, err := p.Pull(fromQueue("bounded", 1, time.Minute))
	must(t, err)
	testenv.Eventually(t, "the pull to wait", func() bool {
		info, err := in.JobConsumerInfo(soon(t), "bounded", false)
		return err == nil && info.Pulls == 1
	})
	must(t, in.js.DeleteConsumer(soon(t), "GOFER_JOBS", "worker-bounded"))
	if d := pull.Next(); d != nil || pull.Err() == nil || pull.Err().Error() != "the server ended the pull: 409 Consumer Deleted" {
		t.Errorf("a pull from a consumer that was deleted brought %v and %v", d, pull.Err())
	}
	in.Conn().Close()
	if _, err := p.Pull(fromQueue("bounded", 1, 0)); err == nil {
		t.Error("a pull is sent on a closed connection")
	}
}

func TestOneSubscriptionServesAllConsumers(t *testing.T) {
	t.Parallel()
	var queues []string
	for i := range 64 {
		queues = append(queues, fmt.Sprint("q", i))
	}
	in := install(t, bus.Settings{Queues: queues})
	_, err := in.js.AccountInfo(soon(t)) // nats.go subscribes to the answers to requests at the first one
	must(t, err)
	before := in.nc.NumSubscriptions()
	p := in.openPulls(t)
	const rounds = 20
	var pulling sync.WaitGroup
	for _, queue := range queues {
		pulling.Go(func() {
			for round := range rounds {
				in.publish(t, &nats.Msg{Subject: fmt.Sprint("gofer.jobs.", queue, ".j", round), Data: []byte(queue)})
				got, err := pulled(t, p, fromQueue(queue, 1, time.Minute))
				if err != nil || len(got) != 1 || string(got[0].Data()) != queue {
					t.Errorf("queue %s got %d jobs and %v, want its own one", queue, len(got), err)
				}
				if n := in.nc.NumSubscriptions(); n != before+1 {
					t.Errorf("%d subscriptions more than before the pulls, want one", n-before)
				}
			}
		})
	}
	pulling.Wait()
}

// TestALateJobOfAPullThatHasEndedGoesBack asks a consumer that is not there yet while the test hears the request, so that nobody
// answers, or the test says that the consumer moves. The request reaches the server after the pull has ended.
func TestALateJobOfAPullThatHasEndedGoesBack(t *testing.T) {
	t.Parallel()
	for word, wait := range map[string]time.Duration{"": 0, "Leadership Change": testenv.Patience, "Server Shutdown": testenv.Patience} {
		t.Run(word, func(t *testing.T) {
			t.Parallel()
			lateJobGoesBack(t, word, wait)
		})
	}
}

func lateJobGoesBack(t *testing.T, word string, wait time.Duration) {
	t.Helper()
	in := install(t, bus.Settings{Queues: []string{"other"}})
	in.publish(t, &nats.Msg{Subject: "gofer.jobs.default.late", Data: []byte("x")})
	_, err := in.js.AccountInfo(soon(t)) // nats.go subscribes to the answers to requests at the first one
	must(t, err)
	p := in.openPulls(t)
	other, err := p.Pull(fromQueue("other", 1, testenv.Patience)) // keeps the subscription of the first pull
	must(t, err)
	server := in.server.Connect()
	requests, err := server.SubscribeSync("$JS.API.CONSUMER.MSG.NEXT.GOFER_JOBS.worker-default")
	must(t, err)
	must(t, server.Flush())
	pull, err := p.Pull(fromQueue("default", 1, wait))
	must(t, err)
	request, err := requests.NextMsgWithContext(soon(t))
	must(t, err)
	must(t, requests.Unsubscribe())
	if word != "" {
		must(t, server.PublishMsg(&nats.Msg{Subject: request.Reply, Header: nats.Header{"Status": {"409"}, "Description": {word}}}))
	}
	if d := pull.Next(); d != nil || (pull.Err() == nil) != (word == "") {
		t.Fatalf("a pull that nobody serves brought %v, %v", d, pull.Err())
	}
	must(t, in.EnsureQueue(soon(t), "default", bus.Settings{AckWait: 2 * testenv.Patience}))
	must(t, in.nc.PublishRequest(request.Subject, request.Reply, request.Data))
	testenv.Eventually(t, "the late job to be delivered", func() bool {
		info, err := in.ConsumerInfo(soon(t), "GOFER_JOBS", "worker-default")
		return err == nil && info.Delivered.Consumer > 0
	})
	got, err := pulled(t, p, fromQueue("default", 1, time.Minute))
	if err != nil || len(got) != 1 || got[0].Metadata().NumDelivered != 2 {
		t.Fatalf("the next pull brought %d jobs and %v, want the second delivery of the job", len(got), err)
	}
	in.publish(t, &nats.Msg{Subject: "gofer.jobs.other.j", Data: []byte("x")})
	if d := other.Next(); d == nil || d.Subject() != "gofer.jobs.other.j" {
		t.Errorf("the pull of the other queue brought %v, %v", d, other.Err())
	}
}

func TestTheSubscriptionOfAPullThatWasGivenUpEndsWithItsPatience(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	requests, err := in.server.Connect().SubscribeSync("$JS.API.CONSUMER.MSG.NEXT.GOFER_JOBS.worker-missing") // nobody answers
	must(t, err)
	p := in.openPulls(t)
	before := in.nc.NumSubscriptions()
	r := fromQueue("missing", 1, 0)
	r.Patience = 3 * time.Second
	testenv.Eventually(t, "a request without an answer", func() bool {
		got, err := pulled(t, p, r)
		if len(got) != 0 {
			t.Errorf("a pull from a consumer that is not there brought %d jobs", len(got))
		}
		return err == nil
	})
	_, err = requests.NextMsgWithContext(soon(t))
	must(t, err)
	testenv.Eventually(t, "the end of the subscription", func() bool { return in.nc.NumSubscriptions() < before })
}

// TestPullsGoOnAfterARestart loses a pull with the server that it waited at.
func TestPullsGoOnAfterARestart(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	p := in.openPulls(t)
	lost, err := p.Pull(fromQueue("default", 1, testenv.Patience))
	must(t, err)
	in.restart()
	if d := lost.Next(); d != nil {
		t.Errorf("a pull that the server has forgotten brought %s", d.Subject())
	}
	in.isBack(t)
	testenv.Eventually(t, "the job to be published", func() bool {
		_, err := in.js.Publish(soon(t), "gofer.jobs.default.after", []byte("x"))
		return err == nil
	})
	testenv.Eventually(t, "the job", func() bool {
		pull, err := p.Pull(fromQueue("default", 1, time.Second))
		return err == nil && pull.Next() != nil
	})
}

// A pull that begins before the reconnect is noticed waits at the server that is connected now: ended, its job would come twice.
func TestAPullThatBeganAfterAReconnectGoesOn(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	p := in.openPulls(t)
	in.restart()
	in.isBack(t)
	pull, err := p.Pull(fromQueue("default", 1, testenv.Patience))
	must(t, err)
	p.EndForgotten()
	testenv.Eventually(t, "the job to be published", func() bool {
		_, err := in.js.Publish(soon(t), "gofer.jobs.default.after", []byte("x"))
		return err == nil
	})
	if d := pull.Next(); d == nil || d.Metadata().NumDelivered != 1 {
		t.Errorf("the pull brought %+v, %v; want the job once", d, pull.Err())
	}
}

// gate relays one connection to a server. While it is shut, the job that comes back from the server waits until the client sends
// a ping. The ping waits for the job, so that the server has sent it before it answers the ping.
type gate struct {
	address string
	shut    chan struct{} // closed: the job waits for open
	open    chan struct{}
	arrived chan struct{} // closed: the job has come from the server
}

func (in *installation) gate(t *testing.T) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	g := &gate{"nats://" + l.Addr().String(), make(chan struct{}), make(chan struct{}), make(chan struct{})}
	var relaying sync.WaitGroup
	relaying.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", in.server.Port()))
		if err != nil {
			t.Error(err)
			return
		}
		closeBoth := func() { _ = c.Close(); _ = up.Close() }
		relaying.Go(func() { defer closeBoth(); g.relay(up, c, g.openAtPing) })
		relaying.Go(func() { defer closeBoth(); g.relay(c, up, g.wait) })
	})
	t.Cleanup(func() { _ = l.Close(); relaying.Wait() })
	return g
}

func (g *gate) relay(to io.Writer, from io.Reader, see func([]byte)) {
	for buf := make([]byte, 32<<10); ; {
		n, err := from.Read(buf)
		see(buf[:n])
		if _, failed := to.Write(buf[:n]); failed != nil || err != nil {
			return
		}
	}
}

func (g *gate) isShut() bool {
	select {
	case <-g.shut:
		return true
	default:
		return false
	}
}

func (g *gate) openAtPing(sent []byte) {
	if g.isShut() && bytes.Contains(sent, []byte("PING\r\n")) {
		select {
		case <-g.arrived:
		case <-time.After(testenv.Patience):
		}
		select {
		case <-g.open:
		default:
			close(g.open)
		}
	}
}

func (g *gate) wait(came []byte) {
	if g.isShut() && bytes.Contains(came, []byte("gofer.jobs.default.slow")) {
		close(g.arrived)
		<-g.open
	}
}

// TestAJobOnASlowWayIsWaitedFor has a job that arrives when the server has been silent for longer than it may be.
func TestAJobOnASlowWayIsWaitedFor(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.publish(t, &nats.Msg{Subject: "gofer.jobs.default.slow", Data: []byte("x")})
	testenv.AwaitCounts(t, in.js, "GOFER_JOBS") // a pull without a wait takes what the consumer knows
	g := in.gate(t)
	b, err := bus.New(connect(t, bus.Dial{URL: g.address}), in.names)
	must(t, err)
	p, err := stream.New(b).OpenPulls()
	must(t, err)
	must(t, b.Conn().Flush())
	close(g.shut)
	if got, err := pulled(t, p, fromQueue("default", 1, 0)); err != nil || len(got) != 1 {
		t.Errorf("the pull brought %d jobs and %v, want the job", len(got), err)
	}
}

// TestAPullEndsByItsOwnAnswerOnly hears the requests, and answers an earlier one again and the later one with an idle heartbeat.
func TestAPullEndsByItsOwnAnswerOnly(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	server := in.server.Connect()
	requests, err := server.SubscribeSync("$JS.API.CONSUMER.MSG.NEXT.GOFER_JOBS.worker-default")
	must(t, err)
	must(t, server.Flush())
	p := in.openPulls(t)
	if got, err := pulled(t, p, fromQueue("default", 1, 0)); len(got) != 0 || err != nil {
		t.Fatalf("an empty queue gave %d jobs and %v", len(got), err)
	}
	pull, err := p.Pull(fromQueue("default", 1, testenv.Patience))
	must(t, err)
	for _, status := range []string{"408", "100"} {
		request, err := requests.NextMsgWithContext(soon(t))
		must(t, err)
		must(t, server.PublishMsg(&nats.Msg{Subject: request.Reply, Header: nats.Header{"Status": {status}}}))
	}
	must(t, server.Flush())
	in.publish(t, &nats.Msg{Subject: "gofer.jobs.default.j", Data: []byte("x")})
	if d := pull.Next(); d == nil || d.Subject() != "gofer.jobs.default.j" {
		t.Errorf("the pull brought %v and %v, want the job", d, pull.Err())
	}
}

// TestStopEndsAPullThatWaits publishes a job after the stop: no pull takes it, and it goes to whoever asks next.
func TestStopEndsAPullThatWaits(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{AckWait: 2 * testenv.Patience})
	p := in.openPulls(t)
	waits, err := p.Pull(fromQueue("default", 1, testenv.Patience))
	must(t, err)
	testenv.Eventually(t, "the pull to wait", func() bool {
		info, err := in.JobConsumerInfo(soon(t), "default", false)
		return err == nil && info.Pulls == 1
	})
	p.Stop(soon(t))
	if d := waits.Next(); d != nil || waits.Err() != nil {
		t.Errorf("a pull that was stopped brought %v and %v", d, waits.Err())
	}
	if got, err := pulled(t, p, fromQueue("default", 1, testenv.Patience)); len(got) != 0 || err != nil {
		t.Errorf("a pull after the stop brought %d jobs and %v, want none and no wait", len(got), err)
	}
	in.publish(t, &nats.Msg{Subject: "gofer.jobs.default.after", Data: []byte("x")})
	got, err := pulled(t, in.openPulls(t), fromQueue("default", 1, testenv.Patience))
	if err != nil || len(got) != 1 || got[0].Metadata().NumDelivered != 1 {
		t.Errorf("the next worker got %d jobs and %v, want the first delivery of the job", len(got), err)
	}
}

// TestAPullThatTheServerForgotIsGivenUpLongBeforeItsEnd has a request that nobody answers, on a connection that lives.
func TestAPullThatTheServerForgotIsGivenUpLongBeforeItsEnd(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	requests, err := in.server.Connect().SubscribeSync("$JS.API.CONSUMER.MSG.NEXT.GOFER_JOBS.worker-missing")
	must(t, err)
	p := in.openPulls(t)
	r := fromQueue("missing", 1, time.Hour)
	r.Patience = time.Hour
	testenv.Eventually(t, "a request without an answer to end", func() bool {
		got, err := pulled(t, p, r)
		return len(got) == 0 && err == nil
	})
	_, err = requests.NextMsgWithContext(soon(t))
	must(t, err)
}

// TestAPullThatWaitsLivesByItsBeats has a pull that waits for longer than a server may be silent. A pull that was given up
// would leave its subscription to jobs that come late, and the next one would need another. A server of a busy machine may
// be silent once.
func TestAPullThatWaitsLivesByItsBeats(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	p := in.openPulls(t)
	testenv.Eventually(t, "a pull to wait until its end", func() bool {
		before := in.nc.NumSubscriptions()
		for _, wait := range []time.Duration{6 * time.Second, 0} {
			if got, err := pulled(t, p, fromQueue("default", 1, wait)); len(got) != 0 || err != nil {
				t.Errorf("a pull from an empty queue brought %d jobs and %v", len(got), err)
			}
		}
		return in.nc.NumSubscriptions() == before
	})
}

// TestTheLeaseOfAJobRunsFromTheLatestBeatOfItsPull has a job that comes when its pull has waited for some seconds. A server
// may send a beat late, and then the lease begins earlier.
func TestTheLeaseOfAJobRunsFromTheLatestBeatOfItsPull(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	p := in.openPulls(t)
	began := time.Now()
	time.AfterFunc(4500*time.Millisecond, func() { _, _ = in.js.Publish(t.Context(), "gofer.jobs.default.late", nil) })
	got, err := pulled(t, p, fromQueue("default", 1, time.Minute))
	if err != nil || len(got) != 1 {
		t.Fatalf("the pull brought %d jobs and %v, want one", len(got), err)
	}
	since, delivered := got[0].Since(), got[0].Metadata().Timestamp
	if since.Sub(began) < time.Second || since.After(delivered) {
		t.Errorf("the lease begins %s after the pull, and the job came after %s: want it to begin after a beat and before the job", since.Sub(began), delivered.Sub(began))
	}
}

// onRequest calls do with a way to send heartbeats for each pull request to a consumer.
func (in *installation) onRequest(t *testing.T, r stream.PullRequest, do func(beat func())) {
	t.Helper()
	sub, err := in.nc.Subscribe("$JS.API.CONSUMER.MSG.NEXT."+r.Stream+"."+r.Consumer, func(request *nats.Msg) {
		do(func() {
			_ = in.nc.PublishMsg(&nats.Msg{Subject: request.Reply, Header: nats.Header{"Status": {"100"}}})
		})
	})
	must(t, err)
	t.Cleanup(func() { _ = sub.Unsubscribe() })
}

// TestALeaseNeverBeginsInTheFuture has many heartbeats that come at once, as after a pause of this machine.
func TestALeaseNeverBeginsInTheFuture(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	r := fromQueue("default", 1, time.Minute)
	in.onRequest(t, r, func(beat func()) {
		for range 30 {
			beat()
		}
		_, _ = in.js.PublishAsync("gofer.jobs.default.j", nil)
	})
	got, err := pulled(t, in.openPulls(t), r)
	if err != nil || len(got) != 1 || got[0].Since().After(time.Now()) {
		t.Fatalf("got %d jobs and %v; want one whose lease has begun", len(got), err)
	}
}

// TestAPullWhoseHeartbeatsAreLateEnds: each late heartbeat would take some time of the lease of the job that comes at last.
func TestAPullWhoseHeartbeatsAreLateEnds(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	r := stream.PullRequest{Stream: "ELSEWHERE", Consumer: "worker", Jobs: 1, Wait: time.Minute, Patience: time.Second}
	in.onRequest(t, r, func(beat func()) { time.AfterFunc(2600*time.Millisecond, beat) })
	r.Waits = func() { t.Error("the pull waits on after a heartbeat that was half a patience late") }
	if got, err := pulled(t, in.openPulls(t), r); err != nil || len(got) != 0 {
		t.Errorf("got %d jobs and %v; want none", len(got), err)
	}
}

func TestAPullMayWaitForLongIfTheServerHasTimeForBeats(t *testing.T) {
	for _, c := range []struct{ wait, patience, ackWait, want time.Duration }{
		{time.Hour, 15 * time.Second, 30 * time.Second, time.Hour},
		{time.Hour, 4 * time.Second, 6 * time.Second, time.Hour},
		{time.Hour, 3 * time.Second, 30 * time.Second, 1500 * time.Millisecond},
		{time.Hour, 4 * time.Second, 4500 * time.Millisecond, 1500 * time.Millisecond},
		// Too short for heartbeats.
		{3900 * time.Millisecond, 4 * time.Second, 6 * time.Second, 2 * time.Second},
		{time.Second, 15 * time.Second, 30 * time.Second, time.Second},
	} {
		if got := stream.BoundWait(c.wait, c.patience, c.ackWait); got != c.want {
			t.Errorf("a pull for %s with a patience of %s and an ack wait of %s waits for %s, want %s", c.wait, c.patience, c.ackWait, got, c.want)
		}
	}
}
