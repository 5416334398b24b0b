package worker_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/stream"
)

const unknownField = `{"url":"http://a.test/","of_tomorrow":1}`

// send publishes a job that says for which contract it was written.
func (w *world) send(id, payload, contract string) {
	w.Helper()
	js, err := jetstream.New(w.nc)
	if err != nil {
		w.Fatal(err)
	}
	if _, err := js.PublishMsg(w.Context(), &nats.Msg{Subject: "gofer.jobs.default." + id, Data: []byte(payload), Header: nats.Header{"Job-Contract": {contract}}}); err != nil {
		w.Fatal(err)
	}
}

func TestAJobOfANewerContractIsLeftToANewerWorker(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{})
	w.start(func(_ context.Context, job *jobs.Job, p *jobs.Progress) *jobs.RunOutcome {
		result := p.Result(job, time.Now())
		result.Outcome, result.Status = jobs.Succeeded, 200
		return &jobs.RunOutcome{Kind: jobs.RunFinished, Result: result}
	})
	for _, version := range []string{"1.999", "9.0"} {
		w.send("newer-"+strings.ReplaceAll(version, ".", "-"), unknownField, version)
	}
	w.send("readable", `{"url":"http://a.test/"}`, "1.999")
	w.send("same", unknownField, jobs.ContractVersion)
	w.send("older", unknownField, "1.0")
	w.send("odd", unknownField, "newest")
	// A newer worker has scheduled this one; its time has come.
	waiting := jobs.Progress{JobSeq: 77, Contract: "1.999"}
	if _, err := stream.New(w.client).Schedule(t.Context(), "default", "due", []byte(unknownField), &waiting, time.Now()); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{"readable": "", "same": jobs.ErrInvalidJob, "older": jobs.ErrInvalidJob, "odd": jobs.ErrInvalidJob} {
		w.until("the result of "+id, func() bool {
			r, err := w.client.Result(t.Context(), "default", id)
			return err == nil && r.Error == want
		})
	}
	w.until("the three newer jobs to be handed back twice", func() bool { return w.worker.Stats().HandedBack >= 6 })
	for _, id := range []string{"newer-1-999", "newer-9-0", "due"} {
		if r, err := w.client.Result(t.Context(), "default", id); err == nil {
			t.Errorf("%s ended: %s %s", id, r.Error, r.Detail)
		}
	}
}
