package deploy_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

// TestCellsShareTheJobsOfOneSubject publishes through the account in front, which has no stream of its own.
func TestCellsShareTheJobsOfOneSubject(t *testing.T) {
	passwords(t, "cell", "publisher")
	testenv.DependOn(t, folder+"cells.conf")
	text, err := os.ReadFile(folder + "cells.conf")
	must(t, err)
	srv := start(t, t.TempDir(), string(text))
	var cells []*bus.Client
	for _, user := range []string{"cell0", "cell1"} {
		c := role{user, user, "p-cell"}.client(t, srv)
		must(t, c.Ensure(soon(t), bus.Settings{}))
		cells = append(cells, c)
	}
	nc, err := role{"publisher", "publisher", "p-publisher"}.connect(t, srv)
	must(t, err)
	js, err := jetstream.New(nc)
	must(t, err)
	heard, err := nc.SubscribeSync("gofer.results.>")
	must(t, err)
	must(t, nc.FlushWithContext(soon(t)))

	const n = 200
	for i := range n {
		_, err := js.Publish(soon(t), fmt.Sprint("gofer.jobs.default.j", i), []byte("http://a.test/"))
		must(t, err)
	}
	if _, err := js.Publish(soon(t), "gofer.jobs.default.j7", []byte("http://a.test/")); err == nil || !strings.Contains(err.Error(), "maximum messages per subject exceeded") {
		t.Errorf("a second job of a name: got %v, want a refusal", err)
	}
	var has []uint64
	for i, c := range cells {
		stream, err := c.JetStream().Stream(soon(t), "GOFER_JOBS")
		must(t, err)
		has = append(has, stream.CachedInfo().State.Msgs)
		_, err = c.StoreResult(soon(t), &jobs.Result{Queue: "default", ID: fmt.Sprint("of-cell-", i), Outcome: jobs.Succeeded, Status: 200})
		must(t, err)
		m, err := heard.NextMsgWithContext(soon(t))
		must(t, err)
		if want := fmt.Sprint("gofer.results.default.of-cell-", i); m.Subject != want {
			t.Errorf("got a result on %s, want %s", m.Subject, want)
		}
	}
	if has[0]+has[1] != n || has[0] < n/4 || has[1] < n/4 {
		t.Errorf("the cells have %d jobs, want %d in about equal parts", has, n)
	}
	if err := nc.Publish("gofer.jobs.default.a.b", []byte("http://a.test/")); err != nil || !isRefused(t, nc) {
		t.Errorf("a job that is not spread is not refused: %v", err)
	}
}
