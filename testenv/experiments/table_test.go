package experiments_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/gofer-mq/gofer/rotation"
)

// row is what came of one experiment.
type row struct {
	name, where, aim      string
	baseline, gofer, gain string
	seeds                 string
	met                   bool
	// exact rows come out the same on every machine.
	exact bool
}

// number is the experiment's.
func (r row) number() (n int) {
	_, _ = fmt.Sscan(r.name, &n)
	return n
}

// size is how much is done.
type size struct {
	seeds []uint64
	jobs  int // of each seed
	kills int
	// atOnce is how many requests of the real network are under way together, turns how often either way comes.
	atOnce, turns int
	settle        int  // jobs before and after a change of policy
	crowd         int  // jobs under way together in memory
	more          bool // worlds and baselines beyond those of the aims
	// Of the worlds in which sites do not answer.
	slots                int
	silence, crawl, asks time.Duration
	sockets              time.Duration // real time
}

// chosen is a little in every run of the tests, and all of it with EXPERIMENTS=full.
func chosen() size {
	if os.Getenv("EXPERIMENTS") == "full" {
		return size{seeds: []uint64{1, 2, 3, 4, 5}, jobs: 10_000, kills: 10, atOnce: 1000, turns: 3, settle: 500, crowd: 10_000, more: true,
			slots: 64, silence: 30 * time.Minute, crawl: 2 * time.Minute, asks: 30 * time.Minute, sockets: 20 * time.Second}
	}
	return size{seeds: []uint64{1}, jobs: 4_000, kills: 3, atOnce: 50, turns: 1, settle: 100, crowd: 1_000, slots: 16, silence: 2 * time.Minute, crawl: time.Minute, asks: 15 * time.Minute, sockets: 4 * time.Second}
}

func (s size) String() string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(s.seeds), " ", ","), "[]")
}

// TestExperiments holds the exact rows to their aims. Those that are about real time are only shown: a busy machine is no
// fault of the code. The same goes for the worlds that no aim speaks of.
func TestExperiments(t *testing.T) {
	s := chosen()
	rows := append(choices(t, s, 0.25), breach(t, s), overhead(t, s), hours(), policy(t, s))
	rows = append(append(rows, bans(t)...), witnesses(t)...)
	rows = append(rows, append(rests(t, s), silence(t, s)...)...)
	rows = append(rows, gateways(t, s)...)
	for _, r := range rows {
		if r.exact && !r.met {
			t.Errorf("%s: got %s beside %s, want %s", r.name, r.gofer, r.baseline, r.aim)
		}
	}
	if s.more {
		rows = append(append(rows, choices(t, s, 0.7)...), crowd(t))
	}
	slices.SortStableFunc(rows, func(a, b row) int { return a.number() - b.number() })
	show(t, rows)
}

func TestOneSeedGivesTheSameNumbers(t *testing.T) {
	a := arm{bad: 0.5, attempts: 5, breakers: true, strategy: rotation.LeastUsed, timeout: 3 * time.Second}
	first, second := a.run(t, 7, 1000), a.run(t, 7, 1000)
	if got, want := fmt.Sprint(second), fmt.Sprint(first); got != want {
		t.Errorf("the same seed again: got %s, want %s", got, want)
	}
	if other := a.run(t, 8, 1000); fmt.Sprint(other) == fmt.Sprint(first) {
		t.Errorf("another seed: got the same, %v", other)
	}
}

// show prints the table where go test -v shows it.
func show(t *testing.T, rows []row) {
	t.Helper()
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "experiment\tworld\taim\tbaseline\tgofer\tratio\tseeds\tmet")
	for _, r := range rows {
		met := "yes"
		if !r.met {
			met = "NO"
		}
		_, _ = fmt.Fprintln(w, strings.Join([]string{r.name, r.where, r.aim, r.baseline, r.gofer, r.gain, r.seeds, met}, "\t"))
	}
	_ = w.Flush()
	t.Logf("\n%s", text.String())
}
