package main

import (
	"bufio"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/metrics"
)

// scrapes compares the pages of a worker with the first one.
type scrapes struct {
	w     *world
	url   string
	first map[string]float64
	moved map[string]bool // samples that had another value at some time
}

func (w *world) scrape(addr string) *scrapes {
	s := &scrapes{w: w, url: "http://" + addr + "/metrics?proxies=all", moved: map[string]bool{}}
	s.first = s.read()
	return s
}

func (s *scrapes) read() map[string]float64 {
	s.w.Helper()
	samples := map[string]float64{}
	_, page := s.w.get(s.url)
	for lines := bufio.NewScanner(strings.NewReader(page)); lines.Scan(); {
		name, text, _ := strings.Cut(lines.Text(), " ")
		if value, err := strconv.ParseFloat(text, 64); err == nil {
			samples[name] = value
		}
	}
	return samples
}

// until scrapes until all these samples have moved.
func (s *scrapes) until(samples ...string) {
	s.w.Helper()
	s.feedUntil(func() {}, samples...)
}

// feedUntil calls feed, which is what makes the samples move, and scrapes, until all of them have moved. On a busy machine one
// call may not suffice.
func (s *scrapes) feedUntil(feed func(), samples ...string) {
	s.w.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); len(samples) > 0; <-tick.C {
		if time.Now().After(deadline) {
			s.w.Fatalf("these have not moved in %s: %q", patience, samples)
		}
		feed()
		for name, value := range s.read() {
			s.moved[name] = s.moved[name] || value != s.first[name]
		}
		samples = slices.DeleteFunc(samples, func(name string) bool { return s.moved[name] })
	}
}

func (s *scrapes) familyMoved(family string) bool {
	for sample, moved := range s.moved {
		name, _, _ := strings.Cut(sample, "{")
		if moved && (name == family || name == family+"_count") {
			return true
		}
	}
	return false
}

// TestEveryMetricMoves leads a worker through good and bad times. What it cannot lead to in seconds is named at the end.
func TestEveryMetricMoves(t *testing.T) {
	t.Parallel()
	testenv.Long(t)
	w := newWorld(t, func(o *server.Options) {
		o.NoAuthUser = "anybody"
		o.Users = []*server.User{{Username: "anybody"}, {Username: "limited", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"gofer.events.breaker.refusing"}},
		}}}
	})
	if err := w.client.Ensure(t.Context(), bus.Settings{AckWait: 2 * time.Second}); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"NATS_USER": "limited", "NATS_PASSWORD": "p", "CONCURRENCY": "2", "HOST_RATE": "4", "DRAIN_TIMEOUT": "5s",
		"PROXIES": w.proxy.URL("http") + " id=good, " + w.proxy.URL("http") + " id=good-too, http://" + freeAddr(t) + " id=refusing",
	} {
		setenv(t, "GOFER_"+name, value)
	}
	addr := freeAddr(t)
	p := w.worker(addr)
	begin := time.Now()
	s := w.scrape(addr)

	// A good and a bad proxy: the breaker of the bad one opens, which this user may not tell the fleet. Two jobs at once are one
	// too many for the pace of their site.
	ok := 0
	pair := func() {
		ids := []string{fmt.Sprint("ok", ok), fmt.Sprint("ok", ok+1)}
		for _, id := range ids {
			w.publish(id, job("/ok", nil))
		}
		for _, id := range ids {
			w.result(id)
		}
		ok += len(ids)
	}
	s.feedUntil(pair, "gofer_host_waits_total", `gofer_proxies{state="open"}`, `gofer_proxy_state{proxy="refusing"}`,
		`gofer_proxy_latency_seconds{proxy="good"}`, `gofer_nats_async_errors_total{kind="permission"}`, "gofer_idle_connections",
		`gofer_publishes_total{kind="event",outcome="failed"}`, `gofer_rollup_breaker_opens{period="current"}`)
	w.publish("twice", job("/flaky/1", map[string]any{"retry": map[string]any{"base_delay": 0.1, "jitter": false}}))
	w.publish("later", job("/flaky/2", map[string]any{"retry": map[string]any{"backoff_strategy": "fixed", "base_delay": 2.1, "jitter": false}}))
	w.publish("hedged", job("/slow/20000", map[string]any{"timeout": 10, "retry": map[string]any{"hedge": 0.1, "max_attempts": 2}}))
	w.publish("bad", "not json")
	w.publish("nobody", job("/ok", map[string]any{"proxy": map[string]any{"tags": []string{"none"}}}))
	s.until(`gofer_publishes_total{kind="event",outcome="ok"}`, `gofer_publishes_total{kind="dead",outcome="ok"}`,
		`gofer_publishes_total{kind="retry",outcome="ok"}`, `gofer_publishes_total{kind="result",outcome="ok"}`,
		`gofer_publishes_total{kind="rollup",outcome="ok"}`, `gofer_rollup_flushes_total{outcome="ok"}`,
		`gofer_retries_total{kind="scheduled",fault="unclear"}`, `gofer_retries_total{kind="inline",fault="unclear"}`,
		`gofer_consumer_waiting`, `gofer_proxy_exhausted_total{reason="unmatched"}`, "gofer_jobs_parked_total", "gofer_nats_rtt_seconds", `gofer_hedges_total{outcome="failed"}`)
	w.publish("ok0", job("/ok", nil))

	// Both slots are busy and one job waits; then the server goes away for longer than the jobs' lease.
	w.publish("slow", job("/slow/20000", nil))
	w.publish("slow-too", job("/slow/20000", nil))
	w.publish("waiting", job("/ok", nil))
	s.until("gofer_duplicate_results_total", `gofer_acks_total{kind="heartbeat",outcome="ok"}`, `gofer_consumer_ack_pending{queue="default"}`,
		`gofer_consumer_pending{queue="default"}`, `gofer_jobs_in_flight{queue="default"}`, `gofer_jobs_waiting{queue="default",why="queued"}`,
		`gofer_oldest_job_seconds{queue="default",state="running"}`)
	w.nats.Stop()
	s.until(`gofer_acks_total{kind="heartbeat",outcome="failed"}`, "gofer_leases_lost_total", "gofer_nats_connected", "gofer_ready")
	w.nats.Start()
	s.until("gofer_nats_reconnects_total")
	testenv.Eventually(t, "the jobs to come back", func() bool { return s.read()[`gofer_jobs_in_flight{queue="default"}`] == 2 })
	s.until("gofer_consumer_redelivered", `gofer_job_redeliveries_total{queue="default"}`)
	p.stop()
	s.until("gofer_draining")

	still := []string{
		"gofer_build_info", "gofer_slots", "gofer_pool_failing", "gofer_retries_held_total", "gofer_proxies_avoided",
		"gofer_config_hash_info", "gofer_jobs_overdue_total", "gofer_jobs_overdue", "gofer_site_waits_total", "gofer_sites_followed", "gofer_site_releases_total",
	}
	if time.Now().Truncate(time.Hour).Before(begin) { // else a new hour has begun meanwhile
		still = append(still, "gofer_rollup_start_timestamp_seconds")
	}
	for _, f := range metrics.Families() {
		if f.Name == "gofer_jobs_handed_back_total" {
			continue // moves if the worker stops in the moment in which it receives a job
		}
		if moved := s.familyMoved(f.Name); moved == slices.Contains(still, f.Name) {
			t.Errorf("%s moved: %t", f.Name, moved)
		}
	}
}
