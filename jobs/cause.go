package jobs

import "errors"

// The causes for which a running job is stopped. A job's context is cancelled with one of them, and whoever runs the
// job asks for the cause: stopping is not failing.
var (
	// ErrLeaseLost: the server may have given the job to another worker. Say nothing about it.
	ErrLeaseLost = errors.New("the lease on the job ran out")
	// ErrJobCancelled: somebody cancelled the job.
	ErrJobCancelled = errors.New("the job was cancelled")
	// ErrStopping: the worker stops; the job goes back as it stands.
	ErrStopping = errors.New("the worker is stopping")
)
