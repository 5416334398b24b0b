package exits_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/rotation/exits"
)

func sharing() *exits.Words { return exits.New(exits.Config{Prefix: "gofer", Share: true}) }

// tell shares what changed at a worker with others, and returns it.
func tell(tb testing.TB, now time.Duration, from *exits.Words, to ...*exits.Words) (told []exits.State) {
	tb.Helper()
	for _, key := range from.Changed(math.MaxInt) {
		state, ok := from.State(key, now)
		if !ok {
			continue
		}
		told = append(told, state)
		for _, w := range to {
			if !w.Adopt(state, now) {
				tb.Fatalf("a worker refuses %+v", state)
			}
		}
	}
	return told
}

func generation(w *exits.Words, now time.Duration) uint32 {
	return w.Sticky(session("s"), 1, nil, now).Generation
}

func TestAnotherWorkerUsesTheWordThatReplacesOneThatFailed(t *testing.T) {
	a, b, late := sharing(), sharing(), sharing()
	s := session("s")
	first := a.Sticky(s, 1, nil, 0)
	a.Failed(s, first, 7, 0)
	tell(t, 0, a, b)
	if x, y := a.Sticky(s, 1, nil, 0), b.Sticky(s, 1, nil, 0); x != y || x.Generation != 1 {
		t.Fatalf("%v and %v after %v failed at one worker, want the next generation at both", x, y, first)
	}
	b.Relayed(s, b.Sticky(s, 1, nil, 0), 0)
	tell(t, 0, b, a, late)
	b.Failed(s, b.Sticky(s, 1, nil, 0), 8, 0)
	b.Relayed(s, b.Sticky(s, 1, nil, 0), 0)
	tell(t, 0, b, a)
	if x, y := generation(a, 0), generation(late, 0); x != 2 || y != 1 {
		t.Errorf("generations %d and %d, want 2 where all was heard and 1 where the first word was", x, y)
	}
	if more := tell(t, 0, a); len(more) != 0 {
		t.Errorf("a worker shares what it heard itself: %+v", more)
	}
}

func TestAWordThatFailsAlikeAtTwoWorkersIsDroppedAtBoth(t *testing.T) {
	a, b := sharing(), sharing()
	s := session("s")
	older := a.Sticky(s, 1, nil, 0)
	a.Failed(s, older, 7, 0)
	tell(t, 0, a, b)
	b.Failed(s, b.Sticky(s, 1, nil, 0), 7, 0)
	tell(t, 0, b, a)
	if x, y := a.Sticky(s, 1, nil, 0), b.Sticky(s, 1, nil, 0); x != older || y != older {
		t.Fatalf("%v and %v, want %v kept at both: the next word fails alike", x, y, older)
	}
	a.Failed(s, older, 7, 0)
	tell(t, 0, a, b)
	if x, y := generation(a, 0), generation(b, 0); x != 2 || y != 2 {
		t.Errorf("generations %d and %d after the older word failed again, want one that has not been tried", x, y)
	}
}

func TestAWordThatFailsAtOnceLikeTheOneBeforeIsNoNews(t *testing.T) {
	a, b := sharing(), sharing()
	s := session("s")
	a.Failed(s, a.Sticky(s, 1, nil, 0), 7, 0)
	a.Failed(s, a.Sticky(s, 1, nil, 0), 7, 0)
	for _, state := range tell(t, 0, a, b) {
		if state.Current() != 0 {
			t.Errorf("shared %+v, want the older word", state)
		}
	}
	if b.Sessions() != 0 {
		t.Error("another worker remembers a session that did not move")
	}
}

func TestTheEndOfATrialIsSharedAlsoWhenADoubtFollows(t *testing.T) {
	a, b := sharing(), sharing()
	s := session("s")
	older := a.Sticky(s, 1, nil, 0)
	a.Failed(s, older, 7, 0)
	tell(t, 0, a, b)
	a.Failed(s, a.Sticky(s, 1, nil, 0), 7, 0)
	a.Suspected(s, older, 502, 0)
	tell(t, 0, a, b)
	if x := b.Sticky(s, 1, nil, 0); x != older {
		t.Errorf("%v, want %v, which was kept", x, older)
	}
}

