package doctor_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/control"
	"github.com/gofer-mq/gofer/worker/doctor"
)

// patient is an installation to be examined.
type patient struct {
	*testing.T
	nc  *nats.Conn
	bus *bus.Client
}

// admit makes an installation with its streams and no worker.
func admit(t *testing.T) *patient {
	t.Helper()
	nc := testenv.StartNATS(t, nil).Connect()
	names, err := jobs.NewNames("")
	if err != nil {
		t.Fatal(err)
	}
	b, err := bus.New(nc, names)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	return &patient{t, nc, b}
}

// examine returns the findings as lines, each with whether it is good, its name and its detail.
func (p *patient) examine(change ...func(*doctor.Config)) (lines []string) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), testenv.Patience)
	defer cancel()
	c := doctor.Config{NATS: p.nc, Bus: p.bus, Explain: error.Error, Repair: func(bus.Difference) string { return "" }}
	for _, f := range change {
		f(&c)
	}
	for _, f := range doctor.Examine(ctx, c) {
		lines = append(lines, fmt.Sprintf("%t %s: %s", f.OK, f.Name, f.Detail))
	}
	return lines
}

// finds reports an error unless one of the lines begins with the text.
func (p *patient) finds(lines []string, text string) {
	p.Helper()
	if !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, text) }) {
		p.Errorf("no finding begins with %q in:\n%s", text, strings.Join(lines, "\n"))
	}
}

func (p *patient) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func (p *patient) submit(job jobs.Job) {
	p.Helper()
	_, err := client.New(p.bus).Submit(p.Context(), job)
	p.must(err)
}

// ask has somebody ask for jobs of the default queue, until the test ends.
func (p *patient) ask() {
	p.Helper()
	stream, err := p.bus.JetStream().Stream(p.Context(), "GOFER_JOBS")
	p.must(err)
	for info := range stream.ListConsumers(p.Context()).Info() {
		if strings.HasSuffix(info.Config.FilterSubject, "jobs.default.>") {
			consumer, err := stream.Consumer(p.Context(), info.Name)
			p.must(err)
			_, err = consumer.Fetch(1, jetstream.FetchMaxWait(testenv.Patience))
			p.must(err)
			p.must(p.nc.Flush())
			return
		}
	}
	p.Fatal("the queue has no consumer")
}

// worker answers like a worker with that status, until the test ends.
func (p *patient) worker(status control.Status) {
	p.Helper()
	data, err := json.Marshal(status)
	p.must(err)
	service, err := micro.AddService(p.nc, micro.Config{Name: "w", Version: "1.0.0"})
	p.must(err)
	p.Cleanup(func() { _ = service.Stop() })
	p.must(service.AddEndpoint("workers", micro.HandlerFunc(func(r micro.Request) { _ = r.Respond(data) }), micro.WithEndpointSubject("gofer.ctl.workers"),
		micro.WithEndpointQueueGroupDisabled()))
	p.must(p.nc.Flush())
}

func TestAClockIsWrongByWhatTheRoundTripCannotExplain(t *testing.T) {
	t.Parallel()
	asked := time.Now()
	answered := asked.Add(200 * time.Millisecond)
	for told, want := range map[time.Duration]time.Duration{
		0: 0, 100 * time.Millisecond: 0, 200 * time.Millisecond: 0, 3200 * time.Millisecond: 3 * time.Second, -3 * time.Second: -3 * time.Second,
	} {
		if got := doctor.ClockError(asked, answered, asked.Add(told)); got != want {
			t.Errorf("told %s after the question: got %s, want %s", told, got, want)
		}
	}
}

func TestNothingIsWrongWithAnIdleInstallation(t *testing.T) {
	t.Parallel()
	p := admit(t)
	lines := p.examine()
	for _, want := range []string{
		"true nats: nats-server ", "true clock: ", "true streams: all there", "true queue default: 0 queued", "true waiting jobs: none is overdue", "true workers: none answers",
	} {
		p.finds(lines, want)
	}
	if bad := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "false") }); bad >= 0 {
		t.Errorf("something is wrong: %s", lines[bad])
	}
}

