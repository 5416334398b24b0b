package client_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/worker/stream"
)

func TestADeadLetterIsReplayedOnce(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.keepDeadLetters(t, "a", "b", "c")
	letter, err := in.DeadLetter(soon(t), key("b"))
	must(t, err)
	ack, err := in.Replay(soon(t), letter)
	must(t, err)
	if ack.ID != "replay-2" {
		t.Errorf("got %s, want it to run as replay-2", ack)
	}
	_, err = in.Replay(soon(t), letter)
	isError(t, err, client.ErrReplayed)
	if got := in.dead(t); got != "a c" {
		t.Errorf("got letters %q left, want a and c", got)
	}
	consumer, err := in.bus.EnsureJobConsumer(soon(t), "default", false)
	must(t, err)
	msg, err := consumer.Next()
	must(t, err)
	if got := msg.Headers().Get(jobs.HeaderReplayOf); got != "default/b" || string(msg.Data()) != "http://b.test/" {
		t.Errorf("got a replay of %q with %s", got, msg.Data())
	}
}

func TestOfRacingReplaysOneRuns(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.keepDeadLetters(t, "a")
	letter, err := in.DeadLetter(soon(t), key("a"))
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
			isError(t, err, client.ErrReplayed)
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
	purged, err := in.DeadLetter(soon(t), key("purged"))
	must(t, err)
	must(t, in.RemoveDeadLetter(soon(t), purged))
	ended, err := in.DeadLetter(soon(t), key("ended"))
	must(t, err)
	in.store(t, "replay-2", []byte("done"))
	for _, letter := range []client.DeadLetter{purged, ended} {
		_, err = in.Replay(soon(t), letter)
		isError(t, err, client.ErrReplayed)
	}
	_, err = in.Replay(soon(t), client.DeadLetter{Key: bus.Key{Queue: "no queue", ID: "ended"}, Seq: ended.Seq})
	isError(t, err, bus.ErrNotFound)
	if queues, err := in.Queues(soon(t)); err != nil || len(queues) != 1 || queues[0].Queued != 0 {
		t.Errorf("got %+v, %v; want no job to be queued", queues, err)
	}
}

func TestALetterOfARecreatedStreamIsReplayedBesideAnEarlierReplayOfItsNumber(t *testing.T) {
	t.Parallel()
	for _, ended := range []bool{true, false} {
		t.Run(fmt.Sprintf("which has ended: %t", ended), func(t *testing.T) {
			t.Parallel()
			in := install(t, bus.Settings{})
			in.keepDeadLetters(t, "a")
			old, err := in.DeadLetter(soon(t), key("a"))
			must(t, err)
			_, err = in.Replay(soon(t), old)
			must(t, err)
			if ended {
				in.store(t, "replay-1", []byte("done"))
			}
			must(t, in.js.DeleteStream(soon(t), "GOFER_DEAD"))
			must(t, in.bus.Ensure(soon(t), bus.Settings{}))
			in.keepDeadLetters(t, "b")
			letter, err := in.DeadLetter(soon(t), key("b"))
			must(t, err)
			if letter.Seq != old.Seq {
				t.Fatalf("the new stream numbers its first letter %d, the old one %d", letter.Seq, old.Seq)
			}
			_, err = in.Replay(soon(t), old)
			isError(t, err, client.ErrReplayed) // it is no more, although its sequence is taken
			ack, err := in.Replay(soon(t), letter)
			must(t, err)
			if want := fmt.Sprintf("replay-1-%d", letter.StoredAt.UnixMilli()); ack.ID != want {
				t.Errorf("got %s, want it to run as %s", ack.ID, want)
			}
			_, err = in.Replay(soon(t), letter)
			isError(t, err, client.ErrReplayed)
		})
	}
}

func TestAListOfLettersEndsWithItsCallersError(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.keepDeadLetters(t, "a", "b")
	enough := errors.New("enough")
	seen := 0
	isError(t, in.DeadLetters(soon(t), func(client.DeadLetter) error { seen++; return enough }), enough)
	if seen != 1 {
		t.Errorf("%d letters were listed, want one", seen)
	}
}

