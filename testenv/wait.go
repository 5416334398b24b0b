package testenv

import (
	"bytes"
	"sync"
	"testing"
	"time"
)

// Patience is how long a test waits for what has to happen, also on a machine with other work.
const Patience = 3 * time.Minute

// Eventually polls until a condition holds, and fails the test if it does not in time. What names the condition.
func Eventually(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); <-tick.C {
		if holds() {
			return
		}
	}
	tb.Fatalf("waited %s in vain for %s", Patience, what)
}

// Log is a buffer that may be written and read at the same time. The zero value is empty.
type Log struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

// Write appends to the log.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String returns what was written so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
