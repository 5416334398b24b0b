package arrows_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// otherReaders are the files that take a text apart, or read one whole, beside jobs/text, and why they may.
func otherReaders() map[string]string {
	return map[string]string{
		"cmd/gofer/ask.go":              "reads an answer, which may be empty",
		"cmd/gofer/health.go":           "reads what a worker answers",
		"cmd/gofer/jobflags.go":         "reads a body",
		"cmd/gofer/man.go":              "takes help texts apart that gofer has",
		"cmd/gofer/screen.go":           "takes the table apart that it rendered",
		"cmd/gofer/portholder.go":       "reads what the kernel writes",
		"cmd/gofer/policy.go":           "hands standard input to jobs.DecodePolicy, which reads a text.Document",
		"cmd/gofer/playground/proxy.go": "takes apart what clients of a proxy send",
		"jobs/bus/credentials.go":       "reads certificates and credentials, which have formats of their own",
		"jobs/bus/redact.go":            "takes the addresses apart that text.Items found",
		"jobs/host.go":                  "splits a host",
		"jobs/message.go":               "reads a header field",
		"jobs/result.go":                "reads a list that gofer wrote",
		"rotation/tagindex.go":          "takes a filter apart that gofer put together",
		"worker/admin/api.go":           "hands the body to text.Document",
		"worker/config/files.go":        "hands the file to text.Document",
		"worker/config/proxies.go":      "hands the file to proxylist.ParseList",
		"worker/fetch/decode.go":        "reads a header field",
		"worker/fetch/http1/framing.go": "reads a header field",
		"worker/fetch/http1/http1.go":   "reads responses",
		"worker/fetch/inflate.go":       "reads a body",
		"worker/fetch/errortext.go":     "reads a header field",
		"worker/fetch/zstd.go":          "reads a body",
		"worker/metrics/exposition.go":  "reads samples that a library wrote",
	}
}

// reads reports whether a call takes lines or comma separated items apart, or reads a whole text.
func reads(call *ast.CallExpr) bool {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	of, ok := selector.X.(*ast.Ident)
	if !ok {
		return false
	}
	switch name := of.Name + "." + selector.Sel.Name; name {
	case "bufio.NewScanner", "bufio.NewReader", "bufio.NewReaderSize", "os.ReadFile", "text.ReadFile", "io.ReadAll", "strings.Lines", "bytes.Lines", "strings.FieldsFunc", "bytes.FieldsFunc":
		return true
	case "strings.Split", "strings.SplitN", "strings.SplitSeq", "strings.SplitAfter", "bytes.Split", "bytes.SplitN", "bytes.SplitSeq", "csv.NewReader":
		if len(call.Args) < 2 {
			return true
		}
		separator, ok := call.Args[1].(*ast.BasicLit)
		if !ok {
			return true // a separator that only the run knows
		}
		text, err := strconv.Unquote(separator.Value)
		return err != nil || strings.ContainsAny(text, ",\n")
	}
	return false
}

// TestFilesAndListsAreReadInOnePlace: each reader of its own knows something that the others do not, such as byte order marks,
// blanks, or the true numbers of lines.
func TestFilesAndListsAreReadInOnePlace(t *testing.T) {
	data, err := exec.CommandContext(t.Context(), "git", "-C", "../..", "ls-files", "cmd/**.go", "jobs/**.go", "worker/**.go", "rotation/**.go", "breaker/**.go").Output()
	if err != nil {
		t.Skipf("skipped: not a git checkout: %v", err)
	}
	unused := otherReaders()
	for file := range strings.FieldsSeq(string(data)) {
		if strings.HasSuffix(file, "_test.go") || strings.HasPrefix(file, "jobs/text/") || strings.Contains(file, "/testdata/") || strings.Contains(file, "/examples/") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join("../..", file), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && reads(call) {
				if otherReaders()[file] == "" {
					t.Errorf("%s reads a text by itself: use jobs/text, or say in otherReaders why not", file)
				}
				delete(unused, file)
			}
			return true
		})
	}
	for file := range unused {
		t.Errorf("%s reads nothing by itself any more: take it out of otherReaders", file)
	}
}
