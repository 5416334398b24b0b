package main

import (
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

// TestIdleConnectionsLeaveTheWorkerItsDescriptors has a client that holds more connections to each port of a worker than that
// has descriptors.
func TestIdleConnectionsLeaveTheWorkerItsDescriptors(t *testing.T) {
	t.Parallel()
	for _, embedded := range []bool{false, true} {
		t.Run(fmt.Sprintf("embedded server %v", embedded), func(t *testing.T) {
			w := newWorld(t, nil)
			ports := []string{freeAddr(t)}
			setenv(t, "GOFER_HTTP_ADDR", ports[0])
			if embedded {
				ports = append(ports, freeAddr(t))
				setenv(t, "GOFER_NATS_URL", "")
				setenv(t, "GOFER_EMBEDDED_ADDR", ports[1])
				setenv(t, "GOFER_DATA_DIR", t.TempDir())
			}
			p := launch(t, command(t, "ulimit -n 256", "worker"), nil)
			ready := func() bool {
				status, _ := w.get("http://" + ports[0] + "/readyz")
				return status == http.StatusOK
			}
			testenv.Eventually(t, "the worker to be ready", ready)
			if embedded {
				w.use("nats://" + ports[1])
			}
			for _, addr := range ports {
				for range 400 {
					conn, err := net.Dial("tcp", addr)
					if err != nil {
						t.Fatal(err)
					}
					defer func() { _ = conn.Close() }()
				}
			}
			for i := range 60 {
				w.publish(fmt.Sprint("j", i), job(fmt.Sprint("/ok?", i), nil))
			}
			for i := range 60 {
				if r := w.result(fmt.Sprint("j", i)); r.Outcome != jobs.Succeeded {
					t.Fatalf("job %d: %s %s %s; the worker said:\n%s", i, r.Outcome, r.Error, r.Detail, p.err)
				}
			}
			if !ready() {
				t.Errorf("the worker is not ready beside idle connections; it said:\n%s", p.err)
			}
		})
	}
}

// use makes another server the one that jobs are published to.
func (w *world) use(url string) {
	w.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(nc.Close)
	w.nc = nc
	if w.client, err = bus.New(nc, w.client.Names()); err != nil {
		w.Fatal(err)
	}
}
