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
	"github.com/gofer-mq/gofer/worker/rollup"
	"github.com/gofer-mq/gofer/worker/stream"
	"github.com/gofer-mq/gofer/worker/waiting"
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
	testenv.AwaitCounts(p.T, p.bus.JetStream(), "GOFER_JOBS")
}

// consumer returns the consumer of the default queue.
func (p *patient) consumer() jetstream.Consumer {
	p.Helper()
	stream, err := p.bus.JetStream().Stream(p.Context(), "GOFER_JOBS")
	p.must(err)
	for info := range stream.ListConsumers(p.Context()).Info() {
		if strings.HasSuffix(info.Config.FilterSubject, "jobs.default.>") {
			consumer, err := stream.Consumer(p.Context(), info.Name)
			p.must(err)
			return consumer
		}
	}
	p.Fatal("the queue has no consumer")
	return nil
}

// worker answers like a worker with that status, until the test ends.
func (p *patient) worker(status control.Status) {
	p.Helper()
	data, err := json.Marshal(status)
	p.must(err)
	p.endpoint("workers", string(data))
}

// endpoint answers to a verb of the control service, until the test ends.
func (p *patient) endpoint(verb, answer string) {
	p.Helper()
	service, err := micro.AddService(p.nc, micro.Config{Name: "w", Version: "1.0.0"})
	p.must(err)
	p.Cleanup(func() { _ = service.Stop() })
	p.must(service.AddEndpoint(verb, micro.HandlerFunc(func(r micro.Request) { _ = r.Respond([]byte(answer)) }), micro.WithEndpointSubject("gofer.ctl."+verb),
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
		"true nats: nats-server ", "true clock: ", "true streams: all there", "true queue default: no worker serves it now, 0 queued", "true waiting jobs: none is overdue", "true workers: none answers", "true results: 0 kept", "true dead letters: none",
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

// TestQueuesThatOnlyTheFleetHasFoundAreNamed: their jobs are behind more others than one command reads.
func TestQueuesThatOnlyTheFleetHasFoundAreNamed(t *testing.T) {
	t.Parallel()
	p := admit(t)
	kv, err := p.bus.Bucket(t.Context(), "policy")
	p.must(err)
	p.must(waiting.Store(t.Context(), kv, waiting.Snapshot{At: time.Now(), Queues: []waiting.Queue{
		{Queue: waiting.OtherQueues, Queued: 7}, {Queue: "default", Served: true}, {Queue: "misspelt", Queued: 3},
	}}))
	lines := p.examine()
	p.finds(lines, "false queue misspelt: jobs wait (3) and no worker has ever served it")
	p.finds(lines, "false queue (other): jobs wait (7) in queues that are not counted by themselves")
}

func TestAQueueTellsWhyItsJobsDoNotRun(t *testing.T) {
	t.Parallel()
	p := admit(t)
	p.submit(jobs.Job{Queue: "misspelt", URL: "http://shop.test/"})
	p.submit(jobs.Job{URL: "http://shop.test/"})
	lines := p.examine()
	p.finds(lines, "false queue misspelt: jobs wait (1) and no worker has ever served it")
	p.finds(lines, "false queue default: jobs wait (1) and no worker serves it now: gofer workers says")
	p.must(client.New(p.bus).Pause(t.Context(), "default", time.Time{}))
	p.finds(p.examine(), "false queue default: paused, jobs wait (1): gofer resume default")
	p.must(client.New(p.bus).Pause(t.Context(), "default", time.Now().Add(time.Hour)))
	p.finds(p.examine(), "false queue default: paused until ")
}

// TestAQueueIsServedWhileAWorkerAsksOrAnswers: its consumers stay when its last worker has gone, and an open request of a worker
// that is gone does not.
func TestAQueueIsServedWhileAWorkerAsksOrAnswers(t *testing.T) {
	t.Parallel()
	p := admit(t)
	unserved := "true queue default: no worker serves it now, 0 queued"
	p.finds(p.examine(), unserved)
	queue := p.consumer()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	_, err := queue.Fetch(1, jetstream.FetchContext(ctx))
	p.must(err)
	asked := func(want int) func() bool {
		return func() bool {
			info, err := queue.Info(t.Context())
			return err == nil && info.NumWaiting == want
		}
	}
	testenv.Eventually(t, "the server to hold the request for a job", asked(1))
	p.finds(p.examine(), "true queue default: 0 queued")
	leave()
	testenv.Eventually(t, "the server to forget the request", asked(0))
	p.finds(p.examine(), unserved)
	p.worker(control.Status{Worker: "w1", Queues: []control.Queue{{Queue: "other"}}})
	p.worker(control.Status{Worker: "w2", Draining: true, Queues: []control.Queue{{Queue: "default"}}})
	p.finds(p.examine(), unserved)
	p.worker(control.Status{Worker: "w3", Queues: []control.Queue{{Queue: "default"}}})
	p.finds(p.examine(), "true queue default: 0 queued")
	p.submit(jobs.Job{URL: "http://shop.test/"})
	p.finds(p.examine(), "false queue default: jobs wait (1) and no worker asks for them")
}

func TestAWorkerIsMissedWhereJobsAreNotDone(t *testing.T) {
	t.Parallel()
	p := admit(t)
	p.submit(jobs.Job{URL: "http://shop.test/"})
	nobody := "false workers: none answers, and jobs are not done (1): start one"
	p.finds(p.examine(), nobody) // the job is queued
	queue := p.consumer()
	_, err := queue.Next(jetstream.FetchMaxWait(testenv.Patience))
	p.must(err)
	p.finds(p.examine(), nobody) // the job runs
	_, err = queue.Fetch(1, jetstream.FetchMaxWait(testenv.Patience))
	p.must(err)
	testenv.Eventually(t, "the server to hold the request for a job", func() bool {
		info, err := queue.Info(t.Context())
		return err == nil && info.NumWaiting == 1
	})
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

// lacks reports an error if one of the lines begins with the text.
func (p *patient) lacks(lines []string, text string) {
	p.Helper()
	for _, line := range lines {
		if strings.HasPrefix(line, text) {
			p.Errorf("a finding begins with %q: %s", text, line)
		}
	}
}

// TestEachWorkerIsReadyOrSaysWhyNot: those that have the same reasons are one finding.
func TestEachWorkerIsReadyOrSaysWhyNot(t *testing.T) {
	t.Parallel()
	p := admit(t)
	p.worker(control.Status{Worker: "w1", Ready: true})
	lines := p.examine()
	p.lacks(lines, "false worker")
	for _, name := range []string{"w2", "w3", "w4", "w5", "w6", "w7"} {
		p.worker(control.Status{Worker: name, Reasons: []string{"proxies: no proxy is configured: set GOFER_PROXIES"}})
	}
	p.worker(control.Status{Worker: "w8", Reasons: []string{"draining: draining"}, Draining: true})
	lines = p.examine()
	p.finds(lines, "false worker w2, w3, w4, w5, w6 and 1 more: not ready: proxies: no proxy is configured: set GOFER_PROXIES")
	p.finds(lines, "true worker w8: draining")
	p.lacks(lines, "false worker w8")
}

func TestMostBreakersOpenIsAFault(t *testing.T) {
	t.Parallel()
	p := admit(t)
	p.worker(control.Status{Worker: "w1", Ready: true, Proxies: map[string]int{"closed": 4, "open": 5, "half_open": 1}})
	p.lacks(p.examine(), "false worker w1")
	p.worker(control.Status{Worker: "w2", Ready: true, Proxies: map[string]int{"closed": 4, "open": 6}})
	lines := p.examine()
	p.finds(lines, "false worker w2: the breakers of 6 of its 10 proxies are open: gofer breakers ls")
	p.lacks(lines, "false worker w1")
}

// TestAProxyWithAnUnusualShareIsAFault, and is named once, however many workers see it.
func TestAProxyWithAnUnusualShareIsAFault(t *testing.T) {
	t.Parallel()
	p := admit(t)
	u := rollup.Unusual{Site: "shop.test", Share: 0.98, Others: 0.034, Answers: 120}
	for _, name := range []string{"w1", "w2"} {
		p.worker(control.Status{Worker: name, Ready: true, Unusual: []control.UnusualProxy{{ProxyID: "p7", Unusual: u}}})
	}
	lines := p.examine()
	p.finds(lines, "false proxy p7: 4xx in 98 % of 120 answers of shop.test, through the others in 3 %: look at what it answers there")
	if n := strings.Count(strings.Join(lines, "\n"), "proxy p7"); n != 1 {
		t.Errorf("p7 is named %d times, want once", n)
	}
}

// TestVersionsAndConfigurationsAreCompared: workers that serve other queues may have other settings, and older ones tell no hash.
func TestVersionsAndConfigurationsAreCompared(t *testing.T) {
	t.Parallel()
	p := admit(t)
	serves := func(queues ...string) (list []control.Queue) {
		for _, q := range queues {
			list = append(list, control.Queue{Queue: q, Weight: 1})
		}
		return list
	}
	p.worker(control.Status{Worker: "w1", Ready: true, Version: "1.2.0", ConfigHash: "aa", Queues: serves("default", "low")})
	p.worker(control.Status{Worker: "w2", Ready: true, Version: "1.2.0", ConfigHash: "bb", Queues: serves("other")})
	p.worker(control.Status{Worker: "w3", Ready: true, Version: "1.2.0", Queues: serves("default", "low")})
	lines := p.examine()
	p.lacks(lines, "false versions")
	p.lacks(lines, "false configurations")
	p.worker(control.Status{Worker: "w4", Ready: true, Version: "1.1.0", ConfigHash: "cc", Queues: serves("low", "default")})
	lines = p.examine()
	p.finds(lines, "false versions: the workers have different versions: 1.1.0 (w4), 1.2.0 (w1, w2, w3); restart the older ones with the newer version: gofer drain")
	p.finds(lines, "false configurations: the workers that serve default, low have different ones, by hash: aa (w1), cc (w4)")
}

// wait lets jobs wait for an hour.
func (p *patient) wait(n int, site string, progress jobs.Progress) {
	p.Helper()
	s := stream.New(p.bus)
	for i := range n {
		id, payload, at := fmt.Sprint(site[:1], i), []byte("http://"+site+"/"), time.Now().Add(time.Hour)
		var err error
		if progress.SiteSince.IsZero() {
			_, err = s.Schedule(p.Context(), "default", id, payload, &progress, at)
		} else {
			_, err = s.WaitForSite(p.Context(), site, "default", id, 0, payload, &progress, at)
		}
		p.must(err)
	}
}

func TestJobsThatOneSiteBansAreOneSentence(t *testing.T) {
	t.Parallel()
	p := admit(t)
	p.worker(control.Status{Worker: "w1", Ready: true, Queues: []control.Queue{{Queue: "default"}}})
	p.wait(150, "captcha.test", jobs.Progress{WaitingSince: time.Now(), Why: "31 of 37 proxies that match cool down for this site, 6 have an open breaker or are busy"})
	lines := p.examine()
	p.finds(lines, "false queue default: 150 jobs wait for a proxy at captcha.test: 31 of 37 proxies that match cool down for this site, 6 have an open breaker or are busy; the next try is at ")
	if text := strings.Join(lines, "\n"); strings.Count(text, "captcha.test") != 1 {
		t.Errorf("the site is named more than once:\n%s", text)
	}
}

// TestARestingSiteIsAFaultOnceJobsWaitForIt has a worker that lets two sites rest.
func TestARestingSiteIsAFaultOnceJobsWaitForIt(t *testing.T) {
	t.Parallel()
	p := admit(t)
	p.worker(control.Status{Worker: "w1", Ready: true})
	p.endpoint("sites", `{"worker":"w1","total":3,"sites":[{"site":"gone.test","state":"resting","reason":"timeout","next_test_time":"2030-01-02T15:04:05Z"},`+
		`{"site":"away.test","state":"testing","reason":"connect"},{"site":"shop.test","state":"up"}]}`)
	p.finds(p.examine(), "true sites: some rest (2), and no jobs wait for them: away.test, gone.test")
	p.wait(3, "gone.test", jobs.Progress{SiteSince: time.Now()})
	p.wait(1, "shop.test", jobs.Progress{SiteSince: time.Now()})
	lines := p.examine()
	p.finds(lines, "false site gone.test: does not answer (timeout, the next test is at 15:04:05Z), and jobs of queue default wait for it (3): gofer sites show gone.test")
	p.lacks(lines, "false site shop.test")
}

func TestManyDeadLettersAreAFault(t *testing.T) {
	t.Parallel()
	p := admit(t)
	s := stream.New(p.bus)
	store := func(from, to int, result jobs.Result) {
		p.Helper()
		for i := from; i < to; i++ {
			result.Queue, result.ID, result.FinishedAt = "default", fmt.Sprint("j", i), time.Now()
			_, err := p.bus.Pending(&result).Store(p.Context())
			p.must(err)
			if result.Outcome == jobs.Failed {
				p.must(s.DeadLetter(p.Context(), "default", result.ID, []byte("http://shop.test/"), &result))
			}
		}
	}
	store(0, 5, jobs.Result{Outcome: jobs.Failed, Error: jobs.ErrNoProxy})
	p.finds(p.examine(), "true dead letters: 5 jobs have failed in 24 h, 5 of the latest 5 as no_proxy in queue default (No proxy could be used): gofer dead ls")
	store(5, 25, jobs.Result{Outcome: jobs.Failed, Error: jobs.ErrNoProxy})
	p.finds(p.examine(), "false dead letters: 25 jobs have failed in 24 h, 25 of the latest 25 as no_proxy in queue default (No proxy could be used): gofer dead ls says why; when the cause is gone, gofer dead replay --since 24h")
	// Their replay would fail again.
	store(25, 60, jobs.Result{Outcome: jobs.Failed, Error: jobs.ErrInvalidJob, Detail: `"ulr": unknown field`})
	p.finds(p.examine(), `false dead letters: 60 jobs have failed in 24 h, 35 of the latest 60 as invalid_job in queue default ("ulr": unknown field): gofer dead ls says why; `+
		"correct what publishes them; gofer dead purge --reason invalid_job removes them")
	store(60, 960, jobs.Result{Outcome: jobs.Succeeded, Status: 200})
	p.finds(p.examine(), "true dead letters: 60 jobs")
}

// TestTheResultsStreamIsForecast: at this rate its limit is reached within a day.
func TestTheResultsStreamIsForecast(t *testing.T) {
	t.Parallel()
	p := admit(t)
	store := func(n int) {
		p.Helper()
		for i := range n {
			_, err := p.bus.Pending(&jobs.Result{Queue: "default", ID: fmt.Sprint("j", i), Outcome: jobs.Succeeded, FinishedAt: time.Now(), Body: make([]byte, 1000)}).Store(p.Context())
			p.must(err)
		}
	}
	store(100)
	p.finds(p.examine(), "true results: 100 kept, 0.1 MiB; at the rate of the last hour (100) up to 2400, ")
	limit := bus.Settings{ResultsMaxBytes: 1 << 20}
	_, err := p.bus.Apply(p.Context(), limit)
	p.must(err)
	lines := p.examine(func(c *doctor.Config) { c.Settings = limit })
	p.finds(lines, "false results: 100 kept")
	if text := strings.Join(lines, "\n"); !strings.Contains(text, "the limit is 1.0 MiB, which is reached in ") || !strings.Contains(text, "raise GOFER_RESULTS_MAX_BYTES") {
		t.Errorf("neither when nor what to do is said in:\n%s", text)
	}
	// Somebody bounds their number: now the limit that is reached first is named, and not the one of bytes.
	stream, err := p.bus.JetStream().Stream(p.Context(), "GOFER_RESULTS")
	p.must(err)
	for maxMsgs, want := range map[int64]string{
		150: "the limit is 150 results (max_msgs of the stream), which is reached in 30m0s: then workers take no jobs; run gofer setup, which takes that limit from the stream",
		100: "the limit is 100 results (max_msgs of the stream), which is reached: workers take no jobs; run gofer setup", 5000: "the limit is 1.0 MiB, which is reached in ",
	} {
		config := stream.CachedInfo().Config
		config.MaxMsgs = maxMsgs
		_, err = p.bus.JetStream().UpdateStream(p.Context(), config)
		p.must(err)
		if text := strings.Join(p.examine(func(c *doctor.Config) { c.Settings = limit }), "\n"); !strings.Contains(text, want) {
			t.Errorf("max_msgs %d: %q is not said in:\n%s", maxMsgs, want, text)
		}
	}
}

// TestWhatIsPromisedOfSetupIsDone edits consumers in ways that harm: the doctor names each and says that gofer setup changes it,
// and then gofer setup does.
func TestWhatIsPromisedOfSetupIsDone(t *testing.T) {
	t.Parallel()
	p := admit(t)
	js := p.bus.JetStream()
	edit := func(streamName, name string, change func(*jetstream.ConsumerConfig)) {
		p.Helper()
		c, err := js.Consumer(p.Context(), streamName, name)
		p.must(err)
		config := c.CachedInfo().Config
		change(&config)
		_, err = js.UpdateConsumer(p.Context(), streamName, config)
		p.must(err)
	}
	edit("GOFER_JOBS", "worker-default", func(c *jetstream.ConsumerConfig) { c.HeadersOnly, c.MaxRequestBatch = true, 1 })
	edit("GOFER_RETRIES", "due-default", func(c *jetstream.ConsumerConfig) { c.MaxRequestExpires, c.AckWait = time.Second, time.Minute })
	repairs := map[string]bool{}
	lines := p.examine(func(c *doctor.Config) {
		c.Repair = func(d bus.Difference) string { repairs[d.Field] = d.Repair == bus.ByUpdate; return "" }
	})
	for _, want := range []string{
		"false streams: consumer worker-default of stream GOFER_JOBS: headers_only is true", "false streams: consumer worker-default of stream GOFER_JOBS: max_batch is 1",
		"false streams: consumer due-default of stream GOFER_RETRIES: max_expires is 1s", "false streams: consumer due-default of stream GOFER_RETRIES: ack_wait is 1m0s",
	} {
		p.finds(lines, want)
	}
	for _, field := range []string{"headers_only", "max_batch", "max_expires", "ack_wait"} {
		if !repairs[field] {
			t.Errorf("gofer setup is not named for %s", field)
		}
	}
	_, err := p.bus.Apply(p.Context(), bus.Settings{})
	p.must(err)
	p.lacks(p.examine(), "false streams")
}

// TestAModestBoundOfAPullIsTheOwners has bounds that workers keep to without harm.
func TestAModestBoundOfAPullIsTheOwners(t *testing.T) {
	t.Parallel()
	p := admit(t)
	c, err := p.bus.JetStream().Consumer(t.Context(), "GOFER_JOBS", "worker-default")
	p.must(err)
	config := c.CachedInfo().Config
	config.MaxRequestBatch, config.MaxRequestExpires = 8, 5*time.Second
	_, err = p.bus.JetStream().UpdateConsumer(t.Context(), "GOFER_JOBS", config)
	p.must(err)
	lines := p.examine()
	p.lacks(lines, "false streams")
	p.finds(lines, "true streams: consumer worker-default of stream GOFER_JOBS: max_batch is 8, which workers keep to")
}