func TestADoubtIsSharedWhenTheNextWordWorks(t *testing.T) {
	a, b := sharing(), sharing()
	s := session("s")
	a.Suspected(s, a.Sticky(s, 1, nil, 0), 502, 0)
	tell(t, 0, a, b)
	if x, y := generation(a, 0), generation(b, 0); x != 1 || y != 0 {
		t.Fatalf("generations %d and %d after a doubt, want a trial at its worker only", x, y)
	}
	a.Relayed(s, a.Sticky(s, 1, nil, 0), 0)
	tell(t, 0, a, b)
	if got := generation(b, 0); got != 1 {
		t.Errorf("generation %d after the next word worked, want 1", got)
	}
	a.Suspected(s, a.Sticky(s, 1, nil, 0), 502, 0)
	a.Suspected(s, a.Sticky(s, 1, nil, 0), 502, 0)
	tell(t, 0, a, b)
	if x, y := generation(a, 0), generation(b, 0); x != 1 || y != 1 {
		t.Errorf("generations %d and %d after two words brought the same, want 1 at both", x, y)
	}
	b.Failed(s, b.Sticky(s, 1, nil, 0), 7, 0)
	a.Suspected(s, a.Sticky(s, 1, nil, 0), 502, 0)
	tell(t, 0, b, a)
	tell(t, 0, a, b)
	if x, y := generation(a, 0), generation(b, 0); x != y || x < 2 {
		t.Errorf("generations %d and %d after the word failed at one worker and was suspected at the other, want the same later one", x, y)
	}
}

func TestTheHigherGenerationWinsOverTheOlderWordThatWorks(t *testing.T) {
	a, b := sharing(), sharing()
	s := session("s")
	older := a.Sticky(s, 1, nil, 0)
	b.Relayed(s, older, 0)
	a.Failed(s, older, 7, 0)
	tell(t, 0, a, b)
	b.Relayed(s, older, 0) // of an attempt that began before
	tell(t, 0, b, a)
	if x, y := generation(a, 0), generation(b, 0); x != 1 || y != 1 {
		t.Errorf("generations %d and %d, want 1 at both", x, y)
	}
}

func TestAWordThatFailsAgainAfterItWorkedIsLeft(t *testing.T) {
	a, b := sharing(), sharing()
	s := session("s")
	a.Failed(s, a.Sticky(s, 1, nil, 0), 7, 0)
	tell(t, 0, a, b)
	b.Relayed(s, b.Sticky(s, 1, nil, 0), 0)
	tell(t, 0, b, a)
	a.Relayed(s, a.Sticky(s, 1, nil, 0), 0)
	a.Failed(s, a.Sticky(s, 1, nil, 0), 7, 0)
	if got := generation(a, 0); got != 2 {
		t.Errorf("generation %d after the word worked here and then failed, want 2", got)
	}
}

func TestAStateThatHidesABetterOneIsReplaced(t *testing.T) {
	a, b := sharing(), sharing()
	s := session("s")
	a.Failed(s, a.Sticky(s, 1, nil, 0), 7, 0)
	trial := tell(t, 0, a, b)[0]
	b.Relayed(s, b.Sticky(s, 1, nil, 0), 0)
	b.Changed(1) // it was written before a wrote the trial
	b.Adopt(trial, 0)
	if again := tell(t, 0, b, a); len(again) != 1 || again[0].Generation != 1 {
		t.Errorf("shared %+v after an older state was written over generation 1, want it written again", again)
	}
	a.Failed(s, a.Sticky(s, 1, nil, 0), 8, 0)
	tell(t, 0, a, b)
	b.Failed(s, b.Sticky(s, 1, nil, 0), 8, 0)
	b.Changed(1)
	before := trial
	before.Generation, before.Trial = 1, 2
	b.Adopt(before, 0)
	if again := tell(t, 0, b, a); len(again) != 1 || again[0].Current() != 1 {
		t.Errorf("shared %+v after a trial that is over was written, want its end written again", again)
	}
	if b.Adopt(before, 0); len(tell(t, 0, b, a)) != 1 || len(b.Changed(1)) != 0 {
		t.Error("want one answer to each state that hides a better one")
	}
}

func TestAWorkerThatFailsAlikeEverywhereMovesASessionOnceAMinute(t *testing.T) {
	broken, good := sharing(), sharing()
	s := session("s")
	moves := map[uint32]bool{}
	for now := time.Duration(0); now < 10*time.Minute; now += time.Second {
		broken.Failed(s, broken.Sticky(s, 1, nil, now), 7, now)
		tell(t, now, broken, good)
		x := good.Sticky(s, 1, nil, now)
		good.Relayed(s, x, now)
		tell(t, now, good, broken)
		moves[x.Generation] = true
	}
	if len(moves) < 2 || len(moves) > 11 {
		t.Errorf("%d words in ten minutes, want at most one a minute", len(moves))
	}
}

