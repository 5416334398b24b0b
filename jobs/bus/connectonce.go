package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	tryLimit = 5 * time.Second // bounds the attempt at one server
	// reasonWait is how long connectOnce waits after ctx's deadline for the error of the attempt, which has the same
	// deadline.
	reasonWait = 250 * time.Millisecond
)

// connectOnce makes one attempt, until ctx ends. nats.go takes no context here: an abandoned attempt goes on in its
// goroutine until its own limit, and a connection that it still opens is closed.
func (d Dial) connectOnce(ctx context.Context, opts []nats.Option) (*nats.Conn, error) {
	// The limit is for each server of the list.
	limit := tryLimit
	if end, ok := ctx.Deadline(); ok {
		limit = min(limit, max(time.Until(end), time.Millisecond))
	}
	type try struct {
		nc  *nats.Conn
		err error
	}
	// The channel has room for the result, so the goroutine ends even if nobody receives it.
	tried := make(chan try, 1)
	go func() {
		nc, err := d.dial(limit, opts)
		tried <- try{nc, err}
	}()
	select {
	case t := <-tried:
		return t.nc, t.err
	case <-ctx.Done():
	}
	// The attempt has the same deadline, and its error says more than the end of ctx.
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		select {
		case t := <-tried:
			return t.nc, t.err
		case <-time.After(reasonWait):
		}
	}
	// A connection that is opened later has no owner, so it is closed.
	go func() {
		t := <-tried
		t.nc.Close() // nil is allowed
	}()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, fmt.Errorf("%w at %s: no server answers in time", ErrUnreachable, d)
	}
	return nil, context.Cause(ctx)
}
