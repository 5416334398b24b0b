package bus_test

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

// TestAStreamThatCopiesAWorkQueueIsNamed: the server removes from a work queue what a mirror or a source has got, so that waiting
// jobs would be lost. Copies of the results do no harm.
func TestAStreamThatCopiesAWorkQueueIsNamed(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	copying := func() (found map[string]bus.Difference) {
		seen, err := in.InspectStreams(soon(t), bus.Settings{})
		must(t, err)
		found = map[string]bus.Difference{}
		for _, d := range seen.Differences {
			found[d.Name] = d
		}
		return found
	}
	if found := copying(); len(found) > 0 {
		t.Fatalf("got %v without copies, want nothing", found)
	}
	for _, c := range []jetstream.StreamConfig{
		{Name: "MIRROR", Mirror: &jetstream.StreamSource{Name: "GOFER_RETRIES"}},
		{Name: "SOURCING", Sources: []*jetstream.StreamSource{{Name: "GOFER_JOBS"}}},
		{Name: "HARMLESS", Mirror: &jetstream.StreamSource{Name: "GOFER_RESULTS"}},
	} {
		_, err := in.js.CreateStream(soon(t), c)
		must(t, err)
	}
	testenv.Eventually(t, "both to be seen", func() bool { return len(copying()) == 2 })
	found := copying()
	if d := found["stream GOFER_RETRIES"]; d.Use != bus.Unusable || !d.Essential || d.String() != `stream GOFER_RETRIES: mirrored or sourced by is stream "MIRROR", no stream is wanted` {
		t.Errorf("a mirror of the waiting jobs: got %+v", d)
	}
	if d := found["stream GOFER_JOBS"]; d.Use != bus.Lossy || d.Have != `stream "SOURCING"` {
		t.Errorf("a source of the jobs: got %+v", d)
	}
	must(t, in.js.DeleteStream(soon(t), "MIRROR"))
	must(t, in.js.DeleteStream(soon(t), "SOURCING"))
	testenv.Eventually(t, "both to be forgotten", func() bool { return len(copying()) == 0 })
}
