package worker

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/stream"
)

// Shares of the limit of the retries stream. At the limit the server silently drops the oldest scheduled job. The room between
// the shares is for running jobs: a job that was scheduled before needs more room only until its older message is acked.
const (
	nearlyFull        = 0.5  // above it no fresh jobs are taken
	maxScheduledFresh = 0.75 // above it no fresh job is scheduled
	maxScheduledAgain = 0.95 // above it no job is scheduled again
)

const (
	// waitingOverhead bounds what a scheduled job takes beyond its payload and its progress: subject and other headers.
	waitingOverhead = 4 << 10
	// releaseRoom is more than the largest due job takes. The server stores a due job before it removes the scheduled one.
	releaseRoom = 1 << 20
	// Below this free room a job is stored only if nobody has stored another one since the server was asked. Above it, sixty
	// workers together cannot fill it during one request.
	guardedBytes, guardedMsgs = 64 << 20, 100_000
	// unguardedBytes bounds what one worker stores at the same time without that guard. A larger job is stored alone.
	unguardedBytes = 1 << 20
	// fillValid is how long the worker relies on its last answer about the limits and the free room of the stream.
	fillValid = time.Second
	// maxChanges bounds the tries of a worker while other workers always store a job first.
	maxChanges = 64
	// longestPause bounds the pause between two tries.
	longestPause = 250 * time.Millisecond
)

// errNoRoomToWait means that the server would drop the oldest scheduled job to store another one.
var errNoRoomToWait = errors.New("there is no room for another waiting job")

// storeInRoom calls store, which stores a job of so many bytes as a scheduled job with this progress, again if it was scheduled
// before. It returns errNoRoomToWait instead if the server would drop another scheduled job for it. It asks the server for each
// job only if the stream has a limit.
func (w *Worker) storeInRoom(ctx context.Context, payload int, again bool, progress *jobs.Progress, store func(context.Context, *stream.Client) error) error {
	known, err := w.knownFill(ctx)
	if err != nil {
		return err
	}
	if known.MaxBytes == 0 && known.MaxMsgs == 0 {
		return store(ctx, w.client)
	}
	encoded, err := progress.Encode()
	if err != nil {
		return err
	}
	size := int64(payload + len(encoded) + waitingOverhead)
	if known.HasFree(guardedBytes, guardedMsgs) {
		if isFree, err := w.storeUnguarded(ctx, size, again, store); isFree || err != nil {
			return err
		}
	}
	return w.storeGuarded(ctx, size, again, store)
}

// storeUnguarded calls store for a job of size bytes if the stream has so much free room that no guard is needed. isFree reports
// whether it has so much.
func (w *Worker) storeUnguarded(ctx context.Context, size int64, again bool, store func(context.Context, *stream.Client) error) (isFree bool, err error) {
	// Without this bound the slots of one worker could fill the room: each of them asks before any of them has stored its job.
	part := min(size, unguardedBytes)
	if err := w.unguarded.Acquire(ctx, part); err != nil {
		return false, err
	}
	defer w.unguarded.Release(part)
	fill, err := w.client.Waiting(ctx)
	switch {
	case err != nil || !fill.HasFree(guardedBytes, guardedMsgs):
		return false, err
	case !hasRoom(fill, size, again):
		return true, errNoRoomToWait
	}
	return true, store(ctx, w.client)
}

// knownFill is the fill of the stream of waiting jobs at the time at which the server was asked.
type knownFill struct {
	askedAt time.Time
	fill    bus.Fill
}

// knownFill returns the fill of the stream of waiting jobs, at most fillValid old. It does not rely on the last inspection, which
// is a minute old in a worker without work: beyond a limit that somebody has set since, the server would drop jobs.
func (w *Worker) knownFill(ctx context.Context) (bus.Fill, error) {
	if known := w.waitingFill.Load(); known != nil && time.Since(known.askedAt) < fillValid {
		return known.fill, nil
	}
	// Thousands of jobs may have to wait at the same moment. They share one question, so no job's ctx may end the question.
	answer := w.askingFill.DoChan("", func() (any, error) {
		now := knownFill{askedAt: time.Now()}
		fill, err := w.client.Waiting(context.WithoutCancel(ctx))
		// A user who may not ask stores jobs all the same.
		if err != nil && !errors.Is(err, bus.ErrPermission) {
			return fill, err
		}
		now.fill = fill
		w.waitingFill.Store(&now)
		return fill, nil
	})
	select {
	case <-ctx.Done():
		return bus.Fill{}, ctx.Err()
	case a := <-answer:
		return a.Val.(bus.Fill), a.Err
	}
}

// storeGuarded calls store with a client that stores a job of so many bytes only if the server has stored no other one since it
// was asked how full the stream is. Without that, jobs which several workers store at the same moment would not count for each
// other.
func (w *Worker) storeGuarded(ctx context.Context, size int64, again bool, store func(context.Context, *stream.Client) error) error {
	// This worker stores one job at a time, because concurrent guarded stores would make each other fail.
	select {
	case w.storing <- struct{}{}:
		defer func() { <-w.storing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for try := range maxChanges {
		began := time.Now()
		fill, err := w.client.Waiting(ctx)
		if err != nil {
			return err
		}
		if !hasRoom(fill, size, again) {
			break
		}
		if err = store(ctx, w.client.IfUnchanged(fill.LastSeq)); !errors.Is(err, stream.ErrChanged) {
			return err
		}
		// If all workers try again at once, they make each other fail: of a hundred workers, one try in forty stores a job. So
		// the pause is random, and its bound doubles with each try.
		sleep(ctx, rand.N(max(min(time.Since(began)<<min(try+1, 8), longestPause), 1)))
	}
	return errNoRoomToWait
}

// hasRoom reports whether a job of size bytes can be scheduled in a stream with this fill. again means that the job was scheduled
// before.
func hasRoom(fill bus.Fill, size int64, again bool) bool {
	part := maxScheduledFresh
	if again {
		part = maxScheduledAgain
	}
	fill.Bytes, fill.Msgs = fill.Bytes+size, fill.Msgs+1
	return !fill.Above(part) && fill.HasFree(releaseRoom, 1)
}
