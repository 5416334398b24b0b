package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const programPackage = "github.com/gofer-mq/gofer/cmd/gofer"

// Build makes the program in a folder of the test's own and returns its path, so that what is tested is what ships.
func Build(tb testing.TB) string {
	tb.Helper()
	DependOnProgram(tb)
	path := filepath.Join(tb.TempDir(), "gofer")
	if out, err := exec.CommandContext(tb.Context(), "go", "build", "-o", path, programPackage).CombinedOutput(); err != nil {
		tb.Fatalf("build gofer: %v\n%s", err, out)
	}
	return path
}

// DependOnProgram opens the folders and the embedded files that the program is made of: go test then knows that the test's
// result depends on them, which the imports do not tell, and runs it again when they have changed.
func DependOnProgram(tb testing.TB) {
	tb.Helper()
	list := `{{if and .Module .Module.Main}}{{$dir := .Dir}}{{$dir}}{{"\n"}}{{range .EmbedFiles}}{{$dir}}/{{.}}{{"\n"}}{{end}}{{end}}`
	out, err := exec.CommandContext(tb.Context(), "go", "list", "-deps", "-f", list, programPackage).Output()
	if err != nil {
		tb.Fatalf("go list: %v", err)
	}
	DependOn(tb, strings.Fields(string(out))...)
}

// DependOn opens and closes files and folders of this module, for the same end.
func DependOn(tb testing.TB, names ...string) {
	tb.Helper()
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			tb.Fatal(err)
		}
		_ = f.Close()
	}
}

// Need is the path of an installed program, or the end of the test. Of what lies outside the module go test sees no
// change, only of variables: PEERS, which the Makefile sets, is another one when other programs are installed.
func Need(tb testing.TB, name string, elsewhere ...string) string {
	tb.Helper()
	_ = os.Getenv("PEERS")
	for _, candidate := range append([]string{name}, elsewhere...) {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	tb.Skipf("skipped: %s is not installed (.ci/run installs it)", name)
	return ""
}
