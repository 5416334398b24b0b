package bus_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

// tear restarts the server in the midst of a flush, once it has stored some of its counters: what follows them is broken.
func (in *installation) tear(t *testing.T, inc bus.Increments, stored int) {
	t.Helper()
	var batch []*nats.Msg
	for _, name := range slices.Sorted(maps.Keys(inc.Counts)) {
		batch = append(batch, in.increment(name, inc.Counts[name]))
	}
	mark := in.increment(inc.Mark, "1")
	mark.Header.Set(jetstream.MsgIDHeader, inc.ID)
	in.server.TearBatch("GOFER_ROLLUPS", stored, append(batch, mark))
	in.isBack(t)
}

// isBack waits until the client has found the restarted server.
func (in *installation) isBack(t *testing.T) {
	t.Helper()
	eventually(t, func() bool { return in.nc.FlushTimeout(time.Second) == nil })
}

func (in *installation) increment(name, n string) *nats.Msg {
	msg := nats.NewMsg(bus.RollupSubject(in.names, name))
	msg.Header.Set("Nats-Incr", "+"+n)
	return msg
}

// counting is one for each of so many counters.
func counting(counters int) map[string]string {
	out := map[string]string{}
	for i := range counters {
		out[fmt.Sprintf("hour.2026010100.c%04d", i)] = strconv.Itoa(i + 1)
	}
	return out
}

// isCounted expects the sums after all of these were flushed.
func (in *installation) isCounted(t *testing.T, flushes int, each map[string]string) {
	t.Helper()
	got := in.sums(t)
	for name, n := range each {
		one, err := strconv.Atoi(n)
		must(t, err)
		if want := strconv.Itoa(flushes * one); got[name] != want {
			t.Fatalf("%s: got %s, want %s", name, got[name], want)
		}
	}
}

// broken reads what there is to mend.
func (in *installation) broken(tb testing.TB) (out []bus.Broken) {
	tb.Helper()
	for _, prefix := range []string{"hour", "proxy"} {
		eventually(tb, func() bool { // the server may be on its way back
			ctx, stop := context.WithCancelCause(soon(tb))
			var found []bus.Broken
			err := in.Rollups(ctx, prefix, time.Time{}, func(string, string) {},
				func(b bus.Broken) { found = append(found, b) }, func() { stop(errEnough) })
			if !errors.Is(err, errEnough) {
				return false
			}
			out = append(out, found...)
			return true
		})
	}
	return out
}

// isBroken tells that the server refuses to add to a counter.
func isBroken(err error) bool { return err != nil && strings.Contains(err.Error(), "10172") }

// TestBrokenCountersAreMendedOnce lets four workers mend at once what a restart left of a flush.
func TestBrokenCountersAreMendedOnce(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	each := counting(900)
	must(t, in.AddRollups(soon(t), flush("a", 1, each)))
	in.tear(t, flush("a", 2, each), 100)
	next := flush("b", 1, each)
	if err := in.AddRollups(soon(t), next); !isBroken(err) {
		t.Fatalf("flush after the restart: got %v, want broken counters", err)
	}
	broken := in.broken(t)
	if len(broken) != 800 {
		t.Fatalf("got %d broken, want the 800 that were not stored before the restart", len(broken))
	}
	var menders sync.WaitGroup
	for i := range 4 {
		menders.Go(func() {
			worker := on(t, in.server, bus.Dial{})
			if err := worker.MendRollups(soon(t), broken[:400]); err != nil {
				t.Error(err)
			}
			// What they read may differ, and then they stand in one another's way more than once.
			mine := broken[i*50 : len(broken)-i*50]
			eventually(t, func() bool { return worker.MendRollups(soon(t), mine) == nil })
		})
	}
	menders.Wait()
	in.isCounted(t, 2, each)
	if left := in.broken(t); len(left) != 0 {
		t.Errorf("broken after they were mended: got %v", left)
	}
	in.restart()
	in.isBack(t)
	must(t, in.MendRollups(soon(t), broken))
	next.Repeated = true
	must(t, in.AddRollups(soon(t), next))
	in.isCounted(t, 3, each)
}

// TestMendThatNobodyFinishedIsFinished deletes what is broken, as a worker does that dies then, and breaks the same counters
// again.
func TestMendThatNobodyFinishedIsFinished(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	each := counting(3)
	must(t, in.AddRollups(soon(t), flush("a", 1, each)))
	in.tear(t, flush("a", 2, each), 1)
	stream, err := in.js.Stream(soon(t), "GOFER_ROLLUPS")
	must(t, err)
	broken := in.broken(t)
	for _, b := range broken {
		must(t, stream.DeleteMsg(soon(t), b.Seq))
	}
	in.tear(t, flush("b", 1, each), 1)
	again := in.broken(t)
	must(t, in.MendRollups(soon(t), slices.Concat(again, broken, again)))
	in.isCounted(t, 3, each)
}

