package monitoring_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// deploy is the folder that is tested.
const deploy = "../../deploy/monitoring/"

// text is a file of the folder.
func text(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(deploy + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// documents are the files that may name metrics, by path.
func documents(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(deploy + "*")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("../../deploy/*/*.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, path := range append(append(paths, more...), "../../README.md", "../../CHANGELOG.md") {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out[path] = string(data)
	}
	return out
}

var (
	nameRE   = regexp.MustCompile(`[a-z_:]*gofer_[a-z0-9_:]*`)
	recordRE = regexp.MustCompile(`- record: (\S+)`)
	alertRE  = regexp.MustCompile(`- alert: (\S+)`)
	helpRE   = regexp.MustCompile(`(?m)^# TYPE (gofer_\S+) (\S+)$`)
	reasonRE = regexp.MustCompile(`(?m)^gofer_attempts_total\{outcome="failed",reason="([^"]+)"`)
	legendRE = regexp.MustCompile(`\{\{(\w+)\}\}`)
	chosenRE = regexp.MustCompile(`reason=~"([^"]+)"`)
)

// groups are the first groups of all matches.
func groups(re *regexp.Regexp, text string) (out []string) {
	for _, m := range re.FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	return out
}

// families are the metrics of a page: type by name.
func families(page string) map[string]string {
	out := map[string]string{}
	for _, m := range helpRE.FindAllStringSubmatch(page, -1) {
		out[m[1]] = m[2]
	}
	return out
}

// family is the metric that a series belongs to.
func family(served map[string]string, series string) string {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, cut := strings.CutSuffix(series, suffix); cut && served[base] == "histogram" {
			return base
		}
	}
	return series
}

// dashboard is what is looked at of dashboard.json.
type dashboard struct {
	Templating struct {
		List []struct {
			Name       string `json:"name"`
			Definition string `json:"definition"`
		} `json:"list"`
	} `json:"templating"`
	Panels []panel `json:"panels"`
}

type panel struct {
	ID      int    `json:"id"`
	Type    string `json:"type"`
	Title   string `json:"title"`
	GridPos struct {
		H, W, X, Y int
	} `json:"gridPos"`
	Targets []struct {
		RefID string `json:"refId"`
		Expr  string `json:"expr"`
		// Legend may show labels: {{label}}.
		Legend string `json:"legendFormat"`
	} `json:"targets"`
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	if err := json.Unmarshal([]byte(text(t, "dashboard.json")), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestEachAlertIsSeenFiringByAUnitTest(t *testing.T) {
	tests := text(t, "gofer.rules_test.yml")
	alerts := groups(alertRE, text(t, "gofer.rules.yml"))
	if len(alerts) == 0 {
		t.Fatal("gofer.rules.yml has no alerts")
	}
	for _, alert := range alerts {
		if !strings.Contains(tests, `alertname="`+alert+`"`) {
			t.Errorf("no unit test expects %s to fire", alert)
		}
	}
}

func TestDashboardNamesNoDataSourceOfItsAuthor(t *testing.T) {
	var all any
	if err := json.Unmarshal([]byte(text(t, "dashboard.json")), &all); err != nil {
		t.Fatal(err)
	}
	sources := 0
	walk(all, func(key string, value any) {
		if key != "uid" {
			return
		}
		sources++
		if value != "${datasource}" {
			t.Errorf("uid = %v, want the variable", value)
		}
	})
	if sources == 0 {
		t.Error("the dashboard has no data source at all")
	}
}

// walk shows every key of a JSON document with its value.
func walk(value any, see func(key string, value any)) {
	switch v := value.(type) {
	case map[string]any:
		for key, inner := range v {
			see(key, inner)
			walk(inner, see)
		}
	case []any:
		for _, inner := range v {
			walk(inner, see)
		}
	}
}

func TestPanelsHaveTheirOwnNumberAndPlace(t *testing.T) {
	panels := readDashboard(t).Panels
	for i, a := range panels {
		if a.GridPos.X+a.GridPos.W > 24 || a.GridPos.W < 1 || a.GridPos.H < 1 {
			t.Errorf("panel %q does not fit the 24 columns: %+v", a.Title, a.GridPos)
		}
		if (a.Type == "row") != (len(a.Targets) == 0) {
			t.Errorf("panel %q is a %s with %d expressions", a.Title, a.Type, len(a.Targets))
		}
		for _, b := range panels[:i] {
			if a.ID == b.ID {
				t.Errorf("panels %q and %q share the number %d", a.Title, b.Title, a.ID)
			}
			if overlap(a, b) {
				t.Errorf("panels %q and %q lie on one another", a.Title, b.Title)
			}
		}
	}
}

func overlap(a, b panel) bool {
	p, q := a.GridPos, b.GridPos
	return p.X < q.X+q.W && q.X < p.X+p.W && p.Y < q.Y+q.H && q.Y < p.Y+p.H
}

// checkNames compares the names of the files with those that a page has.
func checkNames(t *testing.T, page string) {
	t.Helper()
	served := families(page)
	recorded := groups(recordRE, text(t, "gofer.rules.yml"))
	named := map[string]bool{}
	for path, content := range documents(t) {
		for _, name := range nameRE.FindAllString(content, -1) {
			name = strings.TrimRight(name, ":")
			base := family(served, name)
			named[base] = true
			switch {
			case served[base] != "", slices.Contains(recorded, name):
			case strings.HasSuffix(name, "_") && hasPrefix(served, name): // the beginning of a pattern
			default:
				t.Errorf("%s names %s, which is not served", path, name)
			}
		}
	}
	for name := range served {
		if !named[name] {
			t.Errorf("%s is served, but neither used nor in README.md's table", name)
		}
	}
	if len(served) < 30 {
		t.Errorf("the page has %d families, which cannot be all", len(served))
	}
}

func hasPrefix(served map[string]string, prefix string) bool {
	for name := range served {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// checkFaults looks whether the panel that sorts failed attempts by fault puts each reason of a page into one place.
func checkFaults(t *testing.T, page string) {
	t.Helper()
	var places []*regexp.Regexp
	for _, p := range readDashboard(t).Panels {
		if p.Title != "Failed attempts by fault" {
			continue
		}
		for _, target := range p.Targets {
			for _, reasons := range groups(chosenRE, target.Expr) {
				places = append(places, regexp.MustCompile("^(?:"+reasons+")$"))
			}
		}
	}
	reasons := groups(reasonRE, page)
	if len(reasons) == 0 || len(places) == 0 {
		t.Fatalf("%d reasons on the page, %d places on the dashboard", len(reasons), len(places))
	}
	for _, reason := range reasons {
		n := 0
		for _, place := range places {
			if place.MatchString(reason) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("the dashboard counts attempts that failed by %s %d times", reason, n)
		}
	}
}

// TestEachAlertHasAnEntryInTheRunbook: the entry is a heading with the alert's name, and runbook_url names its anchor.
func TestEachAlertHasAnEntryInTheRunbook(t *testing.T) {
	data, err := os.ReadFile("../../deploy/README.md")
	if err != nil {
		t.Fatal(err)
	}
	rules := text(t, "gofer.rules.yml")
	for _, alert := range groups(alertRE, rules) {
		if !strings.Contains(string(data), "\n### "+alert+"\n") {
			t.Errorf("deploy/README.md has no entry for %s", alert)
		}
		_, rule, _ := strings.Cut(rules, "- alert: "+alert+"\n")
		rule, _, _ = strings.Cut(rule, "- alert: ")
		if url := "runbook_url: deploy/README.md#" + strings.ToLower(alert) + "\n"; strings.Count(rule, url) != 1 {
			t.Errorf("%s does not name its entry by %s", alert, url)
		}
	}
}
