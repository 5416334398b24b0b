package bus_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

func TestNothingIsBehindOnOneServer(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	must(t, in.AwaitReplicas(soon(t), bus.Settings{}, func(behind []bus.ReplicaLag) { t.Errorf("got %v behind", behind) }))
}

func TestWhatIsMissingIsBehind(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	must(t, in.js.DeleteStream(soon(t), "GOFER_DEAD"))
	behind, err := in.ReplicaLags(soon(t), bus.Settings{})
	must(t, err)
	var names []string
	for _, b := range behind {
		names = append(names, b.Name)
	}
	if want := []string{"stream GOFER_DEAD", "consumer reader of stream GOFER_DEAD"}; !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
	gaveUp := errors.New("gave up")
	ctx, cancel := context.WithCancelCause(soon(t))
	err = in.AwaitReplicas(ctx, bus.Settings{}, func([]bus.ReplicaLag) { cancel(gaveUp) })
	if !errors.Is(err, gaveUp) || !strings.Contains(err.Error(), "GOFER_DEAD") {
		t.Errorf("got %v, want why the wait ended and what is behind", err)
	}
}

func TestTheWaitForReplicasLastsUntilNothingIsBehind(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	must(t, in.js.DeleteStream(soon(t), "GOFER_DEAD"))
	reports := 0
	must(t, in.AwaitReplicas(soon(t), bus.Settings{}, func([]bus.ReplicaLag) {
		if reports++; reports == 3 {
			must(t, in.Ensure(soon(t), bus.Settings{}))
		}
	}))
	if reports < 3 {
		t.Errorf("got %d reports, want the wait to last while the stream is missing", reports)
	}
}

func TestReplicasAreAwaited(t *testing.T) {
	testenv.Long(t)
	t.Parallel()
	in, cluster := onCluster(t, bus.Settings{})
	_, err := in.Apply(soon(t), bus.Settings{Replicas: 3})
	must(t, err)
	waited := 0
	long, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // a work queue is moved in 20 s
	defer cancel()
	must(t, in.AwaitReplicas(long, bus.Settings{Replicas: 3}, func([]bus.ReplicaLag) { waited++ }))
	if waited == 0 {
		t.Error("got all replicas at once, want some to be behind just after the change")
	}
	stream, err := in.js.Stream(soon(t), "GOFER_JOBS")
	must(t, err)
	if c := stream.CachedInfo().Cluster; len(c.Replicas) != 2 || c.Desired != nil {
		t.Errorf("got %+v, want two replicas beside the leader and the move at its end", c)
	}
	cluster.Kill(2)
	testenv.Eventually(t, "a replica to be behind", func() bool {
		behind, err := in.ReplicaLags(soon(t), bus.Settings{Replicas: 3})
		return err == nil && slices.ContainsFunc(behind, func(b bus.ReplicaLag) bool { return strings.Contains(b.Why, "n2 is") })
	})
	cluster.Start(2)
	must(t, in.AwaitReplicas(long, bus.Settings{Replicas: 3}, func([]bus.ReplicaLag) {}))
}
