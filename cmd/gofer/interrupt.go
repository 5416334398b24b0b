package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// errInterrupted is the cause of a context that a signal has ended.
var errInterrupted = errors.New("interrupted")

const (
	// endTime is how long a verb may take to end after a signal; the worker has its drain timeout.
	endTime = 500 * time.Millisecond
	// lastWord is how long the reason of a forced end may take to be written: who reads it may be why the process hangs.
	lastWord = 100 * time.Millisecond
)

// interrupts turn signals into the end of a context, and see to it that the process then ends. One of them
// serves one run of the program. It never ends the process of a test or of a program that embeds run: exit is nil
// there.
type interrupts struct {
	exit    func(code int) // ends the process; nil if this is not the whole process, which nothing forces then
	ended   chan struct{}  // closed when run returns
	signals chan os.Signal

	mu    sync.Mutex    // guards the fields below
	limit time.Duration // how long the process may take to end after its context has ended
	code  int           // of a process that takes longer
	mode  func()        // sets the mode of the terminal back; it never waits for the terminal
	last  func()        // writes to the terminal what ends a screen
}

// newInterrupts makes interrupts with the limit of a verb. exit may be nil, as in tests.
func newInterrupts(exit func(code int)) *interrupts {
	return &interrupts{
		exit: exit, ended: make(chan struct{}), signals: make(chan os.Signal, 2), limit: endTime, code: exitSignalled,
		mode: func() {}, last: func() {},
	}
}

// allow sets another limit than a verb has, and the exit code of a process that exceeds it. A worker calls it, because it
// drains.
func (i *interrupts) allow(limit time.Duration, code int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	// endSoon reads both after the first signal, so a worker has to call it before that.
	i.limit, i.code = limit, code
}

// restoring sets what an end of the process by force calls first: mode sets the mode of the terminal back and must not wait for
// what the terminal takes; last may. Only a verb that takes over the terminal needs it.
func (i *interrupts) restoring(mode, last func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.mode, i.last = mode, last
}

// signal does what SIGINT does. A terminal in raw mode sends no signal for Ctrl-C.
func (i *interrupts) signal() {
	select {
	case i.signals <- os.Interrupt:
	default: // two are there already
	}
}

// watch returns a context that the first SIGINT, SIGTERM or SIGHUP ends, with errInterrupted as cause. The second signal ends
// the process. stop ends the watch and must be called.
//
// A second SIGHUP does nothing: kernel and shell may each send one when a terminal is closed, and a worker that drains goes on.
// A process that nohup has started ignores all of them.
//
// The second signal is not left to the operating system: a shell starts background processes of a script with SIGINT
// ignored, and there it would do nothing.
func (i *interrupts) watch(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	// force is set up before the first signal can come.
	i.force(ctx)
	signal.Notify(i.signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(i.signals, syscall.SIGHUP)
	}
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			var sig os.Signal
			select {
			case sig = <-i.signals:
			case <-i.ended:
				return
			}
			// The context has ended before, so this is the second signal, or the first after the end of the
			// parent's context.
			if ctx.Err() != nil && sig != syscall.SIGHUP && i.exit != nil {
				i.leave(exitSignalled, "")
			}
			cancel(errInterrupted)
		}
	})
	return ctx, func() {
		signal.Stop(i.signals)
		close(i.ended)
		watching.Wait()
		cancel(nil)
	}
}

// force ends the process if it goes on for longer than its limit after ctx has ended. A verb may be in a call that takes
// no context, such as a write to a pipe that nobody reads. It is AfterFunc's own goroutine that waits; it ends
// with run.
func (i *interrupts) force(ctx context.Context) {
	context.AfterFunc(ctx, i.endSoon)
}

// endSoon ends the process if it goes on for longer than its limit from now. It returns when run returns, if that is
// sooner.
func (i *interrupts) endSoon() {
	if i.exit == nil {
		return
	}
	// Read after the signal: allow may have been called since the start.
	i.mu.Lock()
	limit, code := i.limit, i.code
	i.mu.Unlock()
	select {
	case <-i.ended:
		return
	case <-time.After(limit):
	}
	i.leave(code, "gofer: interrupted, and not ended in time: giving up what is left\n")
}

// leave ends the process. The mode of the terminal is set back in any case: a shell cannot use one that is left raw. What is
// written is written in a goroutine, because the terminal may be what hangs. The call returns only if exit does, as
// in a test.
func (i *interrupts) leave(code int, reason string) {
	i.mu.Lock()
	mode, last := i.mode, i.last
	i.mu.Unlock()
	mode()
	begun, said := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(said)
		close(begun)
		last()
		fmt.Fprint(os.Stderr, reason)
	}()
	// A busy machine may start the goroutine late: lastWord bounds the writing alone.
	<-begun
	select {
	case <-said:
	case <-time.After(lastWord):
	}
	// exit runs no deferred functions. A job that a worker still holds is delivered again after its ack wait.
	i.exit(code)
}

// reading returns a reader of from that ends with ctx: a read then returns ctx's cause at once, whatever from does. from
// is read in advance, from the first read on. A read of from that blocks goes on until the process ends; nothing can stop
// it. One goroutine reads from the result at a time.
func reading(ctx context.Context, from io.Reader) io.Reader {
	// A pipe separates the blocking read from the reader that a context can end.
	out, in := io.Pipe()
	// Nothing is read before the verb asks for it, so that a verb without input leaves standard input to
	// others.
	begin := sync.OnceFunc(func() {
		context.AfterFunc(ctx, func() { _ = in.CloseWithError(context.Cause(ctx)) })
		go func() {
			_, err := io.Copy(in, from)
			// A nil error becomes io.EOF.
			_ = in.CloseWithError(err)
		}()
	})
	return readerFunc(func(p []byte) (int, error) {
		begin()
		return out.Read(p)
	})
}

// readerFunc is a reader of one function.
type readerFunc func(p []byte) (int, error)

// Read calls the function.
func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// interruption returns the error of a verb that was interrupted, with exit code 130. An error that has its own exit code
// is kept, unless the interruption is its cause: it would have happened without it. err is not nil.
func interruption(err error) error {
	// A verb takes an end of its input for a mistake in it.
	if errors.Is(err, errInterrupted) {
		return &failure{code: exitSignalled, err: err}
	}
	// Usage, configuration and failed jobs keep their own code.
	if code := exitCode(err); code != exitFailed && code != exitUnreachable {
		return err
	}
	return &failure{code: exitSignalled, err: errInterrupted}
}

// inputError is the error of reading standard input, or the interruption if that ended the input.
func inputError(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// sleep waits for d and reports whether ctx has not ended before. A timer instead of time.After, so that
// nothing stays behind when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
