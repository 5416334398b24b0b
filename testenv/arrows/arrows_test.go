// Package arrows_test holds the imports of this module against the plan of its floors: arrows point down only.
package arrows_test

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/gofer-mq/gofer/"

// floors says what each package may import of ours. A package that is not named here may not exist.
func floors() map[string][]string {
	return map[string][]string{
		"jobs/text":            nil,
		"jobs":                 {"jobs/text"},
		"breaker":              nil,
		"rotation/proxylist":   {"jobs/text"},
		"rotation/outlier":     nil,
		"rotation/exits":       nil,
		"rotation/latency":     nil,
		"rotation/sites":       nil,
		"rotation":             {"breaker", "rotation/proxylist", "rotation/outlier", "rotation/exits", "rotation/latency"},
		"jobs/bus":             {"jobs", "jobs/text"},
		"jobs/client":          {"jobs", "jobs/bus"},
		"jobs/examples/go":     {"jobs", "jobs/client"},
		"worker/rollup":        {"jobs"},
		"worker/fetch/http1":   nil,
		"worker/fetch":         {"jobs", "breaker", "rotation", "rotation/sites", "worker/fetch/http1"},
		"worker/stream":        {"jobs", "jobs/bus"},
		"worker":               {"jobs", "jobs/bus", "jobs/text", "worker/rollup", "worker/stream"},
		"worker/fleet":         {"jobs", "jobs/bus", "jobs/text", "rotation", "rotation/proxylist", "rotation/exits", "rotation/sites", "breaker"},
		"worker/totals":        {"jobs", "jobs/bus", "worker/rollup"},
		"worker/overdue":       {"jobs", "jobs/bus", "worker/stream"},
		"worker/release":       {"jobs", "jobs/bus"},
		"worker/waiting":       {"jobs", "jobs/bus", "jobs/text"},
		"worker/metrics":       {"jobs", "jobs/text", "rotation", "worker/rollup"},
		"worker/admin":         {"worker/metrics", "jobs", "jobs/text", "breaker", "rotation", "worker/rollup"},
		"worker/control":       {"jobs", "breaker", "rotation", "worker/rollup"},
		"worker/natsserver":    nil,
		"worker/doctor":        {"jobs", "jobs/bus", "jobs/text", "jobs/client", "worker/control", "worker/waiting"},
		"worker/daemon":        {"jobs", "jobs/bus", "jobs/client", "breaker", "rotation", "rotation/proxylist", "rotation/exits", "rotation/sites", "worker", "worker/admin", "worker/control", "worker/fetch", "worker/fleet", "worker/metrics", "worker/overdue", "worker/release", "worker/rollup", "worker/stream", "worker/totals", "worker/waiting"},
		"worker/config":        {"jobs", "jobs/bus", "jobs/text", "breaker", "rotation", "rotation/proxylist", "worker", "worker/admin", "worker/daemon"},
		"cmd/gofer/playground": nil,
		// Everything but testenv.
		"cmd/gofer": {
			"jobs", "jobs/text", "breaker", "rotation", "rotation/proxylist", "jobs/bus", "worker", "worker/rollup", "worker/fetch", "worker/fleet", "worker/totals", "worker/admin",
			"worker/metrics", "worker/overdue", "cmd/gofer/playground",
			"worker/config", "worker/control", "worker/daemon", "worker/natsserver",
			"jobs/client", "worker/doctor", "worker/waiting",
		},
		"testenv":             {"jobs", "jobs/bus", "cmd/gofer/playground"},
		"testenv/bench":       {"jobs", "jobs/bus", "worker/fetch/http1", "testenv"},
		"testenv/deploy":      nil,
		"testenv/chaos":       {"jobs", "jobs/bus", "jobs/client", "testenv", "testenv/servers"},
		"testenv/experiments": nil,
		"testenv/mutants":     nil,
		"testenv/notices":     nil,
		"testenv/readme":      nil,
		"testenv/scale":       {"jobs", "jobs/bus", "rotation/proxylist", "worker/control", "worker/daemon", "testenv/servers"},
		"testenv/servers":     nil,
		"testenv/interop":     nil,
		"testenv/browser":     nil,
		"testenv/monitoring":  nil,
		"testenv/network":     {"jobs", "breaker", "rotation", "rotation/proxylist", "rotation/sites", "worker/fetch"},
		"testenv/night":       nil,
		"testenv/arrows":      nil,
	}
}

// listed is a package as go list shows it.
type listed struct {
	ImportPath string
	Imports    []string
}

func packages(t *testing.T) (out []listed) {
	t.Helper()
	data, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for dec := json.NewDecoder(strings.NewReader(string(data))); dec.More(); {
		var p listed
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

func TestArrowsPointDown(t *testing.T) {
	plan := floors()
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		allowed, known := plan[name]
		if !known {
			t.Errorf("package %s has no place in the plan", name)
		}
		for _, path := range p.Imports {
			if ours, ok := strings.CutPrefix(path, module); ok && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s, which the plan does not allow", name, ours)
			}
		}
	}
}

func TestOnlyTheEmbeddedServerAndTheTestsCarryAServer(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		server := slices.ContainsFunc(p.Imports, func(path string) bool { return strings.HasPrefix(path, "github.com/nats-io/nats-server/") })
		if server && name != "worker/natsserver" && !strings.HasPrefix(name, "testenv") {
			t.Errorf("%s imports nats-server: whoever imports it would carry a whole server", name)
		}
	}
}

// TestWhoeverImportsGoferLinksNoServer looks at what the packages for other programs import, and at what those import.
func TestWhoeverImportsGoferLinksNoServer(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", module+"worker/daemon", module+"jobs/client").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for path := range strings.Lines(string(out)) {
		if strings.HasPrefix(path, "github.com/nats-io/nats-server/") {
			t.Errorf("a program that embeds a worker or submits jobs would link %s", strings.TrimSpace(path))
		}
	}
}

func TestTopLevelIsAsPlanned(t *testing.T) {
	data, err := exec.CommandContext(t.Context(), "git", "-C", "../..", "ls-files").Output()
	if err != nil {
		t.Skipf("skipped: not a git checkout: %v", err)
	}
	plan := strings.Fields("go.mod go.sum cmd worker breaker rotation jobs deploy Makefile testenv README.md LICENSE CHANGELOG.md .golangci.yml .gitignore .ci .github")
	for path := range strings.Lines(string(data)) {
		top, _, _ := strings.Cut(strings.TrimSpace(path), "/")
		if !slices.Contains(plan, top) {
			t.Errorf("%s does not belong on the top level", top)
		}
	}
}
