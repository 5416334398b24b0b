package fetch

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/gofer-mq/gofer/rotation"
)

// flight is an attempt that has begun. Its exchanges may run in a goroutine of their own. All other fields belong to the
// goroutine of the run. The function that starts the goroutine waits for it.
type flight struct {
	lease   *rotation.Lease
	started time.Time
	number  int // of the attempt, from 1
	serial  int // of the flight in its run: no other one has it
	x       *exchanges

	// Of an attempt that runs beside another one:
	cancel   context.CancelCauseFunc
	ended    chan struct{} // closed when the exchanges have ended
	panicked string        // what ended the goroutine of the exchanges, with its stack; set before ended is closed
	// overBound is the bound by which the run ended it after another attempt had brought the result; zero if it did not.
	overBound time.Duration

	// Of an attempt that ended by itself:
	facts facts
	blame blame
}

// newFlight prepares an attempt through a proxy. The attempt counts as begun from here on, until reportAttempt.
func (r *run) newFlight(lease *rotation.Lease) *flight {
	r.underWay++
	r.flights++
	return &flight{serial: r.flights, lease: lease, started: time.Now(), number: r.begunAttempts(), x: r.newExchanges(lease)}
}

// begunAttempts is how many attempts of the job have begun.
func (r *run) begunAttempts() int { return len(r.progress.Attempts) + r.underWay }

// start runs the exchanges in a goroutine of their own. Whoever calls it waits for ended. A panic is caught there, since
// it would end the process, and await raises it again in the goroutine of the run, which recovers it.
func (a *flight) start(ctx context.Context) {
	ctx, a.cancel = context.WithCancelCause(ctx)
	a.ended = make(chan struct{})
	// do returns when its context ends, so await never waits for longer than a close takes.
	go func() {
		defer close(a.ended)
		defer func() {
			if p := recover(); p != nil {
				a.panicked = fmt.Sprintf("%v\n%s", p, debug.Stack())
			}
		}()
		a.x.do(ctx)
	}()
}

// await waits for the exchanges, and raises their panic again in the goroutine of the run.
func (a *flight) await() {
	<-a.ended
	if a.panicked != "" {
		panic(a.panicked)
	}
}

// conclude gathers the facts of an attempt that ended by itself, judges them, and ends the lease with the verdict. It
// returns a. The order matters: learn needs the judgement, and the lease must be ended before another attempt
// picks.
func (r *run) conclude(ctx context.Context, a *flight) *flight {
	r.gatherFacts(ctx, a)
	a.blame = judge(&a.facts)
	a.blame.considerGateway(a.lease, a.facts.status)
	r.learn(a.x, &a.facts, &a.blame)
	r.reportBreakers(a.lease.Report(a.blame.verdict(&a.facts)))
	r.progress.Bytes += a.x.received
	return a
}

// isStopped reports whether the attempt was ended from outside. Such an attempt blames nobody and counts for nothing.
func (a *flight) isStopped() bool { return a.facts.stopped && !a.facts.timeout }
