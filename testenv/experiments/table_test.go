package experiments_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"text/tabwriter"
)

// row is what came of one experiment.
type row struct {
	name, aim             string
	baseline, gofer, gain string
	seeds                 string
	met                   bool
	// exact rows come out the same on every machine.
	exact bool
}

// size is how much is done: a little in every run of the tests, more with EXPERIMENTS=full.
type size struct {
	seeds []uint64
	jobs  int // of each seed
}

func chosen() size {
	if os.Getenv("EXPERIMENTS") == "full" {
		return size{seeds: []uint64{1, 2, 3, 4, 5}, jobs: 20_000}
	}
	return size{seeds: []uint64{1}, jobs: 4_000}
}

func (s size) String() string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(s.seeds), " ", ","), "[]")
}

func TestExperiments(t *testing.T) {
	s := chosen()
	rows := choices(t, s)
	show(t, rows)
	for _, r := range rows {
		if r.exact && !r.met {
			t.Errorf("%s: got %s beside %s, want %s", r.name, r.gofer, r.baseline, r.aim)
		}
	}
}

// show prints the table where go test -v shows it.
func show(t *testing.T, rows []row) {
	t.Helper()
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "experiment\taim\tbaseline\tgofer\tratio\tseed\tmet")
	for _, r := range rows {
		met := "yes"
		if !r.met {
			met = "NO"
		}
		_, _ = fmt.Fprintln(w, strings.Join([]string{r.name, r.aim, r.baseline, r.gofer, r.gain, r.seeds, met}, "\t"))
	}
	_ = w.Flush()
	t.Logf("\n%s", text.String())
}
