package fleet_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation/sites"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/fleet"
)

// siteMember is a worker as far as sites go.
type siteMember struct {
	*fleet.Sites
	t     *testing.T
	table *sites.Table
	log   *testenv.Log

	mu    sync.Mutex
	waits []string
}

func newSiteMember(t *testing.T, name string) *siteMember {
	t.Helper()
	m := &siteMember{t: t, table: sites.New(sites.Config{}), log: new(testenv.Log)}
	m.Sites = fleet.NewSites(fleet.SitesConfig{
		Table: m.table, Applied: func(events []sites.Event) { m.ShareChanges(events) }, Worker: name, Log: slog.New(slog.NewTextHandler(m.log, nil)),
		NoteWaiting: func(key, site string, _ time.Duration) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.waits = append(m.waits, key+" "+site)
		},
	})
	return m
}

// joinSites makes a worker and runs its sites until the test ends.
func (f *installation) joinSites(name string) *siteMember {
	f.Helper()
	m := newSiteMember(f.T, name)
	f.runSites(m)
	return m
}

func (f *installation) runSites(m *siteMember) (end func()) {
	f.Helper()
	js, err := jetstream.New(f.nats.Connect())
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { m.Run(ctx, js, f.names) })
	end = func() {
		cancel()
		running.Wait()
	}
	f.Cleanup(end)
	return end
}

// fail makes a site rest in this worker.
func (m *siteMember) fail(site string) {
	m.t.Helper()
	for range 30 {
		if m.rests(site) {
			return
		}
		v, _, events := m.table.Enter(site, sites.Ask{MaxDuration: time.Second})
		m.ShareChanges(append(events, v.Report(sites.Outcome{Kind: sites.Failed, Via: "p1", Routes: 1})...))
	}
	m.t.Fatalf("%s does not rest after 30 failures", site)
}

func (m *siteMember) answer(site string) {
	m.t.Helper()
	v, _, events := m.table.Enter(site, sites.Ask{MaxDuration: time.Second})
	m.ShareChanges(append(events, v.Report(sites.Outcome{Kind: sites.Answered, Via: "p1", Routes: 1})...))
}

func (m *siteMember) rests(site string) bool {
	s, _ := m.table.StatusOf(site)
	return s.State == sites.Resting || s.State == sites.Testing
}

func (m *siteMember) hears(waits string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(m.waits, waits)
}

// putSite stores a finding as a worker would.
func (f *installation) putSite(key string, value any) {
	f.Helper()
	data, isText := value.([]byte)
	if !isText {
		var err error
		if data, err = json.Marshal(value); err != nil {
			f.Fatal(err)
		}
	}
	js, err := jetstream.New(f.nats.Connect())
	if err != nil {
		f.Fatal(err)
	}
	kv, err := js.KeyValue(f.Context(), "gofer-sites")
	if err == nil {
		_, err = kv.Put(f.Context(), key, data)
	}
	if err != nil {
		f.Fatal(err)
	}
}

func restOf(worker, site string) fleet.SiteFinding {
	return fleet.SiteFinding{Worker: worker, Instance: "i-" + worker, Site: site, State: "resting", Duration: jobs.Duration(time.Minute), Rest: jobs.Duration(time.Minute)}
}

func TestARestingSiteIsKnownToTheFleetUntilItAnswersOneWorker(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	a, b := f.joinSites("a"), f.joinSites("b")
	began := time.Now()
	a.fail("shop.test")
	testenv.Eventually(t, "b to know the rest", func() bool { return b.rests("shop.test") })
	s, _ := b.table.StatusOf("shop.test")
	latest := time.Since(began) + time.Second // a busy server stores the finding as late as that
	if own, _ := a.table.StatusOf("shop.test"); !s.Foreign || s.Until.Before(own.Until.Add(-time.Second)) || s.Until.After(own.Until.Add(latest)) {
		t.Errorf("b: %+v, want the rest of a: %+v", s, own)
	}
	if b.CountFollowed() != 1 || a.CountFollowed() != 0 {
		t.Errorf("%d and %d sites followed, want none by a and one by b", a.CountFollowed(), b.CountFollowed())
	}
	late := f.joinSites("late")
	testenv.Eventually(t, "a worker that starts later to know the rest", func() bool { return late.rests("shop.test") })
	a.ShareChanges(reset(t, a.table, "shop.test"))
	testenv.Eventually(t, "the rest to end everywhere", func() bool { return !b.rests("shop.test") && !late.rests("shop.test") })
	if b.CountFollowed() != 0 {
		t.Errorf("%d sites followed after the end of the rest", b.CountFollowed())
	}
}

func reset(t *testing.T, table *sites.Table, site string) []sites.Event {
	t.Helper()
	events, known := table.Reset(site)
	if !known || len(events) == 0 {
		t.Fatalf("reset of %s: %v, known %t", site, events, known)
	}
	return events
}

