package metrics_test

import (
	"bufio"
	"bytes"
	"fmt"
	"iter"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/text"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/metrics"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// everything has each gauge set, so that its page has every family.
func everything(proxies int, queues ...string) metrics.Gauges {
	yes := func() bool { return true }
	seven := func() int { return 7 }
	ids := make([]string, proxies)
	for i := range ids {
		ids[i] = fmt.Sprintf("p%05d", i)
	}
	return metrics.Gauges{
		Version: "1.2.3", Revision: "abc", ConfigHash: "123", Queues: queues, InFlight: func() map[string]int { return map[string]int{"default": 2, "lost": 1} },
		Slots: seven, Ready: yes, Draining: yes, Connected: yes, IdleConns: seven,
		Loop:           func() metrics.Loop { return metrics.Loop{Scheduled: 9} },
		RTT:            func() time.Duration { return 2 * time.Millisecond },
		DomainWaits:    func() int64 { return 5 },
		Hedges:         func() (won, lost, failed int64) { return 3, 2, 1 },
		DelayedRetries: func() int64 { return 7 },
		InOutage:       func() bool { return true }, ProxiesAvoided: seven, SitesFollowed: seven,
		Sites:       func() map[string]int { return map[string]int{"resting": 3} },
		ProxyStates: func() map[string]int { return map[string]int{"open": 3} },
		EachProxy: func() iter.Seq2[string, string] {
			return func(yield func(string, string) bool) {
				for _, id := range ids {
					if !yield(id, "closed") {
						return
					}
				}
			}
		},
		Backlog: func() map[string]metrics.Backlog {
			return map[string]metrics.Backlog{"default": {Pending: 5, AckPending: 6, Redelivered: 3, Waiting: 4}}
		},
		FleetJobs: func() map[string]metrics.FleetJobs {
			return map[string]metrics.FleetJobs{
				"default": {Jobs: map[string]uint64{"no_proxy": 150, "running": 2}, Oldest: map[string]float64{"no_proxy": 90.5, "running": 3}, Overdue: 1},
				"lost":    {Jobs: map[string]uint64{"queued": 4}, Oldest: map[string]float64{"queued": 7}, Overdue: 2},
				"missed":  {Jobs: map[string]uint64{"queued": 5}, Oldest: map[string]float64{"queued": 6}},
			}
		},
		Book: sync.OnceValue(rollup.NewBook),
	}
}

func TestEveryFamilyHasHelpTypeAndSamples(t *testing.T) {
	page := string(metrics.New(everything(3, "default")).Write(10))
	for _, f := range metrics.Families() {
		head := "# HELP " + f.Name + " " + f.Help + "\n# TYPE " + f.Name + " " + f.Type + "\n" + f.Name
		if strings.Count(page, head) != 1 {
			t.Errorf("%s: got %d times its help, type and first sample in a row, want once", f.Name, strings.Count(page, head))
		}
	}
	if got, want := strings.Count(page, "# TYPE "), len(metrics.Families()); got != want {
		t.Errorf("families on the page: got %d, want %d", got, want)
	}
}

func TestPromtoolAcceptsThePage(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed: the page is not checked with it")
	}
	m := metrics.New(everything(3, "default"))
	flood(m, 100)
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = bytes.NewReader(m.Write(10))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// flood tells m of n jobs with labels that nobody foresaw.
func flood(m *metrics.Registry, n int) {
	for i := range n {
		x := fmt.Sprintf("x%d\"\\\n{}\xff", i)
		m.CountAttempt(rollup.AttemptFact{Status: 100 * (i % 12), Proxy: x, Reason: x, Fault: jobs.Fault(x), Duration: time.Second})
		m.CountJob(rollup.JobFact{Queue: x, Status: 100 * (i % 12), Outcome: x, Error: x, Policy: x, Attempts: i})
		m.CountRetry(jobs.RetryEvent{Queue: x, Proxy: x, Kind: x})
		m.CountBreakerChange(jobs.BreakerEvent{ProxyID: x, FromState: x, ToState: x, Reason: x})
		m.CountTaken(x, time.Second, i%2 == 0)
		m.CountDeadLetter(x)
		m.CountAck(x, i%2 == 0)
		m.CountPublish(x, i%2 == 0, time.Second)
		m.CountAsyncError(x)
	}
}

func TestPageStaysSmallUnderAFloodOfLabels(t *testing.T) {
	most := make([]string, 32)
	for i := range most {
		most[i] = fmt.Sprintf("queue-%d", i)
	}
	for name, g := range map[string]metrics.Gauges{"one queue": everything(10_000, "default"), "32 queues": everything(10_000, most...)} {
		g.Process = len(g.Queues) == 1 // some 130 series of the runtime, always the same ones
		m := metrics.New(g)
		for i := range 12 * 3 * len(g.Queues) { // each class of each outcome in each queue
			m.CountJob(rollup.JobFact{Queue: g.Queues[i/36], Outcome: []string{jobs.Succeeded, jobs.Failed, jobs.Cancelled}[i%3], Status: 100 * (i / 3 % 12)})
		}
		flood(m, 12)
		before := series(m.Write(0))
		flood(m, 20_000)
		if got := series(m.Write(0)); got != before || got > 1300 {
			t.Errorf("series with %s: got %d after and %d before the flood, want the same and at most 1300", name, got, before)
		}
	}
}

func TestQueueMayBearTheNameOfTheRest(t *testing.T) {
	m := metrics.New(everything(0, "default", "other", "default"))
	m.CountJob(rollup.JobFact{Queue: "other", Outcome: jobs.Succeeded})
	m.CountJob(rollup.JobFact{Queue: "nobody's", Outcome: jobs.Succeeded})
	if page := string(m.Write(0)); strings.Count(page, `gofer_jobs_total{queue="other",outcome="succeeded",class="none"} 2`+"\n") != 1 {
		t.Errorf("jobs of the queue other: want 2, once, in\n%s", page)
	}
}

// TestEveryLineIsWellFormedWhateverLabelsHold: one line that is not makes readers refuse the page.
func TestEveryLineIsWellFormedWhateverLabelsHold(t *testing.T) {
	hostile := "x\"\\\n} 1\ngofer_ready{\xff\t\r"
	g := everything(0, hostile)
	g.Version = hostile
	g.EachProxy = func() iter.Seq2[string, string] {
		return func(yield func(string, string) bool) { yield(hostile, hostile) }
	}
	m := metrics.New(g)
	flood(m, 10)
	line := regexp.MustCompile(`^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{([a-z_]+="([^"\\\n]|\\[\\"n])*",?)+\})? [0-9.e+-]+(Inf)?)$`)
	seen := map[string]bool{}
	page := m.Write(10)
	for got := range bytes.Lines(page) {
		sample := strings.TrimSuffix(string(got), "\n")
		name := sample[:strings.LastIndex(sample, " ")]
		if !line.MatchString(sample) || seen[name] {
			t.Errorf("line %q: not well formed, or there twice", sample)
		}
		seen[name] = true
	}
	sample := `gofer_proxy_state{proxy="x\"\\\\n} 1\\ngofer_ready{\\xff\\t\\r"} 2` + "\n"
	if string(page) != text.Block(string(page)) || !strings.Contains(string(page), sample) {
		t.Errorf("the page has what a terminal obeys, or misses the proxy with the hostile name:\n%s", page)
	}
}

func series(page []byte) (n int) {
	for line := range bytes.Lines(page) {
		if line[0] != '#' {
			n++
		}
	}
	return n
}

func TestProxySeriesAreTheBusiest(t *testing.T) {
	m := metrics.New(everything(1000))
	for i := range 1000 {
		m.CountAttempt(rollup.AttemptFact{Proxy: fmt.Sprintf("p%05d", i), Status: 200, Bytes: 10, Duration: 2 * time.Second})
	}
	m.CountAttempt(rollup.AttemptFact{Proxy: "p00777", Reason: "timeout", Fault: jobs.FaultUnclear, Bytes: 10, Duration: 4 * time.Second})
	m.CountAttempt(rollup.AttemptFact{Proxy: "gone", Reason: "timeout"})
	page := string(m.Write(1))
	for _, want := range []string{
		`gofer_proxy_attempts_total{proxy="p00777"} 2`, `gofer_proxy_failures_total{proxy="p00777"} 1`,
		`gofer_proxy_received_bytes_total{proxy="p00777"} 20`, `gofer_proxy_state{proxy="p00777"} 0`,
		`gofer_proxy_latency_seconds{proxy="p00777"} 2.25`,
	} {
		if !strings.Contains(page, want+"\n") {
			t.Errorf("page misses %s", want)
		}
	}
	if got := strings.Count(page, "gofer_proxy_attempts_total{"); got != 1 {
		t.Errorf("proxies named: got %d, want 1", got)
	}
	if strings.Contains(string(m.Write(0)), "gofer_proxy_attempts_total") {
		t.Error("proxies are named without being asked for")
	}
}

func TestNumbersOnThePageAreWhatHappened(t *testing.T) {
	g := everything(0, "default")
	m := metrics.New(g)
	m.CountAttempt(rollup.AttemptFact{Reason: "timeout", Fault: jobs.FaultProxy, Duration: 2 * time.Second})
	m.CountAttempt(rollup.AttemptFact{Status: 200, Bytes: 512})
	m.CountRetry(jobs.RetryEvent{Kind: jobs.RetryInline, Fault: jobs.FaultProxy, Delay: jobs.Duration(time.Second)})
	m.CountBreakerChange(jobs.BreakerEvent{FromState: "closed", ToState: "open"})
	fact := rollup.JobFact{Queue: "default", Outcome: jobs.Succeeded, Status: 404, Attempts: 2, Policy: "fixed/3", Duration: 3 * time.Second}
	m.CountJob(fact)
	g.Book().AddJob(fact)
	m.CountJob(rollup.JobFact{Queue: "default", Outcome: jobs.Failed, Error: jobs.ErrNoProxy})
	m.CountDeadLetter(jobs.ErrNoProxy)
	m.CountTaken("default", 3*time.Second, false)
	m.CountTaken("default", 3*time.Second, true)
	m.CountPick(rotation.Weighted, time.Millisecond, nil)
	m.CountPick(rotation.Weighted, time.Millisecond, &rotation.NoProxyError{Reason: rotation.Unavailable})
	m.CountAck("heartbeat", true)
	m.CountFlush(false)
	m.CountReconnect()
	m.CountPublish("result", true, 30*time.Millisecond)
	m.CountPublish("rollup", true, 0)
	page := string(m.Write(0))
	for _, want := range []string{
		`gofer_attempts_total{outcome="failed",reason="timeout",class="none"} 1`, `gofer_attempts_total{outcome="answered",reason="none",class="2xx"} 1`,
		`gofer_attempt_duration_seconds_bucket{outcome="failed",le="2.5"} 1`, `gofer_response_bytes_total 512`, `gofer_response_size_bytes_bucket{le="1000"} 1`,
		`gofer_retries_total{kind="inline",fault="proxy"} 1`, `gofer_retry_delay_seconds_sum 1`,
		`gofer_breaker_transitions_total{from="closed",to="open"} 1`,
		`gofer_jobs_total{queue="default",outcome="succeeded",class="4xx"} 1`, `gofer_jobs_total{queue="default",outcome="failed",class="none"} 1`, `gofer_dead_jobs_total{reason="no_proxy"} 1`,
		`gofer_attempts_per_job_count 2`, `gofer_acks_total{kind="heartbeat",outcome="ok"} 1`, `gofer_rollup_flushes_total{outcome="failed"} 1`,
		`gofer_nats_reconnects_total 1`, `gofer_publishes_total{kind="result",outcome="ok"} 1`, `gofer_jobs_parked_total 9`,
		`gofer_jobs_received_total{queue="default"} 2`, `gofer_job_redeliveries_total{queue="default"} 1`, `gofer_job_queue_wait_seconds_count 1`,
		`gofer_proxy_selections_total{strategy="weighted"} 1`, `gofer_proxy_exhausted_total{reason="resting"} 1`, `gofer_proxy_selection_duration_seconds_count 2`,
		`gofer_publish_duration_seconds_count 1`, `gofer_nats_rtt_seconds 0.002`, `gofer_consumer_redelivered 3`, `gofer_consumer_waiting 4`,
		`gofer_config_hash_info{hash="123"} 1`,
		`gofer_jobs_in_flight{queue="default"} 2`, `gofer_jobs_in_flight{queue="other"} 1`, `gofer_consumer_pending{queue="default"} 5`,
		`gofer_rollup_jobs{period="current",outcome="succeeded"} 1`, `gofer_rollup_success_ratio{period="current"} 1`,
		`gofer_proxies{state="open"} 3`, `gofer_ready 1`, `gofer_slots 7`,
	} {
		if !strings.Contains(page, want+"\n") {
			t.Errorf("page misses %s", want)
		}
	}
}

func TestProcessMetricsAreOnThePageOnlyIfAskedFor(t *testing.T) {
	for _, asked := range []bool{true, false} {
		page := string(metrics.New(metrics.Gauges{Process: asked}).Write(0))
		if got := strings.Contains(page, "go_goroutines"); got != asked {
			t.Errorf("go_goroutines on the page: got %t, want %t", got, asked)
		}
	}
}

// FuzzLabel puts any text where a label's value comes from outside and reads it back as the text format says.
func FuzzLabel(f *testing.F) {
	for _, seed := range []string{"", "v1", `a"b`, `a\b`, "a\nb", "tab\there", "\xff\xfe", "é{}=,", "\r\n\\n\"", "\\"} {
		f.Add(seed)
	}
	sample := regexp.MustCompile(`^gofer_build_info\{version="((?:[^"\\\n]|\\[\\"n])*)",revision="",go_version="[^"]*"\} 1$`)
	f.Fuzz(func(t *testing.T, version string) {
		page := metrics.New(metrics.Gauges{Version: version}).Write(0)
		if string(page) != text.Block(string(page)) {
			t.Fatalf("the page for %q has what a terminal obeys, or is not UTF-8", version)
		}
		lines := bufio.NewScanner(bytes.NewReader(page))
		for range 3 {
			lines.Scan()
		}
		found := sample.FindStringSubmatch(lines.Text())
		if found == nil {
			t.Fatalf("sample for %q: got %q", version, lines.Text())
		}
		got := strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\n`, "\n").Replace(found[1])
		if want := text.Printable(version); got != want {
			t.Fatalf("label: got %q, want %q", got, want)
		}
	})
}

// BenchmarkPage is the making of a page that names every proxy of a real pool.
func BenchmarkPage(b *testing.B) {
	for _, proxies := range []int{0, 10_000} {
		b.Run(fmt.Sprintf("proxies=%d", proxies), func(b *testing.B) {
			m := metrics.New(crowded(b, proxies))
			countEach(m, proxies)
			b.ReportAllocs()
			for b.Loop() {
				m.Write(proxies)
			}
			b.ReportMetric(float64(len(m.Write(proxies)))/1e6, "MB/page")
		})
	}
}

// crowded are gauges over a real pool, read as the program reads them.
func crowded(tb testing.TB, proxies int) metrics.Gauges {
	tb.Helper()
	var lines strings.Builder
	for i := range proxies {
		fmt.Fprintf(&lines, "http://192.0.2.1:%d id=p%05d\n", i+1, i)
	}
	list, err := proxylist.ParseList(strings.NewReader(lines.String()))
	if err != nil {
		tb.Fatal(err)
	}
	pool := rotation.New(rotation.Config{})
	pool.Replace(list)
	g := everything(0, "default")
	g.ProxyStates = func() map[string]int {
		out := map[string]int{}
		for _, state := range pool.States() {
			out[state.String()]++
		}
		return out
	}
	g.EachProxy = func() iter.Seq2[string, string] {
		return func(yield func(string, string) bool) {
			for id, state := range pool.States() {
				if !yield(id, state.String()) {
					return
				}
			}
		}
	}
	return g
}

func countEach(m *metrics.Registry, proxies int) {
	for i := range proxies {
		m.CountAttempt(rollup.AttemptFact{Proxy: fmt.Sprintf("p%05d", i), Status: 200, Bytes: int64(i * i)})
	}
}

func BenchmarkAttemptCounted(b *testing.B) {
	m := metrics.New(everything(10, "default"))
	b.ReportAllocs()
	for b.Loop() {
		m.CountAttempt(rollup.AttemptFact{Proxy: "p00001", Status: 200, Duration: time.Second, Bytes: 9000})
	}
}

// TestTheFleetsJobsAreShownByQueueAndState: queues that this worker does not serve are one, and a fleet that nobody counts has no
// samples.
func TestTheFleetsJobsAreShownByQueueAndState(t *testing.T) {
	g := everything(0, "default")
	page := string(metrics.New(g).Write(0))
	for _, want := range []string{
		`gofer_jobs_waiting{queue="default",why="no_proxy"} 150`, `gofer_jobs_waiting{queue="default",why="site_down"} 0`,
		`gofer_jobs_waiting{queue="other",why="queued"} 9`, `gofer_oldest_job_seconds{queue="default",state="no_proxy"} 90.5`,
		`gofer_oldest_job_seconds{queue="default",state="running"} 3`, `gofer_oldest_job_seconds{queue="other",state="queued"} 7`, `gofer_jobs_overdue 3`,
	} {
		if !strings.Contains(page, "\n"+want+"\n") {
			t.Errorf("the page lacks %s", want)
		}
	}
	if strings.Contains(page, `gofer_jobs_waiting{queue="default",why="running"}`) {
		t.Error("running jobs are shown as waiting")
	}
	g.FleetJobs = func() map[string]metrics.FleetJobs { return nil }
	if page := string(metrics.New(g).Write(0)); strings.Contains(page, "gofer_jobs_waiting") || strings.Contains(page, "gofer_oldest") || strings.Contains(page, "gofer_jobs_overdue{") {
		t.Error("jobs that nobody has counted are shown")
	}
}
