package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/fleet"
)

// policyKey is a bucket with one key, as one worker reaches it.
type policyKey struct {
	jetstream.KeyValue // nil: only what is below is called
	*sharedKey

	luck  *rand.Rand
	cut   atomic.Bool
	wrote uint64 // the revision that this worker wrote last, as far as it knows
}

type sharedKey struct {
	mu       sync.Mutex
	revision uint64
	value    []byte // nil while there is none
	gets     int
	watches  [3]func(fleet.Change) // of the workers that watch the bucket
}

func (k *sharedKey) watch(worker int, note func(fleet.Change)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.watches[worker] = note
}

// reads is how often the key was read.
func (k *sharedKey) reads() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.gets
}

// tell tells the watches of the last change. The caller holds the lock.
func (k *sharedKey) tell() {
	for _, note := range k.watches {
		if note != nil {
			note(fleet.Change{Value: k.value, Revision: k.revision})
		}
	}
}

type keyEntry struct {
	jetstream.KeyValueEntry
	revision uint64
	value    []byte
}

func (e keyEntry) Revision() uint64 { return e.revision }
func (e keyEntry) Value() []byte    { return e.value }

// answer waits for as long as an answer takes. A request over a connection that is cut may have arrived or not.
func (k *policyKey) answer(ctx context.Context) error {
	if k.cut.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	time.Sleep(time.Duration(k.luck.IntN(300)) * time.Millisecond)
	return nil
}

type bucketOf struct {
	jetstream.JetStream
	key jetstream.KeyValue
}

func (b bucketOf) KeyValue(context.Context, string) (jetstream.KeyValue, error) { return b.key, nil }

func (k *policyKey) Get(ctx context.Context, _ string) (jetstream.KeyValueEntry, error) {
	if err := k.answer(ctx); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gets++
	if k.value == nil {
		return nil, jetstream.ErrKeyNotFound
	}
	return keyEntry{revision: k.revision, value: k.value}, nil
}

func (k *policyKey) write(ctx context.Context, value []byte, allowed func() bool) (uint64, error) {
	if k.cut.Load() && k.luck.IntN(2) == 0 {
		return 0, k.answer(ctx)
	}
	k.mu.Lock()
	ok := allowed()
	if ok {
		k.revision++
		k.value = value
		k.tell()
	}
	revision := k.revision
	k.mu.Unlock()
	if err := k.answer(ctx); err != nil {
		return 0, err
	}
	if !ok {
		return 0, jetstream.ErrKeyExists
	}
	k.wrote = revision
	return revision, nil
}

func (k *policyKey) Create(ctx context.Context, _ string, value []byte, _ ...jetstream.KVCreateOpt) (uint64, error) {
	return k.write(ctx, value, func() bool { return k.value == nil })
}

func (k *policyKey) Update(ctx context.Context, _ string, value []byte, last uint64) (uint64, error) {
	return k.write(ctx, value, func() bool { return k.value != nil && k.revision == last })
}

func (k *policyKey) Delete(ctx context.Context, _ string, _ ...jetstream.KVDeleteOpt) error {
	_, err := k.write(ctx, nil, func() bool { return k.revision == k.wrote })
	return err
}

func TestOneWorkerLeadsAtATime(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { elect(t, rand.New(rand.NewPCG(seed, 0)), seed%2 == 0) })
		})
	}
}

