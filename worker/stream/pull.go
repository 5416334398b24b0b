package stream

import (
	"fmt"
	"math"
	"time"
)

const (
	// pullBeat is the interval of the server's idle heartbeats for a waiting pull request.
	pullBeat = 2 * time.Second
	// pullGrace is how late the server may be with its final answer or with a heartbeat.
	pullGrace = time.Second
	// pullPace is the least time between two heartbeats by the clock of this machine: the clock of the server may be a percent
	// faster.
	pullPace = pullBeat - pullBeat/100
	// pullRecheck is how long messages are still read that the server sent before its ping answer.
	pullRecheck = 500 * time.Millisecond
)

// PullRequest asks a consumer for jobs.
type PullRequest struct {
	Stream, Consumer string
	// Jobs is how many jobs may be delivered, at least one. With a Wait it is one: a cluster may send a beat before a job that it
	// delivered earlier, and the beat would let the lease of the job begin too late.
	Jobs int
	// Wait is how long the server waits for the first job. Zero asks for the jobs that are there.
	Wait time.Duration
	// Patience bounds the wait for a server that does not answer, counted from the request, or from its latest heartbeat. A job
	// that comes later is not delivered. Patience must be at most the ack wait of the consumer.
	Patience time.Duration
	// Waits is called by Next when the server has said that the request waits: without jobs that may be the only answer for
	// minutes. Nil is nothing.
	Waits func()
}

// LongestWait is the longest Wait of a request with this patience for a consumer with this ack wait. The lease of a job runs from
// before its delivery. If the wait is long enough for heartbeats, they date the delivery closely, and a pull may wait for any
// time. Otherwise it is only known that the request came before, so the wait leaves most of the ack wait for the job.
func LongestWait(patience, ackWait time.Duration) time.Duration {
	if patience >= 2*pullBeat && ackWait >= 3*pullBeat {
		return math.MaxInt64
	}
	return min(patience/2, ackWait/3)
}

// Pull is a pull request that was sent. One goroutine calls Next until it returns nil.
type Pull struct {
	pulls  *Pulls
	inbox  *inbox
	key    string // of the consumer
	number string
	quiet  time.Duration // how long the server may say nothing
	waits  func()        // see PullRequest.Waits
	// connection is the number of the connection on which the request went out, or a lower one.
	connection uint64

	// The times are guarded by the lock of pulls. since is earlier than every message still to come: it is the time of the
	// request, plus a pullPace for each heartbeat. until is the end of the patience, which
	// begins at since.
	since, until time.Time
	patience     time.Duration

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

// hasBeats reports whether the wait is long enough for two heartbeats. The server refuses a request for heartbeats with a shorter
// wait.
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
// A server that is silent is pinged on the same connection. Its answer comes after all that it had sent before. So Next waits for
// jobs that are on their way through a slow link, and not for a request that the server has forgotten.
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
			if p.waits != nil {
				p.waits()
			}
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
	p.pulls.mu.Lock()
	left := time.Until(p.until)
	p.pulls.mu.Unlock()
	nc := p.pulls.client.Conn()
	return nc.IsConnected() && nc.FlushTimeout(left) == nil
}

// Err is why the pull ended, once Next has returned nil; nil if it ran out. A server that does not answer is no error: a pull
// from a paused consumer gets no answer.
func (p *Pull) Err() error { return p.err }
