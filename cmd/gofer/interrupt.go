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
	// lastWriteTime is how long the reason of a forced end may take to be written: its reader may be why the process hangs.
	lastWriteTime = 100 * time.Millisecond
)

// interrupts end a context when a signal comes, and then the process if it goes on for too long. One value serves one run of the
// program.
type interrupts struct {
	exit    func(code int) // ends the process; nil in tests and in programs that call run: nothing is forced there
	ended   chan struct{}  // closed when run returns
	signals chan os.Signal

	mu          sync.Mutex    // guards the fields below
	limit       time.Duration // how long the process may take to end after its context has ended
	code        int           // of a process that takes longer
	restoreMode func()        // sets the mode of the terminal back; it never waits for the terminal
	writeLast   func()        // writes to the terminal what ends a screen
}

// newInterrupts makes interrupts with the limit of a verb.
func newInterrupts(exit func(code int)) *interrupts {
	return &interrupts{
		exit: exit, ended: make(chan struct{}), signals: make(chan os.Signal, 2), limit: endTime, code: exitSignalled,
		restoreMode: func() {}, writeLast: func() {},
	}
}

// setLimit sets how long the process may take to end after a signal, and the exit code of one that takes longer. A worker, which
// drains, calls it before a signal can come.
func (i *interrupts) setLimit(limit time.Duration, code int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.limit, i.code = limit, code
}

// setRestore sets what a forced end of the process calls first: mode restores the mode of the terminal and must not wait for the
// terminal; last may. Only a verb that takes over the terminal needs it.
func (i *interrupts) setRestore(mode, last func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.restoreMode, i.writeLast = mode, last
}

// signal does what SIGINT does. A terminal in raw mode sends no signal for Ctrl-C.
func (i *interrupts) signal() {
	select {
	case i.signals <- os.Interrupt:
	default: // two are there already
	}
}

// watch returns a context that the first SIGINT, SIGTERM or SIGHUP ends, with errInterrupted as cause. After that, the
// process ends at the second signal, or if it exceeds its limit: a verb may be in a call that takes no context, such as a
// write to a pipe that nobody reads. The caller calls stop, which ends the watch.
//
// A second SIGHUP does nothing: kernel and shell may each send one when a terminal is closed, and a worker that drains goes
// on. A process that nohup has started ignores all of them.
//
// The second signal is not left to the operating system: a shell starts background processes of a script with SIGINT ignored.
func (i *interrupts) watch(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	context.AfterFunc(ctx, i.endSoon)
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
			// After the end of the context this is the second signal, or the first one after the end of the parent.
			if ctx.Err() != nil && sig != syscall.SIGHUP && i.exit != nil {
				i.exitNow(exitSignalled, "")
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

// endSoon ends the process if it goes on for longer than its limit from now. It returns when run returns, if that is
// sooner.
func (i *interrupts) endSoon() {
	if i.exit == nil {
		return
	}
	// The limit is read now and not at the start, because setLimit may have been called since.
	i.mu.Lock()
	limit, code := i.limit, i.code
	i.mu.Unlock()
	select {
	case <-i.ended:
		return
	case <-time.After(limit):
	}
	i.exitNow(code, "gofer: interrupted, and not ended in time: giving up what is left\n")
}

// exitNow ends the process. First it restores the mode of the terminal, because a shell cannot use a raw one. It writes in a
// goroutine, because the terminal may be what hangs. It returns only if exit does, as in a test.
func (i *interrupts) exitNow(code int, reason string) {
	i.mu.Lock()
	mode, last := i.restoreMode, i.writeLast
	i.mu.Unlock()
	mode()
	begun, printed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(printed)
		close(begun)
		last()
		fmt.Fprint(os.Stderr, reason)
	}()
	<-begun // a busy machine may start the goroutine late, and lastWriteTime bounds only the writing
	select {
	case <-printed:
	case <-time.After(lastWriteTime):
	}
	// exit runs no deferred functions. A job that a worker still holds is delivered again after its ack wait.
	i.exit(code)
}

// interruptible returns a reader of from whose reads end with ctx, and then return its cause. It reads from in advance, but
// not before its own first read, so that a verb without input leaves standard input to others. A read of from that blocks
// goes on until the process ends. One goroutine at a time uses the reader.
func interruptible(ctx context.Context, from io.Reader) io.Reader {
	out, in := io.Pipe()
	begin := sync.OnceFunc(func() {
		context.AfterFunc(ctx, func() { _ = in.CloseWithError(context.Cause(ctx)) })
		go func() {
			_, err := io.Copy(in, from)
			_ = in.CloseWithError(err) // io.EOF if err is nil
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

// asInterruption returns the error of an interrupted verb, with exit code 130. It keeps an error that has its own exit
// code, unless the interruption is its cause. err is not nil.
func asInterruption(err error) error {
	if errors.Is(err, errInterrupted) { // such as a usage error about input that the interruption cut short
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

// sleep waits for d and reports whether ctx has not ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