func TestJobsInAQueueThatCannotBeServedCanBeRemoved(t *testing.T) {
	t.Parallel()
	p := admit(t)
	for _, queue := range []string{"NOPE", "*", "it's", "\x1b[2J"} {
		_, err := p.bus.JetStream().Publish(t.Context(), "gofer.jobs."+queue+".x", []byte("http://shop.test/"))
		p.must(err)
	}
	lines := p.examine()
	p.finds(lines, `false queue "NOPE": jobs wait (1)`)
	for _, queue := range []string{`"*"`, `"it's"`, `"\x1b[2J"`} {
		p.finds(lines, "false queue "+queue)
	}
	text := strings.Join(lines, "\n")
	for _, want := range []string{"nats stream purge GOFER_JOBS --subject 'gofer.jobs.NOPE.>'", "nats stream rmm GOFER_JOBS SEQUENCE"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not said in:\n%s", want, text)
		}
	}
	if strings.Count(text, "purge") != 1 || strings.Contains(text, "GOFER_QUEUES") {
		t.Errorf("want one purge, and no advice that cannot be followed:\n%s", text)
	}
	stream, err := p.bus.JetStream().Stream(t.Context(), "GOFER_JOBS")
	p.must(err)
	p.must(stream.Purge(t.Context(), jetstream.WithPurgeSubject("gofer.jobs.NOPE.>")))
	if text := strings.Join(p.examine(), "\n"); strings.Contains(text, "NOPE") {
		t.Errorf("after the purge the queue is still named:\n%s", text)
	}
}

func TestAQueueTellsWhyItsJobsDoNotRun(t *testing.T) {
	t.Parallel()
	p := admit(t)
	p.submit(jobs.Job{Queue: "misspelt", URL: "http://shop.test/"})
	p.submit(jobs.Job{URL: "http://shop.test/"})
	lines := p.examine()
	p.finds(lines, "false queue misspelt: jobs wait (1) and no worker has ever served it")
	p.finds(lines, "false queue default: jobs wait (1) and no worker asks for them")
	p.must(client.New(p.bus).Pause(t.Context(), "default", time.Time{}))
	p.finds(p.examine(), "false queue default: paused, jobs wait (1): gofer resume default")
	p.must(client.New(p.bus).Pause(t.Context(), "default", time.Now().Add(time.Hour)))
	p.finds(p.examine(), "false queue default: paused until ")
}

func TestAWorkerIsMissedWhereJobsAreNotDone(t *testing.T) {
	t.Parallel()
	p := admit(t)
	p.submit(jobs.Job{URL: "http://shop.test/"})
	for range 2 { // the job is queued, and then it runs
		p.finds(p.examine(), "false workers: none answers, and jobs are not done (1): start one")
		p.ask()
	}
	p.finds(p.examine(), "false workers: none answers, though one asks for jobs (1 are not done): let its NATS user subscribe to gofer.ctl.>")
}

// TestWorkersAreCompared: two of one name, one that uses another JetStream, and one that cannot settle a job.
func TestWorkersAreCompared(t *testing.T) {
	t.Parallel()
	p := admit(t)
	p.worker(control.Status{Worker: "w1"})
	p.finds(p.examine(), "true workers: 1 answer, each by a name of its own")
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	p.worker(control.Status{
		Worker: "w1", Domain: "hub", UnsettledJobs: 2,
		Unsettled: []control.Unsettled{{Queue: "default", ID: "a", Since: since, Step: "store result", Reason: "sealed stream"}},
	})
	lines := p.examine()
	p.finds(lines, "false workers: 2 are named w1")
	p.finds(lines, `false domains: the workers of this account and this command use more than one JetStream, by domain: "", "hub"`)
	p.finds(lines, "false worker w1: jobs held that cannot be settled: 2, since 2026-01-02T03:04:05Z; job default/a: store result: sealed stream")
}

func TestADifferenceOfAStreamIsShownWithItsRepair(t *testing.T) {
	t.Parallel()
	p := admit(t)
	lines := p.examine(func(c *doctor.Config) {
		c.Settings.ResultsMaxAge = time.Hour
		c.Repair = func(d bus.Difference) string { return "repair of " + d.Name }
	})
	p.finds(lines, "false streams: stream GOFER_RESULTS")
	if text := strings.Join(lines, "\n"); !strings.Contains(text, "(repair of stream GOFER_RESULTS)") {
		t.Errorf("the repair is not said in:\n%s", text)
	}
	p.must(p.bus.JetStream().DeleteStream(t.Context(), "GOFER_RESULTS"))
	p.finds(p.examine(), "false streams: stream GOFER_RESULTS")
}
