package night_test

import (
	"cmp"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/testenv"
)

// trouble is something that goes wrong at night.
type trouble struct {
	// name is what the table in deploy/README.md calls it.
	name string
	// cause and remedy are patterns: each place names both in words of its own.
	cause, remedy string
	// begin makes it and returns the job that an operator asks for.
	begin func(t *testing.T, program string) (*scene, string)
}

func troubles() []trouble {
	return []trouble{
		{"no proxies", `no proxy is configured|no proxies`, `gofer proxies add`, noProxies},
		{"every proxy banned by one site", `ban|cool`, `gofer proxies add`, banned},
		{"dead site", `does not answer`, `gofer sites (show|ls)`, deadSite},
		{"dead NATS", `cannot be reached|not connected|no connection to NATS`, `(?i)start (nats-server|it|the servers)`, deadNATS},
		{"lost quorum of the NATS cluster", `no leader`, `start the .*servers`, lostQuorum},
		{"full results", `no room for results|is full`, `GOFER_RESULTS_MAX_BYTES.*gofer setup`, fullResults},
		{"edited consumer", `headers_only is true|was edited`, `gofer setup`, editedConsumer},
		{"paused queue", `paused`, `gofer resume`, pausedQueue},
		{"poison jobs", `fail`, `gofer dead (ls|show)`, poison},
		{"misspelt queue", `no worker`, `gofer cancel --queue`, misspelt},
	}
}

// TestEachPlaceNamesTheCauseAndTheRemedy: an operator who is woken up sees one of these places first, and mostly no other one.
func TestEachPlaceNamesTheCauseAndTheRemedy(t *testing.T) {
	program := testenv.Build(t)
	manual, err := os.ReadFile("../../deploy/README.md")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // guards table
	table := map[string]string{}
	t.Run("night", func(t *testing.T) {
		for _, trouble := range troubles() {
			t.Run(trouble.name, func(t *testing.T) {
				t.Parallel()
				s, job := trouble.begin(t, program)
				row := trouble.examine(t, s, job, string(manual))
				mu.Lock()
				defer mu.Unlock()
				table[trouble.name] = row
			})
		}
	})
	for _, trouble := range troubles() {
		t.Logf("%s\n%s", trouble.name, table[trouble.name])
	}
}

// examine looks at each place until it names the cause and the remedy, and returns what all of them say.
func (x *trouble) examine(t *testing.T, s *scene, job, manual string) (row string) {
	t.Helper()
	promtool := "" // its path, which the last place needs
	places := []struct {
		name string
		read func() string
	}{
		{"gofer doctor", func() string { return faults(s.gofer("doctor")) }},
		{"gofer queues", func() string { return s.gofer("queues") }},
		{"gofer job", func() string { return s.gofer("job", job) }},
		{"page", s.problems},
		{"alert", func() string { return s.alert(promtool) }},
	}
	for _, place := range places {
		t.Run(place.name, func(t *testing.T) {
			if place.name == "alert" {
				promtool = testenv.Need(t, "promtool")
			}
			var said string
			defer func() {
				row += "  " + place.name + "\n    " + strings.ReplaceAll(cmp.Or(said, "nothing"), "\n", "\n    ") + "\n"
			}()
			if !within(func() bool {
				said = place.read()
				return regexp.MustCompile(x.cause).MatchString(said) && regexp.MustCompile(x.remedy).MatchString(said)
			}) {
				t.Errorf("want the cause (%s) and the remedy (%s), got\n%s", x.cause, x.remedy, said)
			}
			if alert, _, _ := strings.Cut(said, " "); place.name == "alert" && !regexp.MustCompile(`(?m)^\| `+x.name+` \|.*`+"`"+alert+"`").MatchString(manual) {
				t.Errorf("the table in deploy/README.md has no row for %q that names %s", x.name, alert)
			}
		})
	}
	return row
}

// faults are the lines of gofer doctor that are not ok.
func faults(findings string) string {
	var bad []string
	for line := range strings.Lines(findings) {
		if !strings.HasPrefix(line, "ok ") {
			bad = append(bad, strings.TrimSpace(line))
		}
	}
	return strings.Join(bad, "\n")
}

func noProxies(t *testing.T, program string) (*scene, string) {
	t.Helper()
	s := open(t, program, "", nil).work()
	s.submit("default", "j1", "http://shop.test/")
	s.counted("no_proxy")
	return s, "j1"
}

