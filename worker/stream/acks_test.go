package stream_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/stream"
)

// reports collects how acks ended, by job id.
type reports struct {
	mu  sync.Mutex
	all map[string]error
}

func (r *reports) add(_, id string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, twice := r.all[id]; twice {
		err = fmt.Errorf("reported twice: %w", err)
	}
	r.all[id] = err
}

// takeJobs fetches n jobs.
func (in *installation) takeJobs(t *testing.T, n int) (out []jetstream.Msg) {
	t.Helper()
	for i := range n {
		_, err := in.client.Submit(soon(t), job(fmt.Sprint("j", i)))
		must(t, err)
	}
	consumer, err := in.EnsureJobConsumer(soon(t), "default", false)
	must(t, err)
	for range n {
		msg, err := consumer.Next()
		must(t, err)
		out = append(out, msg)
	}
	return out
}

func (in *installation) openAcks(t *testing.T) (*stream.Acks, *reports) {
	t.Helper()
	r := &reports{all: map[string]error{}}
	acks, err := in.OpenAcks(r.add)
	must(t, err)
	return acks, r
}

func TestEveryAckIsReportedOnceBeforeCloseReturns(t *testing.T) {
	t.Parallel()
	const n = 200
	in := install(t, bus.Settings{})
	msgs := in.takeJobs(t, n)
	acks, r := in.openAcks(t)
	var sending sync.WaitGroup
	for i, msg := range msgs {
		sending.Go(func() { acks.Ack(msg, "default", fmt.Sprint("j", i)) })
	}
	sending.Wait()
	acks.Close(soon(t))
	for i := range n {
		if err, reported := r.all[fmt.Sprint("j", i)]; !reported || err != nil {
			t.Errorf("ack %d: reported %v, %v; want a confirmation", i, reported, err)
		}
	}
	s, err := in.JetStream().Stream(soon(t), "GOFER_JOBS")
	must(t, err)
	if left := s.CachedInfo().State.Msgs; left != 0 {
		t.Errorf("%d jobs are left, want none", left)
	}
}

func TestAnAckToAConsumerThatIsGoneIsReportedWithAnError(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	msgs := in.takeJobs(t, 1)
	must(t, in.JetStream().DeleteConsumer(soon(t), "GOFER_JOBS", "worker-default"))
	acks, r := in.openAcks(t)
	acks.Ack(msgs[0], "default", "j0")
	acks.Close(soon(t))
	if err, reported := r.all["j0"]; !reported || err == nil {
		t.Errorf("reported %v, %v; want an error", reported, err)
	}
}

// A connection that is closed takes no ack.
func TestAnAckThatCannotBeSentIsReported(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	msgs := in.takeJobs(t, 1)
	acks, r := in.openAcks(t)
	in.Conn().Close()
	acks.Ack(msgs[0], "default", "j0")
	acks.Close(soon(t))
	if err, reported := r.all["j0"]; !reported || err == nil {
		t.Errorf("reported %v, %v; want an error", reported, err)
	}
}
