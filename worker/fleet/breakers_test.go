package fleet_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/fleet"
)

func TestProxyThatOneWorkerFoundDeadIsAvoidedByAllUntilItsProbeSucceeds(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	// Without the jitter and with a short open time, so that the probe comes soon.
	a := newMember(t, "a", 4)
	a.pool = rotation.New(rotation.Config{Breaker: breaker.Config{FailureThreshold: 1, OpenTimeout: 300 * time.Millisecond, Jitter: -1}})
	a.list(4)
	a.Breakers = fleet.NewBreakers(fleet.BreakersConfig{Pool: a.pool, Worker: "a", Slack: slack, MaxDuration: longest, Log: slog.New(slog.DiscardHandler)})
	f.run(a)
	b, c := f.join("b", 4), f.join("c", 4)
	a.attempt("p0", rotation.ProxyFault)
	testenv.Eventually(t, "b and c to avoid the proxy", func() bool { return b.avoids("p0") && c.avoids("p0") })
	s := b.status("p0")
	if left := time.Until(s.AvoidedUntil); s.AvoidedBy != "a" || s.State != breaker.Closed || left > slack+300*time.Millisecond || left <= 0 {
		t.Errorf("b: %+v, want it closed and avoided by the word of a for the open time and the slack", s)
	}
	if a.avoids("p0") {
		t.Error("a avoids what it found itself")
	}
	testenv.Eventually(t, "the open time to end", func() bool { return a.status("p0").NextTest.Before(time.Now()) })
	a.attempt("p0", rotation.Relayed)
	testenv.Eventually(t, "b and c to use the proxy again", func() bool { return !b.avoids("p0") && !c.avoids("p0") })
	if s := b.status("p0"); s.LastChange != (time.Time{}) {
		t.Errorf("b: %+v, want its own breaker untouched", s)
	}
}

func TestWorkerThatStartsHonoursWhatTheFleetFound(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	old := newMember(t, "a", 4)
	end := f.run(old)
	old.attempt("p0", rotation.ProxyFault)
	testenv.Eventually(t, "the finding to be stored", func() bool { _, err := f.kv.Get(t.Context(), "p0"); return err == nil })
	end()
	again := f.join("a", 4)
	testenv.Eventually(t, "the next run of the same worker to avoid the proxy", func() bool { return again.avoids("p0") })
	if s := again.status("p0"); s.State != breaker.Closed {
		t.Errorf("breaker %s, want it closed after a restart", s.State)
	}
	again.list(1)
	again.list(4)
	late := f.join("late", 0)
	testenv.Eventually(t, "the watch to be up", func() bool { return strings.Contains(late.log.String(), "proxy=p0") })
	late.list(4)
	testenv.Eventually(t, "a proxy that comes into the pool later to be avoided", func() bool { return late.avoids("p0") })
}

func TestFindingThatIsOldOrNotValidIsIgnored(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.tell("p0", finding("a", time.Millisecond))
	f.put("p1", []byte("{"))
	f.put("p2", []byte(`{"worker": "a", "duration": -5}`))
	f.put("p3", []byte(`{"worker": "a", "duration": 0.000001}`))
	f.put("p4", []byte(`{"duration": 60}`))
	f.tell("p5", finding("a", 24*time.Hour))
	testenv.Eventually(t, "the finding of p0 to end", func() bool {
		e, err := f.kv.Get(t.Context(), "p0")
		return err == nil && time.Since(e.Created()) > time.Millisecond
	})
	b := f.join("b", 20)
	testenv.Eventually(t, "the last one to be honoured", func() bool { return b.avoids("p5") })
	if got := b.avoided(); len(got) != 1 || strings.Contains(b.log.String(), "avoided, another worker found it dead\" proxy=p0") {
		t.Errorf("avoided %v, want only p5 ever; it said:\n%s", got, b.log)
	}
	if left := time.Until(b.status("p5").AvoidedUntil); left > longest {
		t.Errorf("avoided for %s, want at most %s", left, longest)
	}
	f.put("p5", []byte("nonsense"))
	f.tell("p6", finding("a", longest))
	testenv.Eventually(t, "the next finding", func() bool { return b.avoids("p6") })
	if b.avoids("p5") {
		t.Error("p5 is avoided after its finding was replaced by nonsense")
	}
}

