package night_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// rules are what is evaluated.
const rules = "../../deploy/monitoring/gofer.rules.yml"

var (
	seriesRE = regexp.MustCompile(`(?m)^(gofer_\w+)(?:\{(.*)\})? (\S+)$`)
	usedRE   = regexp.MustCompile(`gofer_[a-z0-9_]+`)
	nameRE   = regexp.MustCompile(`alertname="(\w+)"`)
	textRE   = regexp.MustCompile(`(description|summary)="((?:[^"\\]|\\.)*)"`)
)

// troubleBegins is the minute of the two pages' seam. It is later than any rule looks back, and hours of the trouble follow.
const (
	troubleBegins = 20
	troubleEnds   = 140
)

// timeline is how a Prometheus would have scraped a worker: the page before the trouble, then the one during it. Counters
// rise once. The age of a job goes on rising.
func timeline(t *testing.T, before, during string) string {
	t.Helper()
	data, err := os.ReadFile(rules)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, name := range usedRE.FindAllString(string(data), -1) {
		used[name] = true
	}
	old := map[string]string{}
	for _, m := range seriesRE.FindAllStringSubmatch(before, -1) {
		old[m[1]+"{"+m[2]] = m[3]
	}
	var out strings.Builder
	add := func(series, values string) {
		fmt.Fprintf(&out, "      - {series: '%s', values: '%s'}\n", series, values)
	}
	add(`up{job="gofer", instance="w1"}`, fmt.Sprintf("1x%d", troubleEnds))
	for _, m := range seriesRE.FindAllStringSubmatch(during, -1) {
		if !used[m[1]] {
			continue
		}
		was := old[m[1]+"{"+m[2]]
		if was == "" {
			was = "_"
		}
		now := m[3]
		if m[1] == "gofer_oldest_job_seconds" && now != "0" {
			now += "+60"
		}
		labels := strings.TrimSuffix(strings.TrimPrefix(m[2]+`,job="gofer",instance="w1"`, ","), ",")
		add(m[1]+"{"+labels+"}", fmt.Sprintf("%sx%d %sx%d", was, troubleBegins, now, troubleEnds-troubleBegins))
	}
	return out.String()
}

// alert is what the alerts say that fire first: a line for each with its name and after how many minutes, and then its sentences.
func (s *scene) alert(promtool string) string {
	s.Helper()
	path, err := filepath.Abs(rules)
	if err != nil {
		s.Fatal(err)
	}
	during := s.metrics()
	if s.later != nil {
		during = s.later(during)
	}
	head := fmt.Sprintf("rule_files: [%q]\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n%s", path, timeline(s.T, s.before, during))
	// A test that expects nothing fails where something fires, and says what.
	differences := func(tests string) string {
		file := filepath.Join(s.TempDir(), "test.yml")
		if err := os.WriteFile(file, []byte(head+tests), 0o600); err != nil {
			s.Fatal(err)
		}
		out, _ := exec.CommandContext(s.Context(), promtool, "test", "rules", file).CombinedOutput()
		return string(out)
	}
	var each strings.Builder
	each.WriteString("    promql_expr_test:\n")
	for minute := troubleBegins + 1; minute <= troubleEnds; minute++ {
		fmt.Fprintf(&each, "      - {expr: 'ALERTS{alertstate=\"firing\"}', eval_time: %dm, exp_samples: []}\n", minute)
	}
	said := differences(each.String())
	minute, fire, found := strings.Cut(said, "m,\n")
	if !found {
		return "promtool shows no alert: " + said
	}
	minute = minute[strings.LastIndex(minute, " ")+1:]
	fire, _, _ = strings.Cut(fire, "expr:")
	var texts []string
	for _, name := range nameRE.FindAllStringSubmatch(fire, -1) {
		said = differences(fmt.Sprintf("    alert_rule_test: [{eval_time: %sm, alertname: %s, exp_alerts: []}]\n", minute, name[1]))
		at, err := time.ParseDuration(minute + "m")
		if err != nil {
			s.Fatal(err)
		}
		text := fmt.Sprintf("%s after %.0f min", name[1], at.Minutes()-troubleBegins)
		for _, m := range textRE.FindAllStringSubmatch(said, -1) {
			text += "\n" + strings.ReplaceAll(m[2], `\"`, `"`)
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "\n")
}
