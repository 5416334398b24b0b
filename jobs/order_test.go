package jobs_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/gofer-mq/gofer/"

// anyOrder lists the functions of packages that write messages, lists or errors, and that go through a map in its own order, with
// the reason why that order reaches nobody. A map has another order each time.
func anyOrder() map[string]string {
	return map[string]string{
		"jobs.request":                "its reasons are sorted",
		"jobs.Message":                "fills a map",
		"jobs.members":                "its reasons are sorted",
		"jobs.parsePrefixed":          "fills a map",
		"jobs/client.Find":            "what was found is sorted",
		"jobs/client.run":             "yields jobs to a loop, in any order",
		"jobs/bus.moveStrays":         "copies headers into a map",
		"jobs/client.pause":           "two requests that do not depend on each other",
		"jobs/client.unlistenAll":     "ends waits that do not depend on each other",
		"jobs/client.listen":          "subscriptions do not depend on each other",
		"jobs/client.hasDropped":      "any of them",
		"jobs/client.lookUpOpen":      "results are looked up, and used as they come",
		"jobs/bus.refuse":             "ends requests",
		"jobs/bus.WaitAgain":          "fills a map",
		"jobs/bus.readNewest":         "the subjects are one set in a request",
		"jobs/bus.notifyListeners":    "ends requests",
		"jobs/bus.isReadWhole":        "adds up",
		"worker.all":                  "jobs are handed back, each by itself",
		"worker.blocks":               "any of them",
		"worker.list":                 "the list is sorted",
		"worker.queues":               "fills a map",
		"worker.messageSize":          "adds up",
		"worker/control.Running":      "adds up",
		"worker/stream.Stop":          "ends subscriptions",
		"worker/stream.endOlder":      "ends pulls, and sends nothing",
		"worker/config.misspelt":      "its reasons are sorted",
		"worker/admin.Add":            "adds up",
		"worker/admin.markServed":     "fills a map",
		"worker/daemon.update":        "fills a map",
		"worker/daemon.groups":        "the list is sorted",
		"worker/daemon.backlog":       "fills a map",
		"worker/daemon.logSum":        "adds up",
		"worker/doctor.breakers":      "adds up",
		"worker/admin.notLocal":       "any of them",
		"worker/admin.answered":       "finds the latest",
		"worker/admin.New":            "fills a map",
		"worker/admin.readParameters": "fills a map",
		"worker/admin.askFleet":       "fills a map",
		"worker/admin.joinSteps":      "fills a map",
		"worker/admin.addWorkers":     "adds up",
		"worker/admin.rows":           "the list is sorted",
		"worker/admin.self":           "the list is sorted",
		"worker/admin.view":           "the list is sorted",
		"worker/admin.queuesNow":      "the list is sorted",
		"worker/admin.sameStates":     "any of them",
		"worker/admin.sumOf":          "adds up",
		"worker/waiting.addWaiting":   "the reasons are sorted",
		"worker/waiting.Refresh":      "the list is sorted",
		"worker/waiting.isIdle":       "any of them",
		"worker/waiting.Oldest":       "the oldest of them",
		"cmd/gofer.completeValues":    "registers completions",
		"cmd/gofer.jobKey":            "the queues are sorted",
		"cmd/gofer.fill":              "fills a map",
		"cmd/gofer.fillHeaders":       "fills a map",
		"cmd/gofer.openQueues":        "fills a map",
		"cmd/gofer.drawOnce":          "adds up",
		"cmd/gofer.add":               "adds up",
		"cmd/gofer.notePool":          "adds up",
		"cmd/gofer.stateText":         "adds up",
		"cmd/gofer.siteState":         "adds up",
		"cmd/gofer.snapshot":          "fills a map",
	}
}

// compiled is a package as go list shows it.
type compiled struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
}

func TestNoOrderOfAMapReachesAReader(t *testing.T) {
	wanted := []string{"jobs", "jobs/bus", "jobs/client", "worker", "worker/stream", "worker/control", "worker/config", "worker/daemon", "worker/doctor", "worker/admin",
		"worker/waiting", "cmd/gofer"}
	args := []string{"list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles"}
	for _, name := range wanted {
		args = append(args, module+name)
	}
	data, err := exec.CommandContext(t.Context(), "go", args...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	packages := map[string]compiled{}
	for dec := json.NewDecoder(strings.NewReader(string(data))); dec.More(); {
		var p compiled
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		packages[p.ImportPath] = p
	}
	allowed := anyOrder()
	for _, name := range wanted {
		for _, found := range mapRanges(t, packages, packages[module+name]) {
			if _, ok := allowed[found]; !ok {
				t.Errorf("%s goes through a map in its own order: use a fixed order, or list it here with the reason why that order reaches nobody", found)
			}
			allowed[found] = ""
		}
	}
	for name, reason := range allowed {
		if reason != "" {
			t.Errorf("%s is listed and goes through no map", name)
		}
	}
}

// mapRanges are the functions of a package that go through a map in its own order, each as package and function.
func mapRanges(t *testing.T, all map[string]compiled, p compiled) (found []string) {
	t.Helper()
	files := token.NewFileSet()
	var parsed []*ast.File
	for _, name := range p.GoFiles {
		file, err := parser.ParseFile(files, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, file)
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	config := types.Config{Importer: importer.ForCompiler(files, "gc", func(path string) (io.ReadCloser, error) {
		if all[path].Export == "" {
			return nil, fmt.Errorf("no export data of %s", path)
		}
		return os.Open(all[path].Export)
	})}
	if _, err := config.Check(p.ImportPath, files, parsed, info); err != nil {
		t.Fatal(err)
	}
	for _, file := range parsed {
		for _, decl := range file.Decls {
			function, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if goesThroughMap(function, info) {
				found = append(found, strings.TrimPrefix(p.ImportPath, module)+"."+function.Name.Name)
			}
		}
	}
	return found
}

// goesThroughMap reports whether a function ranges over a map, or takes its keys or values without sorting them.
func goesThroughMap(function *ast.FuncDecl, info *types.Info) (found bool) {
	sorted := map[ast.Node]bool{}
	ast.Inspect(function, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.RangeStmt:
			_, isMap := info.Types[n.X].Type.Underlying().(*types.Map)
			found = found || isMap
		case *ast.CallExpr:
			switch name := types.ExprString(n.Fun); {
			case strings.HasPrefix(name, "slices.Sorted"):
				sorted[n.Args[0]] = true
			case name == "maps.Keys", name == "maps.Values", name == "maps.All":
				found = found || !sorted[n]
			}
		}
		return true
	})
	return found
}