// elect lets three workers stand for election while their connections are cut and they end and start again.
func elect(t *testing.T, luck *rand.Rand, watched bool) {
	t.Helper()
	key := &sharedKey{}
	names, err := jobs.NewNames("")
	if err != nil {
		t.Fatal(err)
	}
	var leading atomic.Int32
	var since atomic.Int64 // when nobody began to lead
	since.Store(time.Now().UnixNano())
	lead := func(ctx context.Context) {
		if n := leading.Add(1); n > 1 {
			t.Errorf("%d workers lead at the same time", n)
		}
		<-ctx.Done()
		since.Store(time.Now().UnixNano())
		leading.Add(-1)
	}
	var all sync.WaitGroup
	ways := make([]*policyKey, 3)
	stops := make([]context.CancelFunc, 3)
	start := func(i int) {
		ways[i] = &policyKey{sharedKey: key, luck: rand.New(rand.NewPCG(luck.Uint64(), 0))}
		l := fleet.NewLeader(fleet.LeaderConfig{Task: "test", Worker: fmt.Sprint("w", i), Log: slog.New(slog.DiscardHandler)})
		if watched && i < 2 { // the third one is of a version that does not watch
			way := ways[i]
			key.watch(i, func(c fleet.Change) {
				if !way.cut.Load() {
					l.Note(c)
				}
			})
		}
		ctx, stop := context.WithCancel(t.Context())
		stops[i] = stop
		all.Go(func() { l.Run(ctx, bucketOf{key: ways[i]}, names, lead) })
	}
	for i := range ways {
		start(i)
	}
	for range 200 {
		time.Sleep(time.Duration(luck.IntN(20_000)) * time.Millisecond)
		i := luck.IntN(3)
		switch luck.IntN(3) {
		case 0:
			ways[i].cut.Store(true)
		case 1:
			ways[i].cut.Store(false)
		case 2:
			stops[i]()
			start(i)
		}
		if ways[0].cut.Load() && ways[1].cut.Load() && ways[2].cut.Load() {
			ways[i].cut.Store(false)
			since.Store(time.Now().UnixNano())
		}
		// A worker whose connection is not cut is there all the time, but may be a new one, which waits for a whole span.
		if leading.Load() > 0 {
			continue // asked first: a leader that ends now tells since when before it ends
		}
		if alone := time.Since(time.Unix(0, since.Load())); alone > 60*time.Second {
			t.Errorf("nobody has led for %s", alone)
		}
	}
	for _, way := range ways {
		way.cut.Store(false)
	}
	time.Sleep(20 * time.Second)
	if leading.Load() != 1 {
		t.Errorf("%d workers lead after 20 quiet seconds, want 1", leading.Load())
	}
	for _, stop := range stops {
		stop()
	}
	all.Wait()
	if key.value != nil {
		t.Error("the leader that ended has not given the leadership up")
	}
}

// TestWorkersThatSeeRenewalsAskNothing has three workers that follow the bucket. A leader that ends is replaced at once,
// and one that dies within its 17 s.
func TestWorkersThatSeeRenewalsAskNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := &sharedKey{}
		names, err := jobs.NewNames("")
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		var ways [3]*policyKey
		var stops [3]context.CancelFunc
		leading := make(chan int, 3)
		for i := range ways {
			ways[i] = &policyKey{sharedKey: key, luck: rand.New(rand.NewPCG(uint64(i), 0))}
			l := fleet.NewLeader(fleet.LeaderConfig{Task: "test", Worker: fmt.Sprint("w", i), Log: slog.New(slog.DiscardHandler)})
			key.watch(i, l.Note)
			ctx, stop := context.WithCancel(t.Context())
			stops[i] = stop
			all.Go(func() {
				l.Run(ctx, bucketOf{key: ways[i]}, names, func(ctx context.Context) { leading <- i; <-ctx.Done() })
			})
		}
		time.Sleep(10 * time.Second)
		first := <-leading
		before := key.reads()
		time.Sleep(time.Hour)
		if got := key.reads() - before; got != 0 || len(leading) > 0 {
			t.Errorf("in an hour the workers read the key %d times and %d begin to lead, want 0 of both", got, len(leading))
		}
		stops[first]()
		began := time.Now()
		second := <-leading
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("another one leads %s after the end of the leader, want at once", took)
		}
		ways[second].cut.Store(true)
		key.watch(second, nil)
		began = time.Now()
		// The bound is 17 s, and the server takes up to 0.3 s for each of two answers.
		if <-leading; time.Since(began) > 17*time.Second+600*time.Millisecond {
			t.Errorf("another one leads %s after the death of the leader, want 17.6 s at most", time.Since(began))
		}
		for _, stop := range stops {
			stop()
		}
		all.Wait()
	})
}

func TestAWorkerLeadsOnlyWhileThereIsSomethingToDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := &sharedKey{}
		names, err := jobs.NewNames("")
		if err != nil {
			t.Fatal(err)
		}
		var needed, leads atomic.Bool
		l := fleet.NewLeader(fleet.LeaderConfig{Task: "test", Worker: "w", Log: slog.New(slog.DiscardHandler), Needed: needed.Load})
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			l.Run(ctx, bucketOf{key: &policyKey{sharedKey: key, luck: rand.New(rand.NewPCG(0, 0))}}, names, func(ctx context.Context) {
				leads.Store(true)
				<-ctx.Done()
			})
		})
		time.Sleep(time.Hour)
		if key.reads() != 0 || leads.Load() {
			t.Errorf("a worker without work reads the key %d times and leads is %v", key.reads(), leads.Load())
		}
		needed.Store(true)
		time.Sleep(time.Second)
		if !leads.Load() {
			t.Error("a worker does not lead a second after there is work")
		}
		stop()
		running.Wait()
	})
}

