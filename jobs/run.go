package jobs

import (
	"errors"
	"time"
)

// RunKind says how a run ended. A run is one worker's work on one delivered job.
type RunKind uint8

// The kinds of a run outcome. The zero value is none of them: an outcome without a kind is an error of the program.
const (
	RunFinished  RunKind = iota + 1 // Result is the job's result
	RunScheduled                    // the job waits until At, with Progress
	RunStopped                      // the worker stops: the job goes back with Progress, and waits until At if that is set
	RunLeaseLost                    // the lease ran out: the worker says nothing about the job
)

// String is the kind's name.
func (k RunKind) String() string {
	switch k {
	case RunFinished:
		return "finished"
	case RunScheduled:
		return "scheduled"
	case RunStopped:
		return "stopped"
	case RunLeaseLost:
		return "lease lost"
	}
	return "unknown"
}

// RunOutcome is how a run ended. Package fetch returns it, and package worker settles it.
type RunOutcome struct {
	Kind     RunKind
	Result   Result
	At       time.Time
	Progress Progress
	// NoProxy is true if the job waits because no proxy can be used.
	NoProxy bool
	// Wait says of a scheduled job that it waits for its site; nil if it waits for something else.
	Wait *SiteWait
	// Free is called when Result.Body is no longer needed, to give back the memory that is counted for it; nil for a small body.
	Free func()
}

// Release calls Free, if it is set.
func (o *RunOutcome) Release() {
	if o.Free != nil {
		o.Free()
	}
}

// SiteWait is a job's wait for its site.
type SiteWait struct {
	// Site is host and port, the default port left out.
	Site string
	// Since is when the job began to wait for it.
	Since time.Time
	// Until is when the site may be tested next; zero if it does not rest.
	Until time.Time
	// End is when the job is to be looked at because it may end then: by its deadline, its retry timeout or its longest wait. It
	// is zero if none of these can end the job yet.
	End time.Time
	// Detail is a sentence for people.
	Detail string
}

// The causes for which a running job is stopped. A job's context is cancelled with one of them, and whoever runs the job
// reads the cause: stopping is not failing.
var (
	// ErrLeaseLost: the server may have given the job to another worker. Say nothing about it.
	ErrLeaseLost = errors.New("the lease on the job ran out")
	// ErrJobCancelled: somebody cancelled the job.
	ErrJobCancelled = errors.New("the job was cancelled")
	// ErrStopping: the worker stops; the job goes back with its progress.
	ErrStopping = errors.New("the worker is stopping")
)