func banned(t *testing.T, program string) (*scene, string) {
	t.Helper()
	s := open(t, program, "", nil).withProxies().work()
	const job = `{"url":"http://captcha.test/status/403","ban":{"statuses":[403]}}`
	s.submit("default", "first", job) // three attempts, through three proxies
	s.ended(1)
	// A worker counts a job after it has published its result. The failure of the first job is no part of the trouble.
	s.metric(`gofer_dead_jobs_total{reason="attempts_exhausted"} 1`)
	s.before = s.metrics()
	s.submit("default", "next", job)
	s.counted("no_proxy")
	return s, "next"
}

func deadSite(t *testing.T, program string) (*scene, string) {
	t.Helper()
	s := open(t, program, "", nil).withProxies().work()
	for i := range 5 {
		s.submit("default", fmt.Sprint("ok", i), "http://shop.test/")
	}
	s.ended(5)
	for i := range 6 {
		s.submit("default", fmt.Sprint("j", i), "http://dead.test/")
	}
	s.metric(`gofer_sites{state="resting"} 1`)
	s.submit("default", "last", "http://dead.test/")
	s.counted("site_down")
	// After GOFER_SITE_MAX_WAIT and a test of the site in vain the jobs end as dead letters.
	s.later = func(page string) string {
		return regexp.MustCompile(`(?m)^(gofer_dead_jobs_total\{reason="site_down"\}) 0$`).ReplaceAllString(page, "$1 7")
	}
	return s, "last"
}

func deadNATS(t *testing.T, program string) (*scene, string) {
	t.Helper()
	s := open(t, program, "", nil).withProxies().work()
	s.submit("default", "j1", "http://shop.test/")
	s.ended(1)
	s.server.Stop()
	s.metric("gofer_nats_connected 0")
	return s, "j1"
}

func lostQuorum(t *testing.T, program string) (*scene, string) {
	t.Helper()
	c := testenv.StartCluster(t)
	s := open(t, program, c.URL(0), c.Connect(0), "GOFER_REPLICAS=3").withProxies().work()
	s.submit("default", "j1", "http://shop.test/")
	s.ended(1)
	c.Kill(1)
	c.Kill(2)
	s.metric("gofer_ready 0")
	return s, "j1"
}

func fullResults(t *testing.T, program string) (*scene, string) {
	t.Helper()
	s := open(t, program, "", nil, "GOFER_RESULTS_MAX_BYTES=1000000").withProxies().work()
	for i := range 3 { // as many as there is room for, one after the other
		s.submit("default", fmt.Sprint("j", i), "http://shop.test/bytes/300000")
		s.ended(uint64(i) + 1)
	}
	s.submit("default", "next", "http://shop.test/bytes/300000")
	s.metric("gofer_ready 0")
	return s, "next"
}

func editedConsumer(t *testing.T, program string) (*scene, string) {
	t.Helper()
	s := open(t, program, "", nil).withProxies().work()
	js, err := jetstream.New(s.nc)
	if err != nil {
		t.Fatal(err)
	}
	c, err := js.Consumer(t.Context(), "GOFER_JOBS", "worker-default")
	if err != nil {
		t.Fatal(err)
	}
	config := c.CachedInfo().Config
	config.HeadersOnly = true
	if _, err := js.UpdateConsumer(t.Context(), "GOFER_JOBS", config); err != nil {
		t.Fatal(err)
	}
	s.submit("default", "j0", "http://shop.test/") // a worker learns it from the next job
	s.metric("gofer_ready 0")
	s.submit("default", "j1", "http://shop.test/")
	s.counted("queued")
	return s, "j1"
}

func pausedQueue(t *testing.T, program string) (*scene, string) {
	t.Helper()
	s := open(t, program, "", nil).withProxies().work()
	s.gofer("pause", "default")
	s.submit("default", "j1", "http://shop.test/")
	s.counted("queued")
	return s, "j1"
}

func poison(t *testing.T, program string) (*scene, string) {
	t.Helper()
	s := open(t, program, "", nil).withProxies().work()
	for i := range 30 {
		s.submit("default", fmt.Sprint("j", i), `{"ulr":"http://shop.test/"}`)
	}
	s.ended(30)
	return s, "j7"
}

func misspelt(t *testing.T, program string) (*scene, string) {
	t.Helper()
	s := open(t, program, "", nil).withProxies().work()
	s.submit("defalt", "j1", "http://shop.test/")
	s.metric(`gofer_jobs_waiting{queue="other",why="queued"} 1`)
	return s, "j1"
}
