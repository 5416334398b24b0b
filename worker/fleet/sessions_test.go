package fleet_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/exits"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/fleet"
)

const gateLine = "http://user-{session}:pw@192.0.2.1:8000 id=gate"

// newGateMember makes a worker whose pool is a gateway.
func newGateMember(t *testing.T, name, line string) *member {
	t.Helper()
	m := &member{t: t, log: new(testenv.Log)}
	m.pool = rotation.New(rotation.Config{Breaker: breaker.Config{Jitter: -1}, Exits: exits.Config{Prefix: "gofer", Share: true}})
	proxy, err := proxylist.ParseLine(line)
	if err != nil {
		t.Fatal(err)
	}
	m.pool.Replace([]proxylist.Proxy{proxy})
	m.Breakers = fleet.NewBreakers(fleet.BreakersConfig{
		Pool: m.pool, Worker: name, Slack: slack, MaxDuration: longest, Log: slog.New(slog.NewTextHandler(m.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	return m
}

func (f *installation) joinGate(name string) *member {
	f.Helper()
	m := newGateMember(f.T, name, gateLine)
	f.run(m)
	return m
}

// try makes an attempt of a session, and returns the word of its exit.
func (m *member) try(session string, v rotation.Verdict) string {
	m.t.Helper()
	l, _, err := m.pool.Pick(rotation.Need{Host: "shop.test:80", Session: session})
	if err != nil {
		m.t.Fatal(err)
	}
	defer l.Report(v)
	return l.Exit()
}

func (m *member) fail(session string) string {
	return m.try(session, rotation.Verdict{Kind: rotation.Unclear, Reason: "reset"})
}

func (m *member) relay(session string) string {
	return m.try(session, rotation.Verdict{Kind: rotation.Relayed, Latency: time.Millisecond})
}

// word is the word that the session uses now.
func (m *member) word(session string) string { return m.try(session, rotation.Verdict{}) }

// entry is what stands in the bucket of a session, nil if nothing does.
func (f *installation) entry(session string) jetstream.KeyValueEntry {
	f.Helper()
	e, err := f.kv.Get(f.Context(), keyOf(f.T, session))
	if err != nil {
		return nil
	}
	return e
}

// keyOf is the key of a session in the bucket.
func keyOf(t *testing.T, session string) string {
	t.Helper()
	m := newGateMember(t, "", gateLine)
	m.fail(session)
	return "session." + m.pool.ChangedSessions(1)[0].String()
}

func TestAnExitThatFailsAtOneWorkerIsLeftByAllWithinASecond(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	a, b := f.joinGate("a"), f.joinGate("b")
	first := a.fail("cart-7")
	next := a.word("cart-7")
	testenv.Eventually(t, "b to use the next word", func() bool { return b.word("cart-7") == next })
	if first == next || b.word("cart-8") != a.word("cart-8") {
		t.Errorf("words %q and %q, want another one for this session only", first, next)
	}
	late := f.joinGate("late")
	testenv.Eventually(t, "a worker that starts later to use the word, too", func() bool { return late.word("cart-7") == next })
	b.relay("cart-7")
	testenv.Eventually(t, "the word to be shared as one that works", func() bool {
		e := f.entry("cart-7")
		return e != nil && strings.Contains(string(e.Value()), `"generation":1`)
	})
	b.fail("cart-7")
	third := b.word("cart-7")
	testenv.Eventually(t, "all to use the third word", func() bool { return a.word("cart-7") == third && late.word("cart-7") == third })
	if third == next || third == first {
		t.Errorf("the third word %q was used before", third)
	}
}

func TestAWordThatFailsLikeTheOneBeforeIsDroppedByTheFleet(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	a, b := f.joinGate("a"), f.joinGate("b")
	older := a.fail("s")
	next := a.word("s")
	testenv.Eventually(t, "b to try the next word", func() bool { return b.word("s") == next })
	b.fail("s")
	testenv.Eventually(t, "both to keep the older word", func() bool { return a.word("s") == older && b.word("s") == older })
}

func TestSessionsThatAreNotValidAreLeftOut(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	b := f.joinGate("b")
	words := map[string]string{}
	for i, value := range []string{
		"{", "", "[]", `{"worker":"","generation":1,"ttl":600}`, `{"worker":"a","generation":4294967295,"ttl":600}`, `{"worker":"a","trial":1073741825,"ttl":600}`,
		`{"worker":"a","generation":99999999999,"ttl":600}`, `{"worker":"a","generation":-1,"ttl":600}`, `{"worker":"a","generation":1.5,"ttl":600}`,
		`{"worker":"a","generation":1,"ttl":1e300}`, `{"worker":"a","generation":1,"ttl":-5}`, `{"worker":"a","generation":1}`,
		`{"worker":"a","generation":1,"ttl":600,"x":"` + strings.Repeat("x", 5000) + `"}`,
	} {
		session := fmt.Sprint("s", i)
		words[session] = b.word(session)
		f.put(keyOf(t, session), []byte(value))
	}
	for _, key := range []string{"session.", "session.x", "session.00", "session." + strings.Repeat("Z", 32), keyOf(t, "more") + ".x"} {
		if _, err := f.kv.PutString(t.Context(), key, `{"worker":"a","generation":1,"ttl":600}`); err != nil && key != "session." {
			t.Fatal(err)
		}
	}
	f.put(keyOf(t, "top"), []byte(`{"worker":"a","generation":1073741824,"ttl":600}`))
	top := b.word("top")
	f.put(keyOf(t, "last"), []byte(`{"worker":"a","generation":1,"ttl":600}`))
	last := newGateMember(t, "", gateLine)
	last.fail("last")
	testenv.Eventually(t, "the valid one to be followed", func() bool { return b.word("last") == last.word("last") })
	for session, word := range words {
		if now := b.word(session); now != word {
			t.Errorf("session %s moved from %q to %q by %s", session, word, now, f.entry(session).Value())
		}
	}
	if n := strings.Count(b.log.String(), "not valid"); n != 1 {
		t.Errorf("%d log lines about what is not valid, want one: %s", n, b.log.String())
	}
	moved := b.fail("top")
	if now := b.word("top"); now == moved || now == top {
		t.Errorf("a session with a forged generation uses %q after %q failed, and %q before", now, moved, top)
	}
}

func TestASessionInUseIsRememberedByTheFleet(t *testing.T) {
	t.Parallel()
	for _, ttl := range []time.Duration{10 * time.Minute, 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			members := []*member{}
			for _, name := range []string{"a", "b", "c"} {
				members = append(members, newGateMember(t, name, gateLine+" session_ttl="+ttl.String()))
			}
			writes := 0
			var key string
			share := func() {
				for _, m := range members {
					for _, state := range m.SessionsToWrite() {
						writes, key = writes+1, "session."+state.Key.String()
						for _, other := range members {
							if other != m {
								other.Set(key, findingOf(t, state), 0)
							}
						}
					}
				}
			}
			members[0].fail("s")
			next := members[0].relay("s")
			share()
			const steps = 600
			for range steps { // 20 times the TTL
				time.Sleep(20 * ttl / steps)
				members[0].relay("s")
				share()
				state, ok := members[2].pool.SessionState(stateKey(t, key))
				if !ok || state.Current() != 1 {
					t.Fatalf("with a TTL of %s: %+v, known %v; want a worker that does not use the session to know it", ttl, state, ok)
				}
			}
			if least := 20 * int(ttl/min(ttl, time.Hour)); writes < least || writes > 3*least/2 {
				t.Errorf("with a TTL of %s: %d writes, want one before each end of the TTL or of the bucket's hour, which are %d", ttl, writes, least)
			}
			if word := members[2].word("s"); word != next {
				t.Errorf("with a TTL of %s: word %q, want %q", ttl, word, next)
			}
			writes = 0
			for range 2000 { // 5 times the TTL
				time.Sleep(ttl / 400)
				share()
			}
			for _, m := range members {
				if state, ok := m.pool.SessionState(stateKey(t, key)); ok {
					t.Errorf("with a TTL of %s: %+v is known long after its last use", ttl, state)
				}
			}
			if most := 2 + 2*int(ttl/time.Hour); writes > most {
				t.Errorf("with a TTL of %s: %d writes about a session that is not used, want at most %d", ttl, writes, most)
			}
		})
	}
}

func TestAWordThatFailsAtOnceLikeTheOneBeforeIsNotWritten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newGateMember(t, "a", gateLine)
		a.fail("s")
		a.relay("s")
		if written := a.SessionsToWrite(); len(written) != 1 || written[0].Current() != 1 {
			t.Fatalf("%+v are written after an exit failed, want generation 1", written)
		}
		for range 10 {
			time.Sleep(10 * time.Second)
			a.fail("s")
			a.fail("s")
			a.fail("new")
			a.fail("new")
			if written := a.SessionsToWrite(); len(written) != 0 {
				t.Fatalf("%+v are written though both sessions keep their words", written)
			}
		}
	})
}

