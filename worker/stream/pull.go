package stream

import (
	"fmt"
	"time"
)

const (
	// pullBeat is how often the server says that a pull request which waits is not forgotten.
	pullBeat = 2 * time.Second
	// pullGrace is how long a server may be silent after the end of a pull request, or after the time of a beat.
	pullGrace = time.Second
	// pullRecheck is the time for what the server had sent before it answered a ping.
	pullRecheck = 500 * time.Millisecond
)

// PullRequest asks a consumer for jobs.
type PullRequest struct {
	Stream, Consumer string
	// Jobs is how many jobs may be delivered, at least one.
	Jobs int
	// Wait is how long the server waits for the first job. Zero asks for the jobs that are there.
	Wait time.Duration
	// Patience bounds the wait for a server that does not answer. A job that comes later is not delivered. It has to be at most
	// the ack wait of the consumer.
	Patience time.Duration
}

// Pull is a pull request that was sent. One goroutine calls Next until it returns nil.
type Pull struct {
	pulls  *Pulls
	inbox  *inbox
	key    string // of the consumer
	number string
	quiet  time.Duration // how long the server may say nothing
	until  time.Time     // the end of the patience
	// connection is the number of the connection on which the request went out, or a lower one.
	connection uint64

	beats chan struct{}  // holds one when the server has said that the pull waits
	jobs  chan *Delivery // closed at the end; holds all jobs that were asked for
	left  int            // jobs that may still come
	ended bool
	err   error // written before jobs is closed
}

// body is the request as the server reads it.
func (r PullRequest) body() []byte {
	switch {
	case r.Wait == 0:
		return fmt.Appendf(nil, `{"batch":%d,"no_wait":true}`, r.Jobs)
	case r.hasBeats():
		return fmt.Appendf(nil, `{"batch":%d,"expires":%d,"idle_heartbeat":%d}`, r.Jobs, r.Wait, pullBeat)
	}
	return fmt.Appendf(nil, `{"batch":%d,"expires":%d}`, r.Jobs, r.Wait)
}

// hasBeats reports whether the server has time for two beats, which is the least that it accepts.
func (r PullRequest) hasBeats() bool { return r.Wait >= 2*pullBeat }

// quiet is how long a server that has not forgotten the request may say nothing.
func (r PullRequest) quiet() time.Duration {
	if r.hasBeats() {
		return pullBeat + pullGrace
	}
	return r.Wait + pullGrace
}

// Next waits for the next job. It returns nil when no more jobs come; then Err says why.
//
// A server that is silent is asked for a sign of life on the same connection. Its answer comes after all that it had sent before,
// so jobs that are on their way through a slow link are waited for, and a request that the server has forgotten is not.
func (p *Pull) Next() *Delivery {
	select {
	case d := <-p.jobs:
		return d
	default:
	}
	silence := time.NewTimer(p.quiet)
	defer silence.Stop()
	for asked := false; ; {
		select {
		case d := <-p.jobs:
			return d
		case <-p.beats:
			silence.Reset(p.quiet)
			asked = false
			continue
		case <-silence.C:
		}
		if asked || !p.isAlive() {
			p.pulls.end(p, nil, true)
			return <-p.jobs
		}
		silence.Reset(pullRecheck)
		asked = true
	}
}

// isAlive reports whether the server answers a ping before the patience ends.
func (p *Pull) isAlive() bool {
	nc := p.pulls.client.Conn()
	return nc.IsConnected() && nc.FlushTimeout(time.Until(p.until)) == nil
}

// Err is why the pull ended, once Next has returned nil; nil if it ran out. A server that does not answer is no error: a pull
// from a paused consumer gets no answer.
func (p *Pull) Err() error { return p.err }