// TestMendThatARestartBrokeIsMended tears the batch of a mend, in the place where its first counter is stored and its mark is not.
func TestMendThatARestartBrokeIsMended(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	each := counting(3)
	must(t, in.AddRollups(soon(t), flush("a", 1, each)))
	in.tear(t, flush("a", 2, each), 1)
	stream, err := in.js.Stream(soon(t), "GOFER_ROLLUPS")
	must(t, err)
	broken := in.broken(t)
	var batch []*nats.Msg
	for _, b := range broken {
		must(t, stream.DeleteMsg(soon(t), b.Seq))
		batch = append(batch, in.increment(b.Name, each[b.Name]))
	}
	for _, b := range broken {
		batch = append(batch, in.increment("mended."+b.ID, "1"))
	}
	in.server.TearBatch("GOFER_ROLLUPS", 1, batch)
	in.isBack(t)
	must(t, in.MendRollups(soon(t), broken))
	again := in.broken(t)
	if len(again) != 1 || again[0].Name != broken[1].Name {
		t.Fatalf("broken after the second restart: got %v, want %s", again, broken[1].Name)
	}
	must(t, in.MendRollups(soon(t), append(again, broken...)))
	in.isCounted(t, 2, each)
}

func TestNothingIsMendedInAnotherStream(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	each := counting(3)
	in.tear(t, flush("a", 1, each), 1)
	broken := in.broken(t)
	must(t, in.js.DeleteStream(soon(t), "GOFER_ROLLUPS"))
	_, err := in.Apply(soon(t), bus.Settings{})
	must(t, err)
	must(t, in.AddRollups(soon(t), flush("b", 1, each)))
	must(t, in.AddRollups(soon(t), flush("b", 2, each)))
	must(t, in.MendRollups(soon(t), broken))
	in.isCounted(t, 2, each)
}

func TestBrokenMarkTellsWhatWasStored(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	inc := flush("a", 1, counting(3))
	in.tear(t, inc, 1)
	if id, broken, err := in.RollupMark(soon(t), inc.Mark); err != nil || !broken || id != inc.ID {
		t.Errorf("got %q, broken %v, %v; want %q, broken", id, broken, err, inc.ID)
	}
	inc.Repeated = true
	must(t, in.AddRollups(soon(t), inc))
	if err := in.AddRollups(soon(t), flush("a", 2, nil)); !isBroken(err) {
		t.Errorf("another one under it: got %v, want it refused", err)
	}
	if left := in.broken(t); len(left) != 2 {
		t.Errorf("got %d broken, want two counters and not the mark", len(left))
	}
}

// TestBrokenCountersOfAnOlderStreamAreMended has a stream that keeps one message for each counter.
func TestBrokenCountersOfAnOlderStreamAreMended(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	stream, err := in.js.Stream(soon(t), "GOFER_ROLLUPS")
	must(t, err)
	config := stream.CachedInfo().Config
	config.MaxMsgsPerSubject = 1
	_, err = in.js.UpdateStream(soon(t), config)
	must(t, err)
	each := counting(3)
	in.tear(t, flush("a", 1, each), 1)
	must(t, in.MendRollups(soon(t), in.broken(t)))
	in.isCounted(t, 1, each)
	differences, err := in.Apply(soon(t), bus.Settings{})
	must(t, err)
	if got, want := lines(differences), "stream GOFER_ROLLUPS: max_msgs_per_subject is 1, 2 is wanted"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	must(t, in.AddRollups(soon(t), flush("b", 1, each)))
	in.isCounted(t, 2, each)
}

func TestMendingWithoutThePermissionNamesIt(t *testing.T) {
	t.Parallel()
	s := testenv.StartNATS(t, func(o *server.Options) {
		o.NoAuthUser = "all"
		o.Users = []*server.User{{Username: "all", Password: "p"}, {
			Username: "worker", Password: "p",
			Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.API.STREAM.MSG.DELETE.>"}}},
		}}
	})
	in, worker := on(t, s, bus.Dial{}), on(t, s, bus.Dial{User: "worker", Password: "p"})
	must(t, in.Ensure(soon(t), bus.Settings{}))
	in.tear(t, flush("a", 1, counting(3)), 1)
	worker.isBack(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err := worker.MendRollups(ctx, in.broken(t))
	isError(t, err, bus.ErrPermission)
	if !strings.Contains(err.Error(), `"$JS.API.STREAM.MSG.DELETE.GOFER_ROLLUPS"`) {
		t.Errorf("got %v, want the subject named", err)
	}
}
