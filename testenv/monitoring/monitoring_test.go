package monitoring_test

import (
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/testenv"
)

func TestMonitoringFitsWhatAWorkerServes(t *testing.T) {
	w := newWorld(t)
	await(t, "the fleet's first count of its jobs", func() bool { return strings.Contains(w.metrics(), "gofer_jobs_waiting{") })
	t.Run("EachNameIsServedAndEachFamilyIsNamed", func(t *testing.T) { checkNames(t, w.metrics()) })
	t.Run("EachReasonOfAFailureHasOneFault", func(t *testing.T) { checkFaults(t, w.metrics()) })
	t.Run("PromtoolFindsNothingToSayOfTheLivePage", func(t *testing.T) { checkPage(t, w.metrics()) })
	t.Run("PrometheusAnswersEachExpressionAndAlerts", func(t *testing.T) { checkLive(t, w) })
}

func TestPromtoolAcceptsTheRulesAndTheirTests(t *testing.T) {
	promtool := testenv.Need(t, "promtool")
	text(t, "gofer.rules.yml") // read here so that go test knows of them
	text(t, "gofer.rules_test.yml")
	text(t, "prometheus.yml")
	for _, args := range [][]string{
		{"check", "rules", "gofer.rules.yml"}, {"test", "rules", "gofer.rules_test.yml"}, {"check", "config", "prometheus.yml"},
	} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = deploy
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// checkPage leaves out the metrics of the Go runtime and of the process, which are not ours.
func checkPage(t *testing.T, page string) {
	t.Helper()
	promtool := testenv.Need(t, "promtool")
	var ours strings.Builder
	for line := range strings.Lines(page) {
		if strings.Contains(line, "gofer_") {
			ours.WriteString(line)
		}
	}
	cmd := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(ours.String())
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// checkLive lets a Prometheus watch how a worker gets busy while one of its proxies breaks.
func checkLive(t *testing.T, w *world) {
	t.Helper()
	p := startPrometheus(t, w.addr)
	// Counters have to be seen before they move: an increase needs a first value.
	await(t, "the first scrape", func() bool { return p.has(t, question{expr: "gofer_ready == 1"}) })
	w.victim.Set(testenv.Refusing)
	w.work()

	// One bound for all of them, so that a failure names every expression without an answer.
	end := time.Now().Add(testenv.Patience)
	for what, q := range questions(t) {
		if !within(end, func() bool { return p.has(t, q) }) {
			t.Errorf("%s has no answer with the labels %q to %s", what, q.labels, q.expr)
		}
	}
	p.checkRules(t)
}

// question is an expression, and the labels that have to be on the answer because the legend shows them.
type question struct {
	expr   string
	labels []string
}

// questions are those of the dashboard and of its variables, the recorded series, and an alert, by whose they are.
func questions(t *testing.T) map[string]question {
	t.Helper()
	out := map[string]question{"the alert": {expr: `ALERTS{alertname="GoferDeadLetters", alertstate="firing"}`}}
	d := readDashboard(t)
	for _, v := range d.Templating.List {
		if v.Definition != "" {
			out["the variable "+v.Name] = labelValues(t, v.Definition)
		}
	}
	for _, panel := range d.Panels {
		for _, target := range panel.Targets {
			what := fmt.Sprintf("panel %d, %q, %s", panel.ID, panel.Title, target.RefID)
			out[what] = question{expr: target.Expr, labels: groups(legendRE, target.Legend)}
		}
	}
	for _, record := range groups(recordRE, text(t, "gofer.rules.yml")) {
		out["the recorded series "+record] = question{expr: record}
	}
	return out
}

// labelValues takes label_values(expression, label) apart, by which Grafana lists what can be chosen.
func labelValues(t *testing.T, definition string) question {
	t.Helper()
	m := regexp.MustCompile(`^label_values\((.+), (\w+)\)$`).FindStringSubmatch(definition)
	if m == nil {
		t.Fatalf("variable definition %q is not label_values(expression, label)", definition)
	}
	return question{expr: m[1], labels: m[2:]}
}

// prometheus is a running one, at the address of its API.
type prometheus struct{ api string }

func startPrometheus(t *testing.T, target string) prometheus {
	t.Helper()
	path := testenv.Need(t, "prometheus")
	rules, err := filepath.Abs(deploy + "gofer.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - {job_name: gofer, static_configs: [{targets: [%q]}]}
`, rules, target)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := testenv.FreeAddr(t)
	start(t, path, nil, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr, "--log.level=warn")
	await(t, "Prometheus to be ready", func() bool { _, err := get("http://" + addr + "/-/ready"); return err == nil })
	return prometheus{api: "http://" + addr + "/api/v1/"}
}

// ask reads an answer of the API into out.
func (p prometheus) ask(t *testing.T, path string, out any) {
	t.Helper()
	body, err := get(p.api + path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(body), out); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// has reports whether the answer to a question has a number with its labels; Grafana's variables are replaced.
func (p prometheus) has(t *testing.T, q question) bool {
	t.Helper()
	expr := strings.NewReplacer("$job", ".*", "$instance", ".*", "$__rate_interval", "1m", "$__range", "1m").Replace(q.expr)
	var answer struct {
		Data struct {
			Result []sample `json:"result"`
		} `json:"data"`
	}
	p.ask(t, "query?query="+url.QueryEscape(expr), &answer)
	return slices.ContainsFunc(answer.Data.Result, func(s sample) bool {
		return s.isNumber() && !slices.ContainsFunc(q.labels, func(label string) bool { return s.Metric[label] == "" })
	})
}

// sample is a series with its value: the time and the number as a text.
type sample struct {
	Metric map[string]string `json:"metric"`
	Value  [2]any            `json:"value"`
}

func (s sample) isNumber() bool {
	value, err := strconv.ParseFloat(fmt.Sprint(s.Value[1]), 64)
	return err == nil && !math.IsNaN(value)
}

// checkRules looks at the rules as Prometheus has loaded them, and at what those that fire tell people.
func (p prometheus) checkRules(t *testing.T) {
	t.Helper()
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []rule `json:"rules"`
			} `json:"groups"`
		} `json:"data"`
	}
	p.ask(t, "rules", &answer)
	for _, group := range answer.Data.Groups {
		for _, r := range group.Rules {
			r.check(t)
		}
	}
}

// rule is a rule as Prometheus tells it.
type rule struct {
	Name        string            `json:"name"`
	Type        string            `json:"type"`
	Health      string            `json:"health"`
	LastError   string            `json:"lastError"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	Alerts      []struct {
		State       string            `json:"state"`
		Annotations map[string]string `json:"annotations"`
	} `json:"alerts"`
}

func (r rule) check(t *testing.T) {
	t.Helper()
	if r.Health != "ok" {
		t.Errorf("rule %s is %s: %s", r.Name, r.Health, r.LastError)
	}
	if r.Type != "alerting" {
		return
	}
	if s := r.Labels["severity"]; s != "critical" && s != "warning" {
		t.Errorf("alert %s has the severity %q", r.Name, s)
	}
	if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
		t.Errorf("alert %s lacks a summary or a description", r.Name)
	}
	// A replay publishes the same bytes.
	if told := r.Annotations["description"]; strings.Contains(told, "dead replay") && !strings.Contains(told, "gofer dead purge --reason invalid_job") {
		t.Errorf("alert %s suggests a replay, and not what helps invalid jobs", r.Name)
	}
	for _, alert := range r.Alerts {
		for name, told := range alert.Annotations {
			if strings.Contains(told, "<error") || strings.Contains(told, "<no value>") {
				t.Errorf("%s of %s is told as %q", name, r.Name, told)
			}
		}
		if slices.Contains([]string{"GoferUnreachable", "GoferNATSLost", "GoferDrainsForLong"}, r.Name) {
			t.Errorf("%s is %s, although nothing of the kind has happened", r.Name, alert.State)
		}
	}
}
