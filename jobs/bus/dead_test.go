package bus_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

func TestADeadLetterIsReplayedOnce(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.keepDeadLetters(t, "a", "b", "c")
	letter, err := in.DeadOf(soon(t), key("b"))
	must(t, err)
	ack, err := in.Replay(soon(t), letter)
	must(t, err)
	if ack.ID != "replay-2" {
		t.Errorf("got %s, want it to run as replay-2", ack)
	}
	_, err = in.Replay(soon(t), letter)
	isError(t, err, bus.ErrReplayed)
	if got := in.dead(t); got != "a c" {
		t.Errorf("got letters %q left, want a and c", got)
	}
	lane, err := in.Lane(soon(t), "default", false)
	must(t, err)
	msg, err := lane.Next()
	must(t, err)
	if got := msg.Headers().Get(jobs.HeaderReplayOf); got != "default/b" || string(msg.Data()) != "http://b.test/" {
		t.Errorf("got a replay of %q with %s", got, msg.Data())
	}
}

func TestOfRacingReplaysOneRuns(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.keepDeadLetters(t, "a")
	letter, err := in.DeadOf(soon(t), key("a"))
	must(t, err)
	outcomes := make(chan error, 8)
	for range cap(outcomes) {
		go func() {
			_, err := in.Replay(soon(t), letter)
			outcomes <- err
		}()
	}
	ran := 0
	for range cap(outcomes) {
		if err := <-outcomes; err == nil {
			ran++
		} else {
			isError(t, err, bus.ErrReplayed)
		}
	}
	if ran != 1 {
		t.Errorf("%d replays ran, want 1", ran)
	}
}

func TestALetterThatIsGoneOrWhoseReplayEndedIsNotReplayed(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.keepDeadLetters(t, "purged", "ended")
	purged, err := in.DeadOf(soon(t), key("purged"))
	must(t, err)
	must(t, in.DropDead(soon(t), purged))
	ended, err := in.DeadOf(soon(t), key("ended"))
	must(t, err)
	in.store(t, "replay-2", []byte("done"))
	for _, letter := range []bus.Letter{purged, ended} {
		_, err = in.Replay(soon(t), letter)
		isError(t, err, bus.ErrReplayed)
	}
	_, err = in.Replay(soon(t), bus.Letter{Key: bus.Key{Queue: "no queue", ID: "ended"}, Seq: ended.Seq})
	isError(t, err, bus.ErrNotFound)
	if queues, err := in.Queues(soon(t)); err != nil || len(queues) != 1 || queues[0].Queued != 0 {
		t.Errorf("got %+v, %v; want no job to be queued", queues, err)
	}
}

func TestAListOfLettersEndsWithItsCallersError(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.keepDeadLetters(t, "a", "b")
	enough := errors.New("enough")
	seen := 0
	isError(t, in.Dead(soon(t), func(bus.Letter) error { seen++; return enough }), enough)
	if seen != 1 {
		t.Errorf("%d letters were listed, want one", seen)
	}
}

func TestDroppingALetterSparesALaterOne(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.keepDeadLetters(t, "a")
	old, err := in.DeadOf(soon(t), key("a"))
	must(t, err)
	in.keepDeadLetters(t, "a", "b")
	must(t, in.DropDead(soon(t), old))
	if got := in.dead(t); got != "a b" {
		t.Errorf("got letters %q, want a and b", got)
	}
	must(t, in.PurgeDead(soon(t)))
	if got := in.dead(t); got != "" {
		t.Errorf("got letters %q after the purge", got)
	}
	_, err = in.DeadOf(soon(t), key("a"))
	isError(t, err, bus.ErrNotFound)
}

func TestADeadLetterIsRemovedByItsJobAndItsSequence(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.keepDeadLetters(t, "a", "b")
	letter, err := in.DeadOf(soon(t), key("a"))
	must(t, err)
	for _, other := range []bus.Letter{{Key: key("b"), Seq: letter.Seq}, {Key: key("a"), Seq: 100}} {
		must(t, in.DropDead(soon(t), other))
	}
	if got := in.dead(t); got != "a b" {
		t.Errorf("got letters %q, want both: none has this job and this sequence", got)
	}
	must(t, in.DropDead(soon(t), letter))
	must(t, in.DropDead(soon(t), letter)) // it is gone, as wanted
	if got := in.dead(t); got != "b" {
		t.Errorf("got letters %q, want that of job b", got)
	}
}

func TestALetterThatTheServerKeepsIsNotSaidToBeRemoved(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.keepDeadLetters(t, "a")
	if !in.edit(t, "GOFER_DEAD", func(c *jetstream.StreamConfig) { c.DenyDelete = true }) {
		t.Fatal("the stream was not edited")
	}
	letter, err := in.DeadOf(soon(t), key("a"))
	must(t, err)
	if err := in.DropDead(soon(t), letter); err == nil {
		t.Error("got no error, and the server keeps the letter")
	}
}

// keepDeadLetters stores a dead letter for each id.
func (in *installation) keepDeadLetters(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		r := &jobs.Result{Queue: "default", ID: id, Outcome: jobs.Failed, Error: jobs.ErrPermanent, FinishedAt: time.Now()}
		must(t, in.DeadLetter(soon(t), "default", id, []byte("http://"+id+".test/"), r))
	}
}

// dead lists the ids of the letters.
func (in *installation) dead(t *testing.T) (ids string) {
	t.Helper()
	must(t, in.Dead(soon(t), func(l bus.Letter) error {
		if ids != "" {
			ids += " "
		}
		ids += l.ID
		return nil
	}))
	return ids
}