// TestManyLettersAreListedInFewRequests, and all that are there in time are purged in one.
func TestManyLettersAreListedInFewRequests(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	const n = 1100 // more than two pages
	for i := range n {
		_, err := in.js.PublishAsync(in.names.Dead([]string{"default", "low"}[i%2], fmt.Sprint("j", i)), []byte("http://a.test/"))
		must(t, err)
	}
	select {
	case <-in.js.PublishAsyncComplete():
	case <-soon(t).Done():
		t.Fatal("the letters are not stored")
	}
	listener := in.server.Connect()
	requests, err := listener.SubscribeSync("$JS.API.DIRECT.GET.GOFER_DEAD")
	must(t, err)
	must(t, listener.Flush())
	next := uint64(1)
	must(t, in.DeadLetters(soon(t), func(l client.DeadLetter) error {
		if l.Seq != next || string(l.Payload) != "http://a.test/" {
			t.Errorf("letter %d: got %d with %q", next, l.Seq, l.Payload)
		}
		next++
		return nil
	}))
	must(t, listener.Flush())
	if pages, _, err := requests.Pending(); err != nil || pages != 3 || next != n+1 {
		t.Errorf("got %d letters in %d requests, %v; want %d in 3", next-1, pages, err, n)
	}
	for _, purge := range []struct {
		queue      string
		upTo, want uint64
	}{{"low", 1000, 500}, {"low", n, 50}, {"", n - 1, 550}, {"", n, 0}} {
		if got, err := in.PurgeDeadLettersOf(soon(t), purge.queue, purge.upTo); err != nil || got != purge.want {
			t.Errorf("purge of queue %q up to %d: got %d, %v; want %d", purge.queue, purge.upTo, got, err, purge.want)
		}
	}
	if _, err := in.PurgeDeadLettersOf(soon(t), "*", n); err == nil {
		t.Error("a queue that is a wildcard is purged")
	}
}

func TestDroppingALetterSparesALaterOne(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.keepDeadLetters(t, "a")
	old, err := in.DeadLetter(soon(t), key("a"))
	must(t, err)
	in.keepDeadLetters(t, "a", "b")
	must(t, in.RemoveDeadLetter(soon(t), old))
	if got := in.dead(t); got != "a b" {
		t.Errorf("got letters %q, want a and b", got)
	}
	must(t, in.PurgeDeadLetters(soon(t)))
	if got := in.dead(t); got != "" {
		t.Errorf("got letters %q after the purge", got)
	}
	_, err = in.DeadLetter(soon(t), key("a"))
	isError(t, err, bus.ErrNotFound)
}

func TestADeadLetterIsRemovedByItsJobAndItsSequence(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.keepDeadLetters(t, "a", "b")
	letter, err := in.DeadLetter(soon(t), key("a"))
	must(t, err)
	for _, other := range []client.DeadLetter{{Key: key("b"), Seq: letter.Seq}, {Key: key("a"), Seq: 100}} {
		must(t, in.RemoveDeadLetter(soon(t), other))
	}
	if got := in.dead(t); got != "a b" {
		t.Errorf("got letters %q, want both: none has this job and this sequence", got)
	}
	must(t, in.RemoveDeadLetter(soon(t), letter))
	must(t, in.RemoveDeadLetter(soon(t), letter)) // it is gone, as wanted
	if got := in.dead(t); got != "b" {
		t.Errorf("got letters %q, want that of job b", got)
	}
}

func TestALetterThatTheServerKeepsIsNotSaidToBeRemoved(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.keepDeadLetters(t, "a")
	stream, err := in.js.Stream(soon(t), "GOFER_DEAD")
	must(t, err)
	config := stream.CachedInfo().Config
	config.DenyDelete = true
	_, err = in.js.UpdateStream(soon(t), config)
	must(t, err)
	letter, err := in.DeadLetter(soon(t), key("a"))
	must(t, err)
	if err := in.RemoveDeadLetter(soon(t), letter); err == nil {
		t.Error("got no error, and the server keeps the letter")
	}
}

// keepDeadLetters stores a dead letter for each id.
func (in *installation) keepDeadLetters(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		r := &jobs.Result{Queue: "default", ID: id, Outcome: jobs.Failed, Error: jobs.ErrPermanent, FinishedAt: time.Now()}
		must(t, stream.New(in.bus).DeadLetter(soon(t), "default", id, []byte("http://"+id+".test/"), r))
	}
}

// dead lists the ids of the letters.
func (in *installation) dead(t *testing.T) (ids string) {
	t.Helper()
	must(t, in.DeadLetters(soon(t), func(l client.DeadLetter) error {
		if ids != "" {
			ids += " "
		}
		ids += l.ID
		return nil
	}))
	return ids
}