func TestLeadershipPassesOnOverNATS(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	type member struct {
		leads atomic.Bool
		stop  context.CancelFunc
		log   testenv.Log
	}
	members := make([]*member, 3)
	var all sync.WaitGroup
	for i := range members {
		m := &member{}
		members[i] = m
		js, err := jetstream.New(f.nats.Connect())
		if err != nil {
			t.Fatal(err)
		}
		l := fleet.NewLeader(fleet.LeaderConfig{Task: "test", Worker: fmt.Sprint("w", i), Renew: 2 * time.Second, Log: slog.New(slog.NewTextHandler(&m.log, nil))})
		ctx, stop := context.WithCancel(t.Context())
		m.stop = stop
		all.Go(func() {
			l.Run(ctx, js, f.names, func(ctx context.Context) {
				m.leads.Store(true)
				<-ctx.Done()
				m.leads.Store(false)
			})
		})
	}
	for left := slices.Clone(members); len(left) > 0; {
		testenv.Eventually(t, "one to lead", func() bool {
			i := slices.IndexFunc(left, func(m *member) bool { return m.leads.Load() })
			if i >= 0 {
				left[i].stop()
				left = slices.Delete(left, i, i+1)
			}
			return i >= 0
		})
	}
	all.Wait()
	for i, m := range members {
		if text := m.log.String(); text != "" {
			t.Errorf("worker %d logs %q, want nothing", i, text)
		}
	}
	if _, err := f.policies().Get(t.Context(), "leader.test"); !errors.Is(err, jetstream.ErrKeyNotFound) {
		t.Errorf("the key after the last leader has ended: %v, want it deleted", err)
	}
}

func (f *installation) policies() jetstream.KeyValue {
	f.Helper()
	js, err := jetstream.New(f.nats.Connect())
	if err != nil {
		f.Fatal(err)
	}
	kv, err := js.KeyValue(f.Context(), f.names.Bucket("policy"))
	if err != nil {
		f.Fatal(err)
	}
	return kv
}

// hasty is the bucket of a worker that is always too slow: another one writes first.
type hasty struct{ jetstream.KeyValue }

func (h hasty) Create(ctx context.Context, key string, value []byte, opts ...jetstream.KVCreateOpt) (uint64, error) {
	if _, err := h.Put(ctx, key, []byte("another's")); err != nil {
		return 0, err
	}
	return h.KeyValue.Create(ctx, key, value, opts...)
}

func (h hasty) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	if _, err := h.Put(ctx, key, []byte("another's")); err != nil {
		return 0, err
	}
	return h.KeyValue.Update(ctx, key, value, revision)
}

func TestSlowerWorkerNeitherLeadsNorComplains(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	var log testenv.Log
	// Each request has to be answered within Renew, on a busy machine too: a request that is not is worth a line in the log.
	l := fleet.NewLeader(fleet.LeaderConfig{Task: "test", Worker: "w", Renew: time.Second, Log: slog.New(slog.NewTextHandler(&log, nil))})
	kv := f.policies()
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		l.Run(ctx, bucketOf{key: hasty{kv}}, f.names, func(context.Context) { t.Error("it leads") })
	})
	testenv.Eventually(t, "a creation and an update", func() bool {
		entry, err := kv.Get(t.Context(), "leader.test")
		return err == nil && entry.Revision() >= 2
	})
	stop()
	running.Wait()
	if text := log.String(); text != "" {
		t.Errorf("it logs %q, want nothing", text)
	}
}

func TestLeadershipOfAnotherWorkerIsNotGivenUp(t *testing.T) {
	f := newFleet(t)
	js, err := jetstream.New(f.nats.Connect())
	if err != nil {
		t.Fatal(err)
	}
	l := fleet.NewLeader(fleet.LeaderConfig{Task: "test", Worker: "w", Renew: 40 * time.Millisecond, Log: slog.New(slog.DiscardHandler)})
	kv := f.policies()
	ctx, stop := context.WithCancel(t.Context())
	l.Run(ctx, js, f.names, func(leading context.Context) {
		if _, err := kv.Put(t.Context(), "leader.test", []byte("another's")); err != nil {
			t.Error(err)
		}
		<-leading.Done()
		stop()
	})
	if entry, err := kv.Get(t.Context(), "leader.test"); err != nil || string(entry.Value()) != "another's" {
		t.Errorf("got %v, %v; want the key of the other worker untouched", entry, err)
	}
}
