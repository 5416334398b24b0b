package stream

import (
	"fmt"
	"time"
)

const (
	// pullHeartbeat is the interval of the server's idle heartbeats for a waiting pull request.
	pullHeartbeat = 2 * time.Second
	// pullGrace is how late the server may be with its final answer or with a heartbeat.
	pullGrace = time.Second
	// minHeartbeatGap is the shortest time between two heartbeats by the clock of this machine: the clock of the server
	// may be a percent faster.
	minHeartbeatGap = pullHeartbeat - pullHeartbeat/100
	// pullRecheck is for how long messages are read that the server sent before it answered a ping.
	pullRecheck = 500 * time.Millisecond
)

// PullRequest asks a consumer for jobs.
type PullRequest struct {
	Stream, Consumer string
	// Jobs is how many jobs may be delivered, at least one. With a Wait it is one: a cluster may send a heartbeat
	// before a job that it delivered earlier, and the lease of the job would begin too late.
	Jobs int
	// Wait is how long the server waits for the first job. Zero asks for the jobs that are there.
	Wait time.Duration
	// Patience bounds the wait for a server that does not answer, counted from the request, or from its latest
	// heartbeat. A job that comes later is not delivered. Patience must be at most the ack wait of the consumer.
	Patience time.Duration
	// Next calls Waits for each heartbeat: without jobs, heartbeats may be the only answers for minutes. Nil is allowed.
	Waits func()
}

// BoundWait bounds the Wait of a request with this patience for a consumer with this ack wait. A job lease runs from a time
// that is certainly before the delivery. With heartbeats that is the latest one, and a pull may wait for any time. Without
// them it is the request, so the wait must leave most of the ack wait for the job.
func BoundWait(wait, patience, ackWait time.Duration) time.Duration {
	if wait >= 2*pullHeartbeat && patience >= 2*pullHeartbeat && ackWait >= 3*pullHeartbeat {
		return wait
	}
	return min(wait, patience/2, ackWait/3)
}

// Pull is a pull request that was sent. One goroutine calls Next until it returns nil.
type Pull struct {
	pulls      *Pulls
	inbox      *inbox
	key        string // of the consumer
	number     string
	maxSilence time.Duration // how long the server may say nothing
	waits      func()        // see PullRequest.Waits
	// connection is the number of the connection on which the request went out, or a lower one.
	connection uint64

	// The lock of pulls guards the times. notBefore is earlier than the sending of every message still to come: it is
	// the time of the request, plus a minHeartbeatGap for each heartbeat. until is notBefore plus patience.
	notBefore, until time.Time
	patience         time.Duration

	heartbeats chan struct{}  // holds one after a heartbeat
	jobs       chan *Delivery // closed at the end; holds all jobs that were asked for
	left       int            // jobs that may still come
	ended      bool
	err        error // written before jobs is closed
}

// body is the request as the server reads it.
func (r PullRequest) body() []byte {
	switch {
	case r.Wait == 0:
		return fmt.Appendf(nil, `{"batch":%d,"no_wait":true}`, r.Jobs)
	case r.hasHeartbeats():
		return fmt.Appendf(nil, `{"batch":%d,"expires":%d,"idle_heartbeat":%d}`, r.Jobs, r.Wait, pullHeartbeat)
	}
	return fmt.Appendf(nil, `{"batch":%d,"expires":%d}`, r.Jobs, r.Wait)
}

// hasHeartbeats reports whether the wait is long enough for two heartbeats. The server refuses a request for heartbeats
// with a shorter wait.
func (r PullRequest) hasHeartbeats() bool { return r.Wait >= 2*pullHeartbeat }

// maxSilence is how long a server that has not forgotten the request may send nothing.
func (r PullRequest) maxSilence() time.Duration {
	if r.hasHeartbeats() {
		return pullHeartbeat + pullGrace
	}
	return r.Wait + pullGrace
}

// Next waits for the next job. It returns nil when no more jobs come; then Err returns why.
//
// It pings a silent server on the same connection. The answer comes after everything that the server sent before. So Next
// waits for jobs on a slow link, and not for a server that has forgotten the request.
func (p *Pull) Next() *Delivery {
	select {
	case d := <-p.jobs:
		return d
	default:
	}
	silence := time.NewTimer(p.maxSilence)
	defer silence.Stop()
	for pinged := false; ; {
		select {
		case d := <-p.jobs:
			return d
		case <-p.heartbeats:
			if p.waits != nil {
				p.waits()
			}
			silence.Reset(p.maxSilence)
			pinged = false
			continue
		case <-silence.C:
		}
		if pinged || !p.isAlive() {
			p.pulls.end(p, nil, true)
			return <-p.jobs
		}
		silence.Reset(pullRecheck)
		pinged = true
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

// Err returns why the pull ended, once Next has returned nil: nil if its time or its jobs ran out. A server that does not
// answer is no error, because a paused consumer gives no answer.
func (p *Pull) Err() error { return p.err }