// findingOf is what a worker stores of a session.
func findingOf(t *testing.T, state exits.State) []byte {
	t.Helper()
	data, err := json.Marshal(fleet.SessionFinding{
		Worker: "w", Generation: state.Generation, Trial: state.Trial, Dropped: state.Dropped, Cause: state.Cause, TTL: jobs.Duration(state.Left),
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func stateKey(t *testing.T, key string) exits.Key {
	t.Helper()
	k, ok := exits.ParseKey(strings.TrimPrefix(key, "session."))
	if !ok {
		t.Fatalf("%q is no key of a session", key)
	}
	return k
}

func TestManySessionsThatFailAtOnceAreSharedOnceEach(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	a, b := newGateMember(t, "a", gateLine), f.joinGate("b")
	const many = 1000
	words := map[string]string{}
	for i := range many {
		session := fmt.Sprint("s", i)
		for range 10 {
			a.fail(session)
			a.relay(session)
		}
		words[session] = a.word(session)
	}
	f.run(a)
	testenv.Eventually(t, "b to know all", func() bool {
		for session, word := range words {
			if b.word(session) != word {
				return false
			}
			delete(words, session)
		}
		return true
	})
	stream, err := jetstreamOf(t, f).Stream(t.Context(), "KV_gofer-breakers")
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.LastSeq; n > 2*many { // a write without an answer in time is repeated
		t.Errorf("%d writes for %d sessions that moved ten times each, want one for each", n, many)
	}
}

func jetstreamOf(t *testing.T, f *installation) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(f.nats.Connect())
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestSessionsLeaveRoomForBreakers(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	js := jetstreamOf(t, f)
	if err := js.DeleteKeyValue(t.Context(), "gofer-breakers"); err != nil {
		t.Fatal(err)
	}
	client, err := bus.New(f.nats.Connect(), f.names)
	if err == nil {
		err = client.Ensure(t.Context(), bus.Settings{JobsMaxBytes: 8 << 20, ResultsMaxBytes: 8 << 20})
	}
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "KV_gofer-breakers")
	if err != nil {
		t.Fatal(err)
	}
	room := stream.CachedInfo().Config.MaxBytes / 4
	a := newGateMember(t, strings.Repeat("w", 64), gateLine)
	for i := range 2000 {
		a.fail(fmt.Sprint("s", i))
	}
	f.run(a)
	testenv.Eventually(t, "the room to be used", func() bool { return strings.Contains(a.log.String(), "as many as it can") })
	a.ShareChange(rotation.Event{ProxyID: "gate", Event: breaker.Event{To: breaker.Closed}})
	testenv.Eventually(t, "a finding about a proxy to be stored", func() bool {
		info, err := stream.Info(t.Context())
		if err != nil || int64(info.State.Bytes) > room {
			t.Fatalf("%d bytes of sessions, error %v; want at most %d", info.State.Bytes, err, room)
		}
		msg, err := stream.GetLastMsgForSubject(t.Context(), "$KV.gofer-breakers.gate")
		return err == nil && msg != nil
	})
}

func TestABucketThatWasLostGetsItsSessionsBack(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	a := f.joinGate("a")
	a.fail("s")
	testenv.Eventually(t, "the word to be stored", func() bool { return f.entry("s") != nil })
	js := jetstreamOf(t, f)
	if err := js.DeleteKeyValue(t.Context(), "gofer-breakers"); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "gofer-breakers"}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the word to be stored again", func() bool { return f.entry("s") != nil })
	b := f.joinGate("b")
	testenv.Eventually(t, "another worker to use it", func() bool { return b.word("s") == a.word("s") })
}

// TestAFindingAboutASessionIsNoneAboutAProxy is about workers of an earlier version, which read every key as a finding about a
// proxy.
func TestAFindingAboutASessionIsNoneAboutAProxy(t *testing.T) {
	data, err := json.Marshal(fleet.SessionFinding{Worker: "a", Generation: 3, Trial: 4, Dropped: 2, Cause: 1 << 63, TTL: jobs.Duration(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	var f fleet.Finding
	if err := json.Unmarshal(data, &f); err != nil || f.Worker == "" || f.Duration != 0 {
		t.Errorf("%s is read as %+v, %v; want a valid finding whose time is over", data, f, err)
	}
}
