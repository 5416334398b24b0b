// Package doctor finds out what is wrong with an installation: server, clock, streams, queues that nobody serves, workers. A
// finding says what to do about it. It is written for who runs the program gofer, and may name a variable of that.
package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
)

// Finding is one thing that was looked at.
type Finding struct {
	// Name is what was looked at, such as "queue NAME" or "streams". Several findings may bear the same name.
	Name string `json:"name"`
	// OK is false for a fault. Detail says what was found and, for a fault, what to do about it; it holds no
	// credentials.
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// Config is what is examined. All fields but Settings are required.
type Config struct {
	// NATS is the connection, and Bus speaks through it.
	NATS *nats.Conn
	Bus  *bus.Client
	// Settings are what the streams are compared with.
	Settings bus.Settings
	// Explain is an error on one line, with what to do about it. Repair is how to repair a difference; empty if nobody can say.
	Explain func(error) string
	Repair  func(bus.Difference) string
}

// doctor is a Config with what is derived from it.
type doctor struct {
	Config
	client *client.Client
	// names are the names of streams and subjects under the prefix of the connection.
	names jobs.Names
}

// Examine looks at one thing after the other. What is not answered in time is a finding; of ctx's end there is none, so a caller
// looks at ctx before it shows anything.
func Examine(ctx context.Context, c Config) []Finding {
	d := &doctor{Config: c, client: client.New(c.Bus), names: c.Bus.Names()}
	list := []Finding{d.server(ctx)} // from the ground up: a finding above is often the reason for those below
	list = append(list, d.clock(ctx)...)
	list = append(list, d.streams(ctx)...)
	list = append(list, d.results(ctx)...)
	// Queues come before workers and sites: whether a missing worker or a resting site is a fault depends on
	// whether jobs wait. If they cannot be read, the later checks run as if there were none.
	workers, silence := d.askWorkers(ctx)
	queues, err := d.readQueues(ctx)
	if err != nil {
		list = append(list, Finding{"queues", false, err.Error()})
	} else {
		markServed(queues, workers, silence)
		list = append(list, d.queues(queues)...)
		list = append(list, overdue(queues))
	}
	list = append(list, d.workers(workers, silence, queues)...)
	list = append(list, d.sites(ctx, queues)...)
	return append(list, d.letters(ctx)...)
}

// pingTimeout bounds how long the server may take to answer a ping.
const pingTimeout = 5 * time.Second

// server pings the server, with the rights that every user has.
func (d *doctor) server(ctx context.Context) Finding {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	asked := time.Now()
	// A flush waits for the server's PONG, so it measures a round trip and needs no right to any subject.
	err := d.NATS.FlushWithContext(ctx)
	rtt := time.Since(asked)
	if err != nil {
		return Finding{"nats", false, "the server does not answer a ping: " + err.Error()}
	}
	return Finding{"nats", true, fmt.Sprintf("nats-server %s, round trip %s", d.NATS.ConnectedServerVersion(), rtt.Round(10*time.Microsecond))}
}

// clock compares the server's clock, by which waits end, with this machine's. Workers judge deadlines by their own.
func (d *doctor) clock(ctx context.Context) []Finding {
	asked := time.Now()
	// The time comes with the answer about a stream, so no separate right is needed. StreamInfo holds the
	// server's clock when it answered.
	stream, err := d.Bus.JetStream().Stream(ctx, d.names.Stream("JOBS"))
	if err != nil || stream.CachedInfo().TimeStamp.IsZero() {
		return nil // said with the streams
	}
	off := clockError(asked, time.Now(), stream.CachedInfo().TimeStamp)
	// A smaller error moves deadlines and waits by less than a second.
	if off.Abs() <= time.Second {
		return []Finding{{"clock", true, "the server's and this machine's agree"}}
	}
	way := "ahead of"
	if off < 0 {
		way = "behind"
	}
	return []Finding{{"clock", false, fmt.Sprintf("the server's is %s %s this machine's: not_before, deadline and waits are off by as much; set both by NTP", off.Abs().Round(time.Millisecond), way)}}
}

// clockError is how far a server's clock is ahead at least, which told its time between asked and answered.
func clockError(asked, answered, told time.Time) time.Duration {
	switch {
	// The server read its clock somewhere between asked and answered. A time outside that interval proves an
	// error, whatever the network took; a time inside proves none.
	case told.After(answered):
		return told.Sub(answered)
	case told.Before(asked):
		return told.Sub(asked)
	}
	return 0
}