func TestAHugeGenerationIsRefusedOrHarmless(t *testing.T) {
	s := session("s")
	a := sharing()
	a.Failed(s, a.Sticky(s, 1, nil, 0), 7, 0)
	good := tell(t, 0, a)[0]
	for _, change := range []func(*exits.State){
		func(f *exits.State) { f.Generation = math.MaxUint32 }, func(f *exits.State) { f.Trial = math.MaxUint32 },
		func(f *exits.State) { f.Dropped = exits.MaxShared + 1 }, func(f *exits.State) { f.Left = 0 }, func(f *exits.State) { f.Left = math.MinInt64 },
	} {
		bogus := good
		change(&bogus)
		w := sharing()
		if w.Adopt(bogus, 0) || w.Sessions() != 0 {
			t.Errorf("%+v is taken over", bogus)
		}
	}
	for _, change := range []func(*exits.State){
		func(f *exits.State) { f.Generation = exits.MaxShared }, func(f *exits.State) { f.Trial = exits.MaxShared },
		func(f *exits.State) { f.Dropped = exits.MaxShared }, func(f *exits.State) { f.Cause = math.MaxUint64 },
	} {
		bogus := good
		bogus.Left = math.MaxInt64
		change(&bogus)
		w := sharing()
		w.Adopt(bogus, 0)
		seen := map[string]bool{}
		for i := range 100 {
			x := w.Sticky(s, 1, nil, 0)
			if seen[x.Word] {
				t.Fatalf("%+v: %v is used again after it failed", bogus, x)
			}
			seen[x.Word] = true
			w.Failed(s, x, uint64(100+i), 0)
		}
		if x := w.Sticky(s, 1, nil, time.Hour); x.Generation != 0 {
			t.Errorf("%+v: an idle hour later %v, want the session forgotten", bogus, x)
		}
		for _, state := range tell(t, 0, w) {
			if max(state.Generation, state.Trial, state.Dropped) > exits.MaxShared {
				t.Errorf("shared %+v, which others refuse", state)
			}
		}
	}
}

func TestASessionOfOthersIsForgottenWithThem(t *testing.T) {
	a, b := sharing(), sharing()
	s := session("s")
	a.Failed(s, a.Sticky(s, 1, nil, 0), 7, 0)
	a.Relayed(s, a.Sticky(s, 1, nil, time.Minute), time.Minute)
	tell(t, 6*time.Minute, a, b)
	if state, ok := b.State(key(t, s), 11*time.Minute-1); !ok || state.Generation != 1 || state.Left != 1 {
		t.Errorf("%+v, known %v; want it known until 10 min after its last use", state, ok)
	}
	if got := generation(b, 11*time.Minute+1); got != 0 || b.Sessions() != 0 {
		t.Errorf("generation %d and %d sessions after that, want none", got, b.Sessions())
	}
	forged := exits.State{Key: key(t, s), Generation: 1, Left: math.MaxInt64}
	b.Adopt(forged, time.Hour)
	if _, ok := b.State(forged.Key, 24*time.Hour); !ok {
		t.Error("the session is forgotten before its time")
	}
	if _, ok := b.State(forged.Key, 26*time.Hour); ok {
		t.Error("a session is remembered for more than a day by the word of another worker")
	}
}

// key returns the key of a session.
func key(tb testing.TB, s exits.Session) exits.Key {
	tb.Helper()
	w := sharing()
	w.Failed(s, w.Sticky(s, 1, nil, 0), 7, 0)
	return w.Changed(1)[0]
}

func TestTheKeyOfASessionTellsItFromAllOthers(t *testing.T) {
	seen := map[exits.Key]string{}
	for i := range 1000 {
		for _, gateway := range []string{"gate", "gate-2"} {
			s := exits.Session{Gateway: gateway, Name: fmt.Sprint("cart-", i), TTL: time.Minute}
			k := key(t, s)
			back, ok := exits.ParseKey(k.String())
			if seen[k] != "" || !ok || back != k || len(k.String()) != 32 {
				t.Fatalf("%s at %s has the key %s, which is read as %s and belongs to %q", s.Name, gateway, k, back, seen[k])
			}
			seen[k] = gateway + s.Name
		}
	}
	for _, text := range []string{"", "00", "zz000000000000000000000000000000", "AB000000000000000000000000000000", "0000000000000000000000000000000000"} {
		if k, ok := exits.ParseKey(text); ok {
			t.Errorf("%q is read as the key %s", text, k)
		}
	}
}