func TestWorkerThatFindsMostOfThePoolDeadIsNotFollowed(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	b := f.join("b", 10)
	f.tell("p9", finding("sane", longest))
	for i := range 6 {
		f.tell(fmt.Sprint("p", i), finding("mad", longest))
	}
	testenv.Eventually(t, "the mad worker's word to be dropped", func() bool {
		return strings.Contains(b.log.String(), "not followed") && len(b.avoided()) == 1
	})
	f.tell("p6", finding("mad", longest))
	f.tell("p8", finding("sane", longest))
	testenv.Eventually(t, "the sane worker's next finding", func() bool { return b.avoids("p8") })
	f.tell("elsewhere", finding("sane", longest))
	if got := fmt.Sprint(b.avoided()); got != "[p8 p9]" || b.CountAvoided() != 2 {
		t.Errorf("avoided %s, %d of them, want the sane worker's two", got, b.CountAvoided())
	}
	for _, id := range []string{"p0", "p1"} {
		if err := f.kv.Delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Eventually(t, "the worker to be followed again", func() bool { return fmt.Sprint(b.avoided()) == "[p2 p3 p4 p5 p6 p8 p9]" })
}

func TestFindingHoldsForAProxyThatLeavesTheListAndComesBack(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	b := f.join("b", 4)
	f.tell("p3", finding("a", longest))
	testenv.Eventually(t, "the proxy to be avoided", func() bool { return b.avoids("p3") })
	b.list(3)
	testenv.Eventually(t, "it to be counted no longer", func() bool { return b.CountAvoided() == 0 })
	b.list(4)
	testenv.Eventually(t, "it to be avoided again", func() bool { return b.avoids("p3") && b.CountAvoided() == 1 })
	b.list(3)
	b.list(4)
	testenv.Eventually(t, "it to be avoided after it was gone for a moment", func() bool { return b.avoids("p3") })
}

func TestResetTakesTheFindingAwayForAll(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	b, c := f.join("b", 4), f.join("c", 4)
	f.tell("p0", finding("a", longest))
	testenv.Eventually(t, "b and c to avoid the proxy", func() bool { return b.avoids("p0") && c.avoids("p0") })
	b.pool.Reset("p0")
	b.WithdrawFinding("p0")
	b.WithdrawFinding("p1")
	if b.avoids("p0") || b.CountAvoided() > 0 {
		t.Error("b avoids the proxy until the bucket says so, too")
	}
	testenv.Eventually(t, "c to use it again", func() bool { return !c.avoids("p0") })
	if keys, err := f.kv.ListKeys(t.Context()); err != nil {
		t.Error(err)
	} else if id, some := <-keys.Keys(); some {
		t.Errorf("%s is still in the bucket", id)
	}
	info, err := f.kv.Status(t.Context())
	if err != nil || info.Values() != 1 {
		t.Errorf("%d messages, %v; want the deletion of p0 alone", info.Values(), err)
	}
}

func TestOpeningThatSaysNothingAboutTheProxyIsNotShared(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	a, b := f.join("a", 20), f.join("b", 20)
	a.ShareChange(rotation.Event{Event: breaker.Event{To: breaker.Open, NextTest: time.Now().Add(longest)}})
	a.ShareChange(rotation.Event{ProxyID: "p0", Event: breaker.Event{To: breaker.Open}})
	a.ShareChange(rotation.Event{ProxyID: "p1", Event: breaker.Event{To: breaker.HalfOpen}})
	a.ShareChange(rotation.Event{ProxyID: "p2", Event: breaker.Event{To: breaker.Open, NextTest: time.Now().Add(-time.Minute)}})
	a.attempt("p3", rotation.ProxyFault)
	testenv.Eventually(t, "the fourth to be avoided", func() bool { return b.avoids("p3") })
	if got := b.avoided(); len(got) != 1 {
		t.Errorf("avoided %v, want only p3: the pool, a forced one, a test and one whose time is over say nothing", got)
	}
	// All that worked fails: from the third on it is doubtful whose fault that is.
	for i := range 20 {
		if i != 3 {
			a.attempt(fmt.Sprint("p", i), rotation.Relayed)
		}
	}
	for i := 4; i < 9; i++ {
		a.attempt(fmt.Sprint("p", i), rotation.ProxyFault)
	}
	a.attempt("p10", rotation.Relayed)
	a.attempt("p10", rotation.ProxyFault)
	testenv.Eventually(t, "the one that fails alone to be avoided", func() bool { return b.avoids("p10") })
	if b.avoids("p7") || b.avoids("p8") || a.status("p7").State != breaker.Open {
		t.Errorf("avoided %v, want none that failed while the whole pool did", b.avoided())
	}
}

func TestWorkerThatGetsNothingThroughWaitsWithItsFindings(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	a, b := newMember(t, "a", 0), f.join("b", 20)
	list := "http://192.0.2.1:1 id=p0\nhttp://192.0.2.1:2 id=p1\nhttp://192.0.2.1:3 id=p2"
	proxies, err := proxylist.ParseList(strings.NewReader(list))
	if err != nil {
		t.Fatal(err)
	}
	a.pool.Replace(proxies)
	f.run(a)
	a.attempt("p0", rotation.ProxyFault)
	a.attempt("p1", rotation.ProxyFault)
	a.ShareChange(rotation.Event{ProxyID: "p2", Event: breaker.Event{To: breaker.Closed}})
	testenv.Eventually(t, "the word that does not wait", func() bool {
		s, err := f.kv.Status(t.Context())
		return err == nil && s.Values() == 1
	})
	if got := b.avoided(); len(got) > 0 {
		t.Errorf("avoided %v by the word of a worker that has not delivered anything", got)
	}
	a.attempt("p2", rotation.Relayed)
	testenv.Eventually(t, "the findings to be told", func() bool { return b.avoids("p0") && b.avoids("p1") })
}

func TestWithoutAServerEachWorkerJudgesForItselfAndLosesNoTime(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	a, b := f.join("a", 4), f.join("b", 4)
	a.attempt("p0", rotation.ProxyFault)
	testenv.Eventually(t, "b to avoid the proxy", func() bool { return b.avoids("p0") })
	f.nats.Stop()
	a.attempt("p1", rotation.ProxyFault)
	b.attempt("p2", rotation.ProxyFault)
	if !b.avoids("p0") || b.avoids("p1") || b.status("p2").State != breaker.Open {
		t.Errorf("b avoids %v, want what it knew, and p2 open by its own judgement", b.avoided())
	}
	l, _, err := b.pool.Pick(rotation.Need{})
	if err != nil {
		t.Fatal(err)
	}
	l.Release()
	f.nats.Start()
	testenv.Eventually(t, "what was found meanwhile to be told", func() bool { return b.avoids("p1") && a.avoids("p2") })
}

func TestChangesThatNobodyTakesAreBoundedAndHoldNobodyUp(t *testing.T) {
	testenv.Long(t)
	t.Parallel()
	a := newMember(t, "a", 0) // and it does not run
	flood := func() {
		for i := range 10_000 {
			a.ShareChange(rotation.Event{ProxyID: fmt.Sprint("p", i), Event: breaker.Event{To: breaker.Closed}})
		}
	}
	flood()
	if got := strings.Count(a.log.String(), "too many"); got != 1 {
		t.Errorf("said %d times that changes are dropped, want once", got)
	}
	f := newFleet(t)
	f.run(a)
	stored := func() uint64 {
		s, err := f.kv.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.Values()
	}
	testenv.Eventually(t, "what was kept to be written", func() bool { return stored() == 4096 })
	a.ShareChange(rotation.Event{ProxyID: "next", Event: breaker.Event{To: breaker.Closed}})
	testenv.Eventually(t, "the next one to be written", func() bool { return stored() == 4097 })
	f.nats.Stop()
	flood()
	if got := strings.Count(a.log.String(), "too many"); got != 2 {
		t.Errorf("said %d times that changes are dropped, want once more", got)
	}
}

func TestWordThatComesWhileAnOlderOneIsWrittenIsNotLost(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	const proxies = 20
	a := f.join("a", proxies)
	for i := range proxies {
		for range 20 {
			a.ShareChange(rotation.Event{ProxyID: fmt.Sprint("p", i), Event: breaker.Event{To: breaker.Closed}})
			runtime.Gosched()
		}
		a.ShareChange(rotation.Event{ProxyID: fmt.Sprint("p", i), Event: breaker.Event{To: breaker.Open, NextTest: time.Now().Add(longest)}})
	}
	for i := range proxies {
		testenv.Eventually(t, "the last word to be stored", func() bool { _, err := f.kv.Get(t.Context(), fmt.Sprint("p", i)); return err == nil })
	}
}

func TestOnlyTheLastWordAboutAProxyIsWritten(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	a := newMember(t, "a", 2)
	for range 100 {
		a.ShareChange(rotation.Event{ProxyID: "p0", Event: breaker.Event{To: breaker.Open, NextTest: time.Now().Add(longest)}})
		a.ShareChange(rotation.Event{ProxyID: "p0", Event: breaker.Event{To: breaker.Closed}})
	}
	a.ShareChange(rotation.Event{ProxyID: "p1", Event: breaker.Event{To: breaker.Open, NextTest: time.Now().Add(longest), Reason: "refused"}})
	f.run(a)
	var entry jetstream.KeyValueEntry
	testenv.Eventually(t, "the finding to be stored", func() (stored bool) {
		var err error
		entry, err = f.kv.Get(t.Context(), "p1")
		return err == nil
	})
	if entry.Revision() != 2 {
		t.Errorf("it is message %d, want one about p0 before it", entry.Revision())
	}
	var got fleet.Finding
	if err := json.Unmarshal(entry.Value(), &got); err != nil || got.Worker != "a" || got.Reason != "refused" || got.Duration.Std() > longest+slack || got.Duration.Std() < longest {
		t.Errorf("got %s, want the worker, the reason and the time with the slack", entry.Value())
	}
}

// TestOnlyATemporaryRefusalIsTriedAgain has a stand-in for the bucket refuse the first word about each proxy.
func TestOnlyATemporaryRefusalIsTriedAgain(t *testing.T) {
	t.Parallel()
	names, err := jobs.NewNames("")
	if err != nil {
		t.Fatal(err)
	}
	f := &installation{T: t, names: names, nats: testenv.StartNATS(t, func(o *server.Options) { o.JetStream, o.StoreDir = false, "" })}
	stand := f.nats.Connect()
	answer := func(subject string, answers ...string) (asked *atomic.Int32) {
		asked = new(atomic.Int32)
		if _, err := stand.Subscribe(subject, func(msg *nats.Msg) {
			n := int(asked.Add(1)) - 1
			_ = msg.Respond([]byte(answers[min(n, len(answers)-1)]))
		}); err != nil {
			t.Fatal(err)
		}
		return asked
	}
	answer("$JS.API.STREAM.INFO.KV_gofer-breakers", `{"config":{"name":"KV_gofer-breakers","max_msgs_per_subject":1},"state":{}}`)
	const ack = `{"stream":"KV_gofer-breakers","seq":1}`
	full := answer("$KV.gofer-breakers.p0", `{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"}}`, ack)
	sealed := answer("$KV.gofer-breakers.p1", `{"error":{"code":400,"err_code":10109,"description":"invalid operation on sealed stream"}}`, ack)
	leaderless := answer("$KV.gofer-breakers.p2", `{"error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}`, ack)
	if err := stand.Flush(); err != nil {
		t.Fatal(err)
	}
	a := newMember(t, "a", 3)
	for i := range 3 {
		a.ShareChange(rotation.Event{ProxyID: fmt.Sprint("p", i), Event: breaker.Event{To: breaker.Open, NextTest: time.Now().Add(longest), Reason: "refused"}})
	}
	f.run(a)
	testenv.Eventually(t, "the word that met no leader to be stored", func() bool { return leaderless.Load() == 2 })
	if full.Load() != 1 || sealed.Load() != 1 {
		t.Errorf("the other words are tried %d and %d times, want once", full.Load(), sealed.Load())
	}
}
