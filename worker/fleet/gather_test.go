package fleet_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/worker/fleet"
)

// feed is a watch that a test fills.
type feed chan jetstream.KeyValueEntry

func (f feed) Updates() <-chan jetstream.KeyValueEntry { return f }
func (f feed) Stop() error                             { return nil }

// put is an entry with a value; the rest of it does not matter.
type put struct{ jetstream.KeyValueEntry }

func (put) Key() string                     { return "p1" }
func (put) Value() []byte                   { return []byte("x") }
func (put) Revision() uint64                { return 1 }
func (put) Created() time.Time              { return time.Time{} }
func (put) Operation() jetstream.KeyValueOp { return jetstream.KeyValuePut }

// TestChangesThatComeTogetherAreTakenOverTogether: each taking over of a long list costs as much as the list is long.
func TestChangesThatComeTogetherAreTakenOverTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		watch := make(feed, 1000)
		took := func() (n int, after time.Duration) {
			begin := time.Now()
			n = fleet.Gather(t.Context(), watch, put{})
			return n, time.Since(begin)
		}
		if n, after := took(); n != 1 || after != 10*time.Millisecond {
			t.Errorf("one change: %d after %s", n, after)
		}
		for range 500 {
			watch <- put{}
		}
		if n, after := took(); n != 501 || after != 10*time.Millisecond {
			t.Errorf("501 changes: %d after %s", n, after)
		}
		go func() { // changes without a pause
			for range 1000 {
				watch <- put{}
				time.Sleep(time.Millisecond)
			}
			close(watch)
		}()
		if n, after := took(); n < 200 || n > 300 || after != 250*time.Millisecond {
			t.Errorf("changes without a pause: %d after %s, want what came in 250ms", n, after)
		}
		for open := true; open; {
			_, open = <-watch
		}
		if n, after := took(); n != 1 || after != 0 {
			t.Errorf("a watch that has ended: %d after %s", n, after)
		}
	})
}