func TestSharingCostsAWorkingSessionNothing(t *testing.T) {
	cost := func(w *exits.Words, now time.Duration) float64 {
		return testing.AllocsPerRun(100, func() { w.Relayed(session("s"), w.Sticky(session("s"), 1, nil, now), now) })
	}
	alone, w := exits.New(exits.Config{Prefix: "gofer"}), sharing()
	still := cost(alone, 0)
	w.Failed(session("s"), w.Sticky(session("s"), 1, nil, 0), 7, 0)
	w.Relayed(session("s"), w.Sticky(session("s"), 1, nil, 0), 0)
	w.Changed(1)
	if moved := cost(w, 0); moved > still {
		t.Errorf("%v allocations for an attempt of a session that moved, want the %v of one that did not", moved, still)
	}
	if more := w.Changed(1); len(more) != 0 {
		t.Error("a session that works is shared again and again")
	}
	if alone.Failed(session("s"), alone.Sticky(session("s"), 1, nil, 0), 7, 0); len(alone.Changed(1)) != 0 {
		t.Error("changes are collected that nobody asked for")
	}
}

// bucket holds the latest state that was written, as a worker reads it: some miss states in between.
type bucket struct {
	state    exits.State
	revision int
}

// fleetOf is some workers that share one session through a bucket.
type fleetOf struct {
	workers []*exits.Words
	read    []int // the revision that each one read last
	bucket
}

// write writes what changed at a worker.
func (f *fleetOf) write(i int, now time.Duration) (wrote bool) {
	for _, key := range f.workers[i].Changed(1) {
		state, ok := f.workers[i].State(key, now)
		known := f.revision > 0 && f.state.Generation == state.Generation && f.state.Current() == state.Current()
		if ok && !known && (f.revision > 0 || state.Current() > 0) {
			f.state, f.revision, wrote = state, f.revision+1, true
		}
	}
	return wrote
}

// hear lets a worker read what was written last.
func (f *fleetOf) hear(i int, now time.Duration) {
	if f.read[i] < f.revision {
		f.workers[i].Adopt(f.state, now)
		f.read[i] = f.revision
	}
}

func TestWorkersComeToTheSameWordWhateverHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, now := session("s"), time.Duration(0)
		s.TTL = time.Hour // no worker forgets it meanwhile
		f := &fleetOf{workers: make([]*exits.Words, rapid.IntRange(2, 5).Draw(t, "workers"))}
		f.read = make([]int, len(f.workers))
		for i := range f.workers {
			f.workers[i] = sharing()
		}
		highest := make([]uint32, len(f.workers)) // that worked, by worker
		var underWay []exits.Exit                 // of attempts that began
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += time.Duration(rapid.IntRange(0, 20).Draw(t, "seconds")) * time.Second
			i := rapid.IntRange(0, len(f.workers)-1).Draw(t, "worker")
			w := f.workers[i]
			x := w.Sticky(s, 1, nil, now)
			if x.Generation < highest[i] {
				t.Fatalf("a worker uses generation %d after %d worked", x.Generation, highest[i])
			}
			underWay = append(underWay, x)
			if rapid.Bool().Draw(t, "late") {
				x = rapid.SampledFrom(underWay).Draw(t, "exit")
			}
			switch act := rapid.SampledFrom([]string{"relay", "fail", "doubt", "write", "hear"}).Draw(t, "act"); act {
			case "relay":
				w.Relayed(s, x, now)
				highest[i] = max(highest[i], x.Generation)
			case "fail":
				w.Failed(s, x, rapid.Uint64Range(1, 2).Draw(t, "cause"), now)
			case "doubt":
				w.Suspected(s, x, 3, now)
			case "write":
				f.write(i, now)
			case "hear":
				f.hear(i, now)
			}
		}
		for round := 0; ; round++ {
			quiet := true
			for i := range f.workers {
				f.hear(i, now)
				quiet = !f.write(i, now) && quiet
			}
			if quiet && slices.Min(f.read) == f.revision {
				break
			}
			if round > 100 {
				t.Fatal("the workers write without end")
			}
		}
		for i, w := range f.workers {
			got, ok := w.State(f.state.Key, now)
			if ok && (got.Generation != f.state.Generation || got.Current() != f.state.Current()) {
				t.Errorf("worker %d: %+v, want what the fleet has: %+v", i, got, f.state)
			}
			if !ok && f.state.Current() != 0 {
				t.Errorf("worker %d knows nothing, the fleet has %+v", i, f.state)
			}
		}
	})
}
