package worker

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

const ackWait = 12 * time.Second

func TestConfirmedHeartbeatsKeepTheLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		l := newLease(time.Now(), ackWait)
		beats := 0
		stop := l.keepAlive(func(context.Context) error { beats++; return nil }, cancel)
		time.Sleep(time.Minute)
		stop()
		if ctx.Err() != nil || !l.valid() {
			t.Errorf("the lease ended although every heartbeat was confirmed")
		}
		if beats < 14 || beats > 16 {
			t.Errorf("heartbeats in a minute = %d, want one every 4 s", beats)
		}
	})
}

func TestUnconfirmedLeaseCancelsTheJobBeforeTheServerGivesItAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		start := time.Now()
		l := newLease(start, ackWait)
		var ended time.Duration
		context.AfterFunc(ctx, func() { ended = time.Since(start) })
		stop := l.keepAlive(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, cancel)
		<-ctx.Done()
		stop()
		synctest.Wait()
		if !errors.Is(context.Cause(ctx), jobs.ErrLeaseLost) {
			t.Errorf("cause = %v, want the lost lease", context.Cause(ctx))
		}
		if ended > ackWait+50*time.Millisecond || ended < ackWait-time.Second {
			t.Errorf("the job was cancelled after %v, want about %v", ended, ackWait)
		}
	})
}

func TestFailedHeartbeatIsTriedAgainSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, cancel := context.WithCancelCause(t.Context())
		l := newLease(time.Now(), ackWait)
		calls := 0
		stop := l.keepAlive(func(context.Context) error {
			if calls++; calls%3 != 0 {
				return errors.New("no responders")
			}
			return nil
		}, cancel)
		time.Sleep(30 * time.Second)
		stop()
		if !l.valid() {
			t.Errorf("the lease was lost although every third heartbeat was confirmed")
		}
	})
}

func TestFrozenWorkerSeesThatItsLeaseIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pulled := time.Now()
		time.Sleep(20 * time.Second) // frozen between the pull and the message
		if newLease(pulled, ackWait).valid() {
			t.Errorf("a lease that began 20 s before its job was read is valid, want it over")
		}
	})
}

func TestTheFirstHeartbeatComesAThirdOfTheAckWaitAfterThePull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, cancel := context.WithCancelCause(t.Context())
		pulled := time.Now()
		time.Sleep(3 * time.Second) // between the pull and the run
		var first time.Duration
		stop := newLease(pulled, ackWait).keepAlive(func(context.Context) error {
			if first == 0 {
				first = time.Since(pulled)
			}
			return nil
		}, cancel)
		time.Sleep(10 * time.Second)
		stop()
		if first != ackWait/3 {
			t.Errorf("first heartbeat %v after the pull, want %v", first, ackWait/3)
		}
	})
}

func TestARenewedLeaseCountsFromBeforeItsHeartbeat(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, cancel := context.WithCancelCause(t.Context())
		l := newLease(time.Now(), ackWait)
		stop := l.keepAlive(func(context.Context) error { time.Sleep(2 * time.Second); return nil }, cancel)
		time.Sleep(ackWait/3 + 2*time.Second)
		synctest.Wait()
		if got, want := l.left(), ackWait-2*time.Second; got != want {
			t.Errorf("left when the answer came after 2 s = %v, want %v", got, want)
		}
		stop()
	})
}

// A heartbeat that arrives after the ack would be one of a message that is gone, or of another run.
func TestNoHeartbeatIsUnderWayOnceTheLeaseIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, cancel := context.WithCancelCause(t.Context())
		begun, ended := false, false
		stop := newLease(time.Now(), ackWait).keepAlive(func(ctx context.Context) error {
			begun = true
			<-ctx.Done()
			time.Sleep(time.Second) // what it takes to notice
			ended = true
			return ctx.Err()
		}, cancel)
		time.Sleep(ackWait/3 + time.Second)
		stop()
		if !begun || !ended {
			t.Errorf("heartbeat begun: %v, ended: %v; want it to have ended before the lease is given up", begun, ended)
		}
	})
}

func TestALeaseThatIsOverIsNotRevived(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		l := newLease(time.Now(), ackWait)
		time.Sleep(ackWait + time.Second) // frozen after the pull
		beats := 0
		stop := l.keepAlive(func(context.Context) error { beats++; return nil }, cancel)
		<-ctx.Done()
		stop()
		if beats > 0 || l.valid() || !errors.Is(context.Cause(ctx), jobs.ErrLeaseLost) {
			t.Errorf("%d heartbeats of a lease that was over, valid: %v, cause %v; want it to stay over", beats, l.valid(), context.Cause(ctx))
		}
	})
}

func TestWhatIsBoundByALeaseEndsWithItAndNotBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		l := newLease(start, ackWait)
		var ended time.Duration
		stop := l.callAtEnd(t.Context(), func() { ended = time.Since(start) })
		time.Sleep(ackWait / 2)
		l.renew(t.Context(), func(context.Context) error { return nil })
		time.Sleep(2 * ackWait)
		stop()
		if want := ackWait/2 + ackWait; ended < want || ended > want+time.Millisecond {
			t.Errorf("it ended after %v, want %v", ended, want)
		}
		held, ends := newLease(time.Now(), ackWait), 0
		held.callAtEnd(t.Context(), func() { ends++ })()
		if time.Since(start) > 3*ackWait || ends > 1 {
			t.Errorf("what is over waits for its lease, or ends %d times", ends)
		}
	})
}
