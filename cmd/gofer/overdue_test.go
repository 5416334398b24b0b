package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
	workstream "github.com/gofer-mq/gofer/worker/stream"
)

func TestOverdueJobsAreShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	if _, out, _ := gofer(t, "", "doctor"); !strings.Contains(out, "ok   waiting jobs") {
		t.Errorf("the doctor says, without a waiting job:\n%s", out)
	}
	at := time.Now().Add(25 * time.Second).UTC()
	for i := range 3 {
		if _, err := workstream.New(w.client).Schedule(t.Context(), "default", fmt.Sprint("j", i), []byte("http://shop.test/"), &jobs.Progress{}, at); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := workstream.New(w.client).Schedule(t.Context(), "default", "later", []byte("http://shop.test/"), &jobs.Progress{}, at.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if list := read[[]client.QueueState](t, "queues"); len(list) != 1 || list[0].Waiting != 4 || list[0].Overdue != 0 {
		t.Errorf("queues = %+v, want 4 waiting jobs and none overdue", list)
	}
	w.nats.ForgetTimers("GOFER_RETRIES")
	testenv.Eventually(t, "three jobs to be overdue", func() bool {
		list := read[[]client.QueueState](t, "queues")
		return len(list) == 1 && list[0].Waiting == 4 && list[0].Overdue == 3
	})
	code, out, _ := gofer(t, "", "doctor")
	if code != exitFailed || !strings.Contains(out, "BAD  waiting jobs") || !strings.Contains(out, "overdue (3)") || !strings.Contains(out, "deploy/nats/server.conf") {
		t.Errorf("the doctor says, exit %d:\n%s\nwant the three overdue jobs and what to do", code, out)
	}
	since := "overdue since " + at.Format("15:04:05.000Z")
	if _, out, _ := gofer(t, "", "job", "j1"); !strings.Contains(out, since) {
		t.Errorf("the job's story is\n%s\nwant it %s", out, since)
	}
	if _, out, _ := gofer(t, "", "job", "later"); strings.Contains(out, "overdue") {
		t.Errorf("the story of a job that waits for its time is\n%s", out)
	}
	if _, out, _ := gofer(t, "", "queues"); !strings.Contains(strings.ToLower(out), "overdue") {
		t.Errorf("the queues are\n%s\nwant a column of overdue jobs", out)
	}
}

func TestOneWorkerOfTheFleetLooksForOverdueJobs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w1, addr := w.named("w1")
	w2, _ := w.named("w2")
	workers := map[string]*program{"w1": w1, "w2": w2}
	js, err := jetstream.New(w.nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(t.Context(), "gofer-policy")
	if err != nil {
		t.Fatal(err)
	}
	leads := func() (name string) {
		entry, err := kv.Get(t.Context(), "leader.overdue")
		if err == nil {
			var value struct{ Worker string }
			if err := json.Unmarshal(entry.Value(), &value); err != nil {
				t.Fatal(err)
			}
			name = value.Worker
		} else if !errors.Is(err, jetstream.ErrKeyNotFound) {
			t.Fatal(err)
		}
		return name
	}
	testenv.Eventually(t, "a leader", func() bool { return workers[leads()] != nil })
	if _, page := w.get("http://" + addr + "/metrics"); !strings.Contains(page, "\ngofer_jobs_overdue_total 0\n") {
		t.Error("gofer_jobs_overdue_total is not served")
	}
	first := leads()
	workers[first].wait(t)
	delete(workers, first)
	testenv.Eventually(t, "the other worker to lead", func() bool { return workers[leads()] != nil })
}