func TestAWorkerThatIsStartedAnewFollowsWhatItFoundBefore(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	a := newSiteMember(t, "a")
	end := f.runSites(a)
	a.fail("shop.test")
	b := f.joinSites("b")
	testenv.Eventually(t, "the finding to be stored", func() bool { return b.rests("shop.test") })
	end()
	again := f.joinSites("a")
	testenv.Eventually(t, "the next run to know the rest", func() bool { return again.rests("shop.test") })
}

func TestAWorkerThatFindsMoreThanHalfOfTheSitesSilentIsNotFollowed(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	b := newSiteMember(t, "b")
	for i := range 4 {
		b.answer(fmt.Sprintf("good%d.test", i))
	}
	f.runSites(b)
	for i := range 5 {
		site := fmt.Sprintf("s%d.test", i)
		f.putSite(jobs.SiteKey(site), restOf("broken", site))
	}
	f.putSite(jobs.SiteKey("honest.test"), restOf("honest", "honest.test"))
	testenv.Eventually(t, "the honest worker to be followed", func() bool { return b.rests("honest.test") })
	for i := range 5 {
		if site := fmt.Sprintf("s%d.test", i); b.rests(site) {
			t.Errorf("%s rests by the word of a worker that finds more than half of the sites silent", site)
		}
	}
	for i := range 8 {
		b.answer(fmt.Sprintf("more%d.test", i))
	}
	testenv.Eventually(t, "the worker to be followed again", func() bool {
		f.putSite(jobs.SiteKey("s9.test"), restOf("broken", "s9.test"))
		return b.rests("s9.test")
	})
}

func TestFindingsOfSitesThatAreNotValidAreLeftOut(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	b := f.joinSites("b")
	nobody := restOf("", "nobody.test")
	strange := restOf("a", "strange.test")
	strange.State = "asleep"
	old := restOf("a", "old.test")
	old.Duration = 0
	f.putSite(jobs.SiteKey("broken.test"), []byte("{"))
	f.putSite(jobs.SiteKey("nobody.test"), nobody)
	f.putSite(jobs.SiteKey("strange.test"), strange)
	f.putSite(jobs.SiteKey("old.test"), old)
	f.putSite(jobs.SiteKey("other.test"), restOf("a", "elsewhere.test"))
	f.putSite("waits."+jobs.SiteKey("other.test"), []byte(`{"site":"elsewhere.test"}`))
	f.putSite(jobs.SiteKey("last.test"), restOf("a", "last.test"))
	testenv.Eventually(t, "the valid one to be followed", func() bool { return b.rests("last.test") })
	for _, site := range []string{"broken.test", "nobody.test", "strange.test", "old.test", "other.test", "elsewhere.test"} {
		if b.rests(site) || b.hears(jobs.SiteKey("other.test")+" elsewhere.test") {
			t.Errorf("%s is followed", site)
		}
	}
}

func TestAForgedFindingRestsASiteForFiveMinutesAtMost(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	b := f.joinSites("b")
	forged := restOf("a", "shop.test")
	forged.Duration, forged.Rest = jobs.Duration(1000*time.Hour), jobs.Duration(1000*time.Hour)
	f.putSite(jobs.SiteKey("shop.test"), forged)
	testenv.Eventually(t, "the finding to be followed", func() bool { return b.rests("shop.test") })
	if s, _ := b.table.StatusOf("shop.test"); time.Until(s.Until) > 5*time.Minute+time.Second {
		t.Errorf("it rests for %s", time.Until(s.Until))
	}
}

func TestTheLeaderHearsForWhichSitesJobsWait(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	a, b := newSiteMember(t, "a"), f.joinSites("b")
	if a.Wait("other.test") {
		t.Error("a job would wait for a leader before this worker has told the fleet anything")
	}
	f.runSites(a)
	testenv.Eventually(t, "the fleet to be told", func() bool { return a.Wait("shop.test") })
	testenv.Eventually(t, "all workers to hear of the site", func() bool {
		return a.hears(jobs.SiteKey("shop.test")+" shop.test") && b.hears(jobs.SiteKey("shop.test")+" shop.test")
	})
}

func TestWithoutItsBucketNobodyIsToldAndEachWorkerTestsItself(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	js, err := jetstream.New(f.nats.Connect())
	if err != nil {
		t.Fatal(err)
	}
	a := f.joinSites("a")
	testenv.Eventually(t, "the fleet to be told", func() bool { return a.Wait("shop.test") })
	if err := js.DeleteKeyValue(t.Context(), "gofer-sites"); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the worker to notice", func() bool { return !a.Wait("shop.test") })
	_, err = js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "gofer-sites"})
	if err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the fleet to be told again", func() bool { return a.Wait("shop.test") })
}
