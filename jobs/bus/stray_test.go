package bus_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// TestResultsStoredUnderAnotherSubjectAreFoundAgain takes the transform from the stream of results and gives it back by another
// client. Its settings are right then, and gofer setup still has something to do.
func TestResultsStoredUnderAnotherSubjectAreFoundAgain(t *testing.T) {
	in := install(t, bus.Settings{})
	name := in.names.Stream("RESULTS")
	stream, err := in.js.Stream(soon(t), name)
	must(t, err)
	right := stream.CachedInfo().Config
	edited := right
	edited.SubjectTransform, edited.RePublish = nil, nil
	change := func(c jetstream.StreamConfig) {
		_, err := in.js.UpdateStream(soon(t), c)
		must(t, err)
	}
	change(edited)
	in.store(t, "stray", []byte("page"))
	change(right)

	plan, err := in.Plan(soon(t), bus.Settings{})
	must(t, err)
	if len(plan) != 1 || !strings.Contains(plan[0].String(), name) || !strings.Contains(plan[0].String(), in.names.ResultsIngress()) {
		t.Errorf("planned %q, want the results that no reader finds", lines(plan))
	}
	for _, repairs := range []int{1, 0} {
		done, err := in.Apply(soon(t), bus.Settings{})
		must(t, err)
		if len(done) != repairs {
			t.Errorf("done %q, want %d repairs", lines(done), repairs)
		}
	}
	found, err := in.Result(soon(t), "default", "stray")
	must(t, err)
	if found.Outcome != jobs.Succeeded || string(found.Body) != "page" {
		t.Errorf("found %s %q, want the result that was stored", found.Outcome, found.Body)
	}
}
