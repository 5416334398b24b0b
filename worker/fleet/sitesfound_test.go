package fleet_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation/sites"
	"github.com/gofer-mq/gofer/worker/fleet"
)

// countedTable counts what is asked of a table.
type countedTable struct {
	*sites.Table
	asked int
}

func (c *countedTable) Apply(f sites.Finding) []sites.Event {
	c.asked++
	return c.Table.Apply(f)
}

func (c *countedTable) Counts() sites.Counts {
	c.asked++
	return c.Table.Counts()
}

func (c *countedTable) StatusOf(name string) (sites.Status, bool) {
	c.asked++
	return c.Table.StatusOf(name)
}

// follower is a worker that knows some sites and takes what others found.
type follower struct {
	*fleet.Sites
	table *countedTable
}

func newFollower(known int) *follower {
	f := &follower{table: &countedTable{Table: sites.New(sites.Config{})}}
	f.Sites = fleet.NewSites(fleet.SitesConfig{Table: f.table, Applied: func([]sites.Event) {}, Worker: "own", Log: slog.New(slog.DiscardHandler)})
	for i := range known {
		f.answer(fmt.Sprintf("good%d.test", i))
	}
	return f
}

func (f *follower) answer(site string) {
	v, _, _ := f.table.Enter(site, sites.Ask{MaxDuration: time.Second})
	v.Report(sites.Outcome{Kind: sites.Answered, Via: "p1"})
}

func (f *follower) rests(site string) bool {
	s, _ := f.table.Table.StatusOf(site)
	return s.State == sites.Resting
}

// take applies the finding of a worker that a site rests for a time.
func (f *follower) take(tb testing.TB, worker, site string, rest time.Duration) {
	tb.Helper()
	finding := restOf(worker, site)
	finding.Duration = jobs.Duration(rest)
	data, err := json.Marshal(finding)
	if err != nil {
		tb.Fatal(err)
	}
	f.Set(jobs.SiteKey(site), data)
}

func TestAFindingCostsTheSameHoweverManyThereAre(t *testing.T) {
	t.Parallel()
	many := 100_000
	if testing.Short() {
		many = 10_000
	}
	for name, c := range map[string]struct {
		findings, known, workers int
		followed                 bool
	}{
		"one worker that is not followed": {findings: many, known: 1000, workers: 1},
		"one worker on the limit":         {findings: 10_000, known: 5000, workers: 1},
		"four workers of a fleet":         {findings: 10_000, workers: 4, followed: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFollower(c.known)
			f.table.asked = 0
			for i := range c.findings {
				f.take(t, fmt.Sprint("w", i%c.workers), fmt.Sprintf("s%d.test", i), time.Minute)
			}
			if perFinding := float64(f.table.asked) / float64(c.findings); perFinding > 8 {
				t.Errorf("the table of sites is asked %.1f times for each finding, want a few", perFinding)
			}
			if got := f.rests("s0.test"); got != c.followed {
				t.Errorf("the first site rests: %t, want %t", got, c.followed)
			}
			f.table.asked = 0
			f.Review()
			if f.table.asked > 2*c.findings {
				t.Errorf("the table of sites is asked %d times in a review of %d findings", f.table.asked, c.findings)
			}
		})
	}
}

func TestAWorkerIsFollowedAgainWhenItsFindingsAreOver(t *testing.T) {
	synctest.Test(t, testFindingsThatAreOver)
}

func testFindingsThatAreOver(t *testing.T) {
	f := newFollower(4)
	for i := range 5 {
		f.take(t, "broken", fmt.Sprintf("s%d.test", i), 30*time.Second)
	}
	f.take(t, "broken", "s5.test", time.Minute)
	if f.rests("s5.test") {
		t.Fatal("a worker is followed that finds more than half of the sites silent")
	}
	time.Sleep(31 * time.Second)
	f.Review()
	f.take(t, "broken", "s6.test", time.Minute)
	if !f.rests("s6.test") {
		t.Error("a worker is not followed although it finds two sites silent among four that answer")
	}
}

// TestSitesThatThisWorkerMeetsLaterCountForNeither gives findings of sites that this worker meets itself afterwards. They
// count neither for nor against the worker that reports them.
func TestSitesThatThisWorkerMeetsLaterCountForNeither(t *testing.T) {
	t.Parallel()
	f := newFollower(4)
	for i := range 5 {
		f.take(t, "broken", fmt.Sprintf("s%d.test", i), time.Minute)
	}
	for i := range 5 {
		f.answer(fmt.Sprintf("s%d.test", i))
	}
	f.Review()
	f.take(t, "broken", "s5.test", time.Minute)
	if f.rests("s5.test") {
		t.Error("the sites that a worker reports count as sites that it does not report, once they are known here")
	}
}

func BenchmarkTakeFinding(b *testing.B) {
	f := newFollower(1000)
	for i := range 100_000 {
		f.take(b, fmt.Sprint("w", i%4), fmt.Sprintf("s%d.test", i), 5*time.Minute)
	}
	for i := 0; b.Loop(); i++ {
		f.take(b, "w1", fmt.Sprintf("s%d.test", i%100_000), 5*time.Minute)
	}
}
