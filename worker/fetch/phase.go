package fetch

import (
	"context"
	"net/http/httptrace"
	"net/textproto"
	"sync/atomic"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/fetch/http1"
)

// phase is how far an attempt has come. Phases only grow within one exchange; restart begins again for the next one.
type phase int32

const (
	connecting phase = iota // to the proxy, its TLS included
	tunnelling              // CONNECT or SOCKS
	securing                // TLS with the target
	sending
	waiting // for the first byte of the response
	reading
	done
)

// String is the name in an attempt's "phase".
func (p phase) String() string {
	return [...]string{"connect", "proxy", "tls", "send", "wait", "body", "done"}[p]
}

// phaseName is the present phase, as results and events name it.
func (x *exchanges) phaseName() string { return phase(x.phase.Load()).String() }

// reachPhase records progress. A late call of the trace, such as one of a dial that lost its race, never moves the phase
// back.
func (x *exchanges) reachPhase(p phase) {
	for {
		old := x.phase.Load()
		if int32(p) <= old {
			return
		}
		if x.phase.CompareAndSwap(old, int32(p)) {
			x.addSpent(phase(old))
			return
		}
	}
}

// restart goes back to the first phase, for another exchange or another connection.
func (x *exchanges) restart() { x.addSpent(phase(x.phase.Swap(int32(connecting)))) }

// addSpent adds the time since the last change to the phase that ended. It may be called from several goroutines: each
// span of time is added once, because changed is swapped.
func (x *exchanges) addSpent(ended phase) {
	now := int64(time.Since(x.started))
	x.spent[ended].Add(now - x.changed.Swap(now))
}

// timeIn is how long a phase took, all exchanges together.
func (x *exchanges) timeIn(p phase) time.Duration {
	x.addSpent(phase(x.phase.Load()))
	return time.Duration(x.spent[p].Load())
}

// phaseDurations returns how long each phase took, all exchanges together. Phases that were not reached are left out.
func (x *exchanges) phaseDurations() map[string]jobs.Duration {
	out := make(map[string]jobs.Duration, int(done))
	for p := range done {
		if d := x.timeIn(p); d > 0 {
			out[p.String()] = jobs.Duration(d)
		}
	}
	return out
}

// lookups is the time that the resolver took, in nanoseconds since the exchange started; began is zero between lookups.
type lookups struct{ began, took atomic.Int64 }

// lookupBegan records a look-up. A time of zero would mean that none is under way, so it is at least one nanosecond.
func (x *exchanges) lookupBegan() { x.lookups.began.Store(max(1, int64(time.Since(x.started)))) }

// lookupEnded adds the time of the look-up under way, if there is one. The resolver may report an end twice.
func (x *exchanges) lookupEnded() {
	if began := x.lookups.began.Swap(0); began > 0 {
		x.lookups.took.Add(int64(time.Since(x.started)) - began)
	}
}

// resolveTime is the time that the resolver took, the lookup that is under way included.
func (x *exchanges) resolveTime() time.Duration {
	x.lookupEnded()
	return time.Duration(x.lookups.took.Load())
}

// withTrace returns ctx with a trace that reports lookups and, for HTTP/2 on the connection of m, phases.
func (x *exchanges) withTrace(ctx context.Context, m *meter) context.Context {
	bound := new(informationals)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		DNSStart:             func(httptrace.DNSStartInfo) { x.lookupBegan() },
		DNSDone:              func(httptrace.DNSDoneInfo) { x.lookupEnded() },
		WroteHeaders:         func() { x.sent.Store(true) },
		WroteRequest:         func(httptrace.WroteRequestInfo) { x.requestWritten() },
		GotFirstResponseByte: func() { x.responseBegan(m) },
		Got1xxResponse: func(_ int, header textproto.MIMEHeader) error {
			x.waitOn()
			return bound.add(header)
		},
	})
}

// informationals bounds the heads of informational responses by their size. Whoever traces them has to, as package http1 does.
type informationals struct{ received int }

// add counts a head. Its status line counts as well, so that empty ones end too.
func (i *informationals) add(header textproto.MIMEHeader) error {
	i.received += len("HTTP/2 103\r\n\r\n")
	for name, values := range header {
		for _, value := range values {
			i.received += len(name) + len(value)
		}
	}
	if i.received > maxHeaderBytes {
		return http1.ErrHeadTooLarge
	}
	return nil
}

// watchPhases reports the phases of an HTTP/1.1 exchange.
func (x *exchanges) watchPhases(m *meter) http1.Watch {
	return http1.Watch{Sent: x.requestWritten, FirstByte: func() { x.responseBegan(m) }, Informational: x.waitOn}
}

// requestWritten records that the last byte of the request has been written.
func (x *exchanges) requestWritten() {
	x.written.Store(true)
	x.reachPhase(waiting)
}

// responseBegan records that a response begins to arrive on the connection of m, and starts the stall watch. It may be
// called twice for a response.
func (x *exchanges) responseBegan(m *meter) {
	x.reachPhase(reading)
	x.begun.Store(true)
	x.stall.start(m)
}

// waitOn goes back to the wait for the response, because only an informational one has come. The time before that still counts: a
// server must not extend the first-byte timeout by it. A 100 may come while the request is still being sent.
func (x *exchanges) waitOn() {
	x.stall.stop()
	x.begun.Store(false)
	if x.phase.CompareAndSwap(int32(reading), int32(sending)) {
		x.addSpent(reading)
	}
	if x.written.Load() { // asked last: requestWritten may be called meanwhile
		x.reachPhase(waiting)
	}
}

// timeInPhase is how long the present phase of the present exchange has taken, and when it began, since started. An informational
// response interrupts the wait for the first byte, so that wait may have two parts. A change of the phase meanwhile makes the
// time wrong, but then began changes, too.
func (x *exchanges) timeInPhase() (p phase, took, began time.Duration) {
	began = time.Duration(x.changed.Load())
	p, took = phase(x.phase.Load()), time.Since(x.started)-began
	if p == waiting {
		took += time.Duration(x.spent[waiting].Load() - x.waited.Load())
	}
	return p, took, began
}
