package totals_test

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

// installation is a server with an installation's streams.
type installation struct {
	nats  *testenv.NATS
	names jobs.Names
}

func newInstallation(t *testing.T) *installation {
	t.Helper()
	in := &installation{nats: testenv.StartNATS(t, nil)}
	var err error
	if in.names, err = jobs.NewNames(""); err != nil {
		t.Fatal(err)
	}
	client, err := bus.New(in.nats.Connect(), in.names)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	return in
}

// eventually polls until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-tick.C {
		if holds() {
			return
		}
	}
	t.Fatalf("waited 20 s in vain for %s", what)
}

// lockedBuffer is a buffer that may be written and read at the same time.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
