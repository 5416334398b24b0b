package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
)

// order is a job to be published, and what is expected of it.
type order struct {
	id        string        // under which its result is published
	job       jobs.Job      // is published by the client, unless raw is there
	raw       *nats.Msg     // is published as it is: the server may refuse it, and then it is no job
	waits     time.Duration // what the job has to wait for at least
	cancelled bool
	twice     bool // is published again when it may have ended
	sound     bool // succeeds, with the job's own token as its body
	replay    bool // was published from a dead letter
}

// mix is the n-th job of a load.
type mix func(w *world, n int) order

// kind is what is asked of a job. Most are plain; the others go through every stream that a job can be in.
type kind struct {
	name      string
	every     int           // one job in so many
	waits     time.Duration // what the job has to wait for at least
	cancelled bool
	sound     bool
	job       func(id, url string) jobs.Job
}

func plainJob(id, url string) jobs.Job { return jobs.Job{ID: id, URL: url} }

// delayed is a job that waits in the stream for its time.
func delayed(id, url string) jobs.Job {
	return jobs.Job{ID: id, URL: url, NotBefore: time.Now().Add(3 * time.Second)}
}

// tried is a job with retries of its own.
func tried(attempts int, delay time.Duration) func(id, url string) jobs.Job {
	return func(id, url string) jobs.Job {
		fixed, jitter, base := jobs.Fixed, false, jobs.Duration(delay)
		return jobs.Job{ID: id, URL: url, Retry: &jobs.Override{MaxAttempts: &attempts, BackoffStrategy: &fixed, BaseDelay: &base, Jitter: &jitter}}
	}
}

// The origin tells by its name how to answer: see ServeHTTP.
const (
	kindFlaky = "flaky" // 503 at first
	kindLarge = "large" // a body for the object store
	kindFails = "fails" // always 503
)

func kinds() []kind {
	return []kind{
		{name: "delayed", every: 20, waits: 3 * time.Second, sound: true, job: delayed},
		// Too long to be waited for in a slot.
		{name: kindFlaky, every: 30, waits: 3 * time.Second, sound: true, job: tried(8, 3*time.Second)},
		{name: kindFails, every: 70, job: tried(2, 100*time.Millisecond)},
		{name: "cancelled", every: 90, waits: 3 * time.Second, cancelled: true, job: delayed},
		{name: kindLarge, every: 400, sound: true, job: plainJob},
	}
}

// kindOf is that of the n-th job.
func kindOf(n int) kind {
	for _, k := range kinds() {
		if n%k.every == k.every-1 {
			return k
		}
	}
	return kind{name: "plain", sound: true, job: plainJob}
}

func plainOrder(w *world, n int) order {
	k := kindOf(n)
	id := fmt.Sprintf("%s-%06d", k.name, n)
	return order{id: id, job: k.job(id, w.origin.url(id)), waits: k.waits, cancelled: k.cancelled, sound: k.sound}
}

// isKind reports whether an id, or the path that it is asked for by, is of a kind.
func isKind(id, name string) bool { return strings.HasPrefix(strings.TrimPrefix(id, "/"), name+"-") }
