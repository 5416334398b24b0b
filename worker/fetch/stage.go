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

// stage is how far an attempt has come.
type stage int32

const (
	connecting stage = iota // to the proxy, its TLS included
	tunnelling              // CONNECT or SOCKS
	securing                // TLS with the target
	sending
	waiting // for the first byte of the answer
	reading
	done
)

// String is the stage's name in an attempt's "phase".
func (s stage) String() string {
	return [...]string{"connect", "proxy", "tls", "send", "wait", "body", "done"}[s]
}

func (x *exchange) phase() string { return stage(x.stage.Load()).String() }

// at notes progress. Late calls of the trace (a dial that lost its race) never move it back.
func (x *exchange) at(s stage) {
	for {
		old := x.stage.Load()
		if int32(s) <= old {
			return
		}
		if x.stage.CompareAndSwap(old, int32(s)) {
			x.spend(stage(old))
			return
		}
	}
}

// restart goes back to the first stage, for another hop or another connection.
func (x *exchange) restart() { x.spend(stage(x.stage.Swap(int32(connecting)))) }

// spend adds the time since the last change of stage to the one that ended.
func (x *exchange) spend(ended stage) {
	now := int64(time.Since(x.started))
	x.spent[ended].Add(now - x.changed.Swap(now))
}

// took is how long a stage took, all hops together.
func (x *exchange) took(s stage) time.Duration {
	x.spend(stage(x.stage.Load()))
	return time.Duration(x.spent[s].Load())
}

// phases is how long each stage took that was reached.
func (x *exchange) phases() map[string]jobs.Duration {
	out := make(map[string]jobs.Duration, int(done))
	for s := range done {
		if d := x.took(s); d > 0 {
			out[s.String()] = jobs.Duration(d)
		}
	}
	return out
}

// lookups is the time that the resolver took, in nanoseconds since the exchange started; began is zero between lookups.
type lookups struct{ began, took atomic.Int64 }

func (x *exchange) lookUp() { x.lookups.began.Store(max(1, int64(time.Since(x.started)))) }

func (x *exchange) lookedUp() {
	if began := x.lookups.began.Swap(0); began > 0 {
		x.lookups.took.Add(int64(time.Since(x.started)) - began)
	}
}

// resolving is the time that the resolver took, the lookup that is under way included.
func (x *exchange) resolving() time.Duration {
	x.lookedUp()
	return time.Duration(x.lookups.took.Load())
}

// traced is ctx with what tells of lookups and, within HTTP/2 on the connection of m, of stages.
func (x *exchange) traced(ctx context.Context, m *meter) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		DNSStart:             func(httptrace.DNSStartInfo) { x.lookUp() },
		DNSDone:              func(httptrace.DNSDoneInfo) { x.lookedUp() },
		WroteHeaders:         func() { x.sent.Store(true) },
		WroteRequest:         func(httptrace.WroteRequestInfo) { x.at(waiting) },
		GotFirstResponseByte: func() { x.reads(m) },
		Got1xxResponse: func(int, textproto.MIMEHeader) error {
			x.stall.stop()
			return nil
		},
	})
}

// watch tells of the stages of an exchange of HTTP/1.1.
func (x *exchange) watch(m *meter) http1.Watch {
	return http1.Watch{Sent: func() { x.at(waiting) }, FirstByte: func() { x.reads(m) }, Informational: x.stall.stop}
}

// reads notes that a response begins to arrive on the connection of m.
func (x *exchange) reads(m *meter) {
	x.at(reading)
	x.stall.start(m)
}
