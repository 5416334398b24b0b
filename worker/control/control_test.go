package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/control"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// fleet is a server, and what its workers were told.
type fleet struct {
	*testing.T
	nats  *testenv.NATS
	names jobs.Names
	nc    *nats.Conn
	addrs atomic.Int64 // how long the addresses of its proxies are

	mu   sync.Mutex
	told []string
}

func newFleet(t *testing.T, workers ...string) *fleet {
	t.Helper()
	f := &fleet{T: t, nats: testenv.StartNATS(t, nil)}
	var err error
	if f.names, err = jobs.NewNames("shop"); err != nil {
		t.Fatal(err)
	}
	f.nc = f.nats.Connect()
	for _, name := range workers {
		f.start(name, "v1.2.3")
	}
	return f
}

func (f *fleet) start(name, version string) *control.Service {
	f.Helper()
	nc := f.nats.Connect()
	s, err := control.Start(nc, f.config(name, version))
	if err != nil {
		f.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		f.Fatal(err)
	}
	return s
}

func (f *fleet) config(name, version string) control.Config {
	queue := func(verb string) func(context.Context, string) error {
		return func(_ context.Context, queue string) error {
			if queue == "missing" {
				return errors.New("no such queue")
			}
			f.tell(verb + " " + queue)
			return nil
		}
	}
	return control.Config{
		Names: f.names, Worker: name, Version: version,
		Status: func() control.Status {
			return control.Status{Slots: 8, InFlight: map[string]int{"default": 2, "low": 1}, Ready: true}
		},
		Steps: func(width time.Duration, count int) []rollup.Step {
			return []rollup.Step{{At: int64(width / time.Second), Failed: int64(count)}}
		},
		Breakers: func(most int) (any, int) { return []string{"one"}, most + 1 },
		Proxies: func(r control.ProxiesRequest, use func(control.Proxy) bool) control.ProxiesResponse {
			for i, more := r.From, true; more && i < 2500; i++ {
				more = use(control.Proxy{ID: fmt.Sprint("p", i), Addr: strings.Repeat("a", int(f.addrs.Load()))})
			}
			return control.ProxiesResponse{Total: 2500}
		},
		ResetBreaker: func(proxy string) int {
			f.tell(name + " resets " + proxy)
			return 1
		},
		Sites: func(site string, most int) (any, int) {
			switch site {
			case "":
				return []string{"one"}, most + 1
			case "shop.test", "xn--bcher-kva.test:8443":
				return []string{site}, 1
			}
			return []string{}, 0
		},
		ResetSite: func(site string) bool {
			f.tell(name + " resets site " + site)
			return site == "shop.test"
		},
		Policy: func() (jobs.Policy, time.Time) { return jobs.DefaultPolicy(), time.Time{} },
		Rollups: func(_ context.Context, scope string, hours int) ([]rollup.Point, string, error) {
			f.tell(fmt.Sprint("rollups ", scope, " ", hours))
			return rollup.NewBook().Series(hours), scope, nil
		},
		Drain: func() { f.tell(name + " drains") },
		Pause: queue("pause"), Resume: queue("resume"),
	}
}

func (f *fleet) tell(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told = append(f.told, what)
}

func (f *fleet) heard() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(slices.Values(f.told))
}

func ask[T any](f *fleet, verb string, request any, most int) ([]T, error) {
	f.Helper()
	return control.Ask[T](f.Context(), f.nc, control.Subject(f.names, verb), request, most)
}

func TestEveryWorkerTellsHowItStands(t *testing.T) {
	f := newFleet(t, "a", "b", "c")
	got, err := ask[control.Status](f, control.Workers, nil, 3)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range got {
		names = append(names, s.Worker)
		if s.Version != "v1.2.3" || s.Slots != 8 || s.Running() != 3 || !s.Ready {
			t.Errorf("worker %s = %+v, want its version, 8 slots, 3 running, ready", s.Worker, s)
		}
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"a", "b", "c"}) {
		t.Errorf("answers of %v, want a, b and c", names)
	}
}

func TestAWorkerTellsWhatEndedLatelyOnlyToWhoAsks(t *testing.T) {
	f := newFleet(t, "a")
	silent, err := ask[control.Status](f, control.Workers, nil, 0)
	if err != nil || silent[0].Recent != nil || silent[0].Minutes != nil {
		t.Errorf("without a wish: got %+v, %v; want no steps", silent, err)
	}
	got, err := ask[control.Status](f, control.Workers, control.WorkersRequest{Recent: 3, Minutes: 60}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if r, m := got[0].Recent, got[0].Minutes; len(r) != 1 || r[0].At != 5 || r[0].Failed != 3 || len(m) != 1 || m[0].At != 60 || m[0].Failed != 60 {
		t.Errorf("steps: got %+v and %+v, want those that were asked for", r, m)
	}
	if odd, err := ask[control.Status](f, control.Workers, map[string]int{"later": 1}, 0); err != nil || len(odd) != 1 || odd[0].Slots != 8 {
		t.Errorf("a request with an unknown field: got %+v, %v; want the status", odd, err)
	}
}

func TestFleetIsSeenByToolsForMicroServices(t *testing.T) {
	f := newFleet(t, "a")
	f.start("b", "(devel)")
	versions := map[string]string{}
	infos, err := control.Ask[micro.Info](t.Context(), f.nc, "$SRV.INFO.shop", nil, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		versions[info.Metadata["worker"]] = info.Version
		if len(info.Endpoints) != 11 {
			t.Errorf("worker %s has %d endpoints, want 11", info.Metadata["worker"], len(info.Endpoints))
		}
		for _, e := range info.Endpoints {
			if !strings.HasPrefix(e.Subject, "shop.ctl.") || e.Metadata["does"] == "" {
				t.Errorf("endpoint %s at %s is described as %q", e.Name, e.Subject, e.Metadata["does"])
			}
		}
	}
	if len(versions) != 2 || versions["a"] != "1.2.3" || versions["b"] != "0.0.0" {
		t.Errorf("versions = %v, want 1.2.3 of a, and 0.0.0 of b, which has no semantic one", versions)
	}
	stats, err := control.Ask[micro.Stats](t.Context(), f.nc, "$SRV.STATS.shop", nil, 2)
	if err != nil || len(stats) != 2 {
		t.Fatalf("statistics of %d workers, %v; want both", len(stats), err)
	}
	var status control.Status
	if err := json.Unmarshal(stats[0].Endpoints[0].Data, &status); err != nil || status.Running() != 3 || status.Worker == "" {
		t.Errorf("statistics say %s, %v; want how the worker stands", stats[0].Endpoints[0].Data, err)
	}
}

func TestOnlyTheNamedWorkerDrains(t *testing.T) {
	f := newFleet(t, "a", "b")
	got, err := ask[control.DrainResponse](f, control.Drain, control.DrainRequest{Worker: "b"}, 0)
	if err != nil || len(got) != 1 || got[0] != (control.DrainResponse{Worker: "b", Draining: true}) {
		t.Errorf("drain = %v, %v; want b's answer alone", got, err)
	}
	if _, err := ask[control.DrainResponse](f, control.Drain, control.DrainRequest{Worker: "nobody"}, 1); !errors.Is(err, control.ErrNoWorkers) {
		t.Errorf("drain of a worker that is not there: %v, want %v", err, control.ErrNoWorkers)
	}
	if got := f.heard(); !slices.Equal(got, []string{"b drains"}) {
		t.Errorf("the fleet did %v, want that b drains", got)
	}
}

func TestEveryWorkerResetsBreakersAlsoWithoutBeingAskedForAnAnswer(t *testing.T) {
	f := newFleet(t, "a", "b")
	got, err := ask[control.ResetResponse](f, control.ResetBreakers, control.ResetRequest{ProxyID: "p1"}, 2)
	if err != nil || len(got) != 2 || got[0].Proxies != 1 {
		t.Errorf("reset = %v, %v; want one proxy in each of 2 workers", got, err)
	}
	if err := f.nc.Publish("shop.ctl.breakers.reset", []byte(`{"proxy_id":"p2"}`)); err != nil {
		t.Fatal(err)
	}
	want := []string{"a resets p1", "a resets p2", "b resets p1", "b resets p2"}
	for deadline := time.Now().Add(testenv.Patience); !slices.Equal(f.heard(), want); {
		if time.Now().After(deadline) {
			t.Fatalf("the fleet did %v, want %v", f.heard(), want)
		}
		if _, err := ask[control.Status](f, control.Workers, nil, 2); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBreakersAreBounded(t *testing.T) {
	f := newFleet(t, "a")
	type answer struct {
		Worker   string   `json:"worker"`
		Total    int      `json:"total"`
		Breakers []string `json:"circuit_breakers"`
	}
	got, err := ask[answer](f, control.Breakers, nil, 0)
	if err != nil || len(got) != 1 || got[0].Worker != "a" || got[0].Total != 2001 || len(got[0].Breakers) != 1 {
		t.Errorf("breakers = %+v, %v; want a's list, at most 2000 of 2001", got, err)
	}
}

func TestOneWorkerAnswersWhatIsTheSameEverywhere(t *testing.T) {
	f := newFleet(t, "a", "b", "c")
	hours, err := ask[control.RollupResponse](f, control.Rollups, control.RollupRequest{}, 0)
	if err != nil || len(hours) != 1 || len(hours[0].Points) != 24 || hours[0].Scope != control.ScopeCluster {
		t.Errorf("rollups = %d answers, %v; want 24 hours of the cluster from one worker", len(hours), err)
	}
	if _, err := ask[control.RollupResponse](f, control.Rollups, control.RollupRequest{Hours: 2, Scope: control.ScopeWorker}, 0); err != nil {
		t.Error(err)
	}
	if got, err := ask[control.PauseResponse](f, control.Pause, control.QueueRequest{Queue: "low"}, 0); err != nil || len(got) != 1 || !got[0].Paused {
		t.Errorf("pause = %v, %v; want one answer", got, err)
	}
	if got, err := ask[control.PauseResponse](f, control.Resume, control.QueueRequest{Queue: "low"}, 0); err != nil || len(got) != 1 || got[0].Paused {
		t.Errorf("resume = %v, %v; want one answer", got, err)
	}
	if got, want := f.heard(), []string{"pause low", "resume low", "rollups cluster 24", "rollups worker 2"}; !slices.Equal(got, want) {
		t.Errorf("the fleet did %v, want %v", got, want)
	}
	policies, err := ask[map[string]any](f, control.Policy, nil, 0)
	if err != nil || len(policies) != 1 || policies[0]["max_attempts"] != 3.0 {
		t.Fatalf("policy = %v, %v; want one with 3 attempts", policies, err)
	}
	if at, there := policies[0]["updated_at"]; !there || at != nil {
		t.Errorf("updated_at = %v, want null for the policy of the environment", at)
	}
}

func TestRequestsThatMakeNoSenseAreRefusedWithAReason(t *testing.T) {
	f := newFleet(t, "a")
	for _, c := range []struct{ verb, request, code, reason string }{
		{control.ResetBreakers, `{"proxy_id":"a b"}`, "400", "proxy_id"},
		{control.ResetBreakers, `{"proxy":"p1"}`, "400", "unknown field"},
		{control.ResetBreakers, `{} {}`, "400", "something follows"},
		{control.ResetBreakers, `p1`, "400", "not valid"},
		{control.ResetSite, ``, "400", "site is missing"},
		{control.Sites, `{"proxy_id":"p1"}`, "400", "unknown field"},
		{control.Sites, `{"site":"http://shop.test/\u001b[31m"}`, "400", `site: "http://shop.test/\x1b[31m" is not HOST or HOST:PORT`},
		{control.ResetSite, `{"site":"shop.test:0"}`, "400", `"shop.test:0" is not HOST`},
		{control.Drain, ``, "400", "worker is missing"},
		{control.Rollups, `{"hours":169}`, "400", "1 to 168"},
		{control.Rollups, `{"hours":-1}`, "400", "1 to 168"},
		{control.Rollups, `{"scope":"moon"}`, "400", "scope"},
		{control.Pause, `{"queue":"a.b"}`, "400", "queue"},
		{control.Pause, `{"queue":"missing"}`, "500", "no such queue"},
	} {
		msg, err := f.nc.Request(control.Subject(f.names, c.verb), []byte(c.request), testenv.Patience)
		if err != nil {
			t.Fatalf("%s %s: %v", c.verb, c.request, err)
		}
		code, reason := msg.Header.Get(micro.ErrorCodeHeader), msg.Header.Get(micro.ErrorHeader)
		if code != c.code || !strings.Contains(reason, c.reason) {
			t.Errorf("%s %s is answered %s %q, want %s about %q", c.verb, c.request, code, reason, c.code, c.reason)
		}
	}
	_, err := ask[any](f, control.Pause, control.QueueRequest{Queue: "missing"}, 1)
	if refused, ok := errors.AsType[*control.RefusedError](err); !ok || refused.Code != "500" || refused.Reason != "no such queue" {
		t.Errorf("a refusal reaches the caller as %v, want it with its code and reason", err)
	}
	if got := f.heard(); len(got) != 0 {
		t.Errorf("the fleet did %v, want nothing", got)
	}
}

func TestStoppedServiceAnswersNoMore(t *testing.T) {
	f := newFleet(t)
	s := f.start("a", "")
	if _, err := ask[control.Status](f, control.Workers, nil, 1); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(testenv.Patience); time.Now().Before(deadline); {
		if _, err := ask[control.Status](f, control.Workers, nil, 1); errors.Is(err, control.ErrNoWorkers) {
			return
		}
	}
	t.Error("a stopped service still answers")
}

// TestAnswersThatAreExpectedAreWaitedForLikeTheFirstOne has a worker that answers long after the first one.
func TestAnswersThatAreExpectedAreWaitedForLikeTheFirstOne(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nc := f.nats.Connect()
	_, err := nc.Subscribe(control.Subject(f.names, "workers"), func(m *nats.Msg) {
		_ = m.Respond([]byte(`{}`))
		time.AfterFunc(time.Second, func() { _ = m.Respond([]byte(`{}`)) })
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	// A busy machine may be late, but not each time.
	testenv.Eventually(t, "both answers", func() bool {
		answers, err := ask[control.Status](f, control.Workers, nil, 2)
		return err == nil && len(answers) == 2
	})
}

func TestAskEndsWithItsContext(t *testing.T) {
	f := newFleet(t, "a")
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := control.Ask[control.Status](ctx, f.nc, "shop.ctl.workers", nil, 0); !errors.Is(err, cause) {
		t.Errorf("ask after its end: %v, want %v", err, cause)
	}
}

// Whoever may listen to a verb may answer it for ever, with less than the quiet time between two answers.
func TestAskEndsAlthoughAnswersGoOnForEver(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	nc := f.nats.Connect()
	ctx, stop := context.WithCancel(t.Context())
	var talkers sync.WaitGroup
	defer talkers.Wait()
	defer stop()
	for _, subject := range []string{control.Subject(f.names, "workers"), "$SRV.PING." + f.names.Prefix()} {
		_, err := nc.Subscribe(subject, func(m *nats.Msg) {
			talkers.Go(func() {
				tick := time.NewTicker(50 * time.Millisecond)
				defer tick.Stop()
				for i := 0; ctx.Err() == nil; i++ {
					_ = m.Respond(fmt.Appendf(nil, `{"worker":"w%d","id":"w%d"}`, i, i))
					<-tick.C
				}
			})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	bounded, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	answers, _, err := control.AskAll[control.Status](bounded, f.nc, f.names, "workers", control.WorkersRequest{})
	if err != nil || len(answers) == 0 {
		t.Errorf("%d answers, %v; want those that came, and an end of the wait", len(answers), err)
	}
}

func TestEveryWorkerShowsAndResetsItsSites(t *testing.T) {
	f := newFleet(t, "a", "b")
	type answer struct {
		Worker string   `json:"worker"`
		Total  int      `json:"total"`
		Sites  []string `json:"sites"`
	}
	all, err := ask[answer](f, control.Sites, nil, 2)
	if err != nil || len(all) != 2 || all[0].Total != 1001 || len(all[0].Sites) != 1 {
		t.Errorf("sites = %+v, %v; want those of both workers, at most 1000 of 1001", all, err)
	}
	one, err := ask[answer](f, control.Sites, control.SiteRequest{Site: "shop.test"}, 2)
	if err != nil || len(one) != 2 || !slices.Equal(one[0].Sites, []string{"shop.test"}) {
		t.Errorf("site = %+v, %v; want it in both workers", one, err)
	}
	got, err := ask[control.SiteReset](f, control.ResetSite, control.SiteRequest{Site: "shop.test"}, 2)
	if err != nil || len(got) != 2 || !got[0].Known || !got[1].Known {
		t.Errorf("reset = %+v, %v; want that both workers know the site", got, err)
	}
	if got, want := f.heard(), []string{"a resets site shop.test", "b resets site shop.test"}; !slices.Equal(got, want) {
		t.Errorf("the fleet did %v, want %v", got, want)
	}
}

// TestSitesAreReadAsTheirNamesAreSpelt: jobs name a site in any spelling, and workers know it by one.
func TestSitesAreReadAsTheirNamesAreSpelt(t *testing.T) {
	f := newFleet(t, "a")
	for written, want := range map[string]string{"SHOP.test.": "shop.test", "shop.test:443": "shop.test", "Bücher.test.:8443": "xn--bcher-kva.test:8443"} {
		list, err := ask[struct {
			Sites []string `json:"sites"`
		}](f, control.Sites, control.SiteRequest{Site: written}, 1)
		if err != nil || len(list) != 1 || !slices.Equal(list[0].Sites, []string{want}) {
			t.Errorf("sites of %s = %v, %v; want %s", written, list, err, want)
		}
	}
	got, err := ask[control.SiteReset](f, control.ResetSite, control.SiteRequest{Site: "Shop.Test:80"}, 1)
	if err != nil || len(got) != 1 || !got[0].Known || got[0].Site != "shop.test" {
		t.Errorf("reset = %+v, %v; want that of shop.test", got, err)
	}
}

// TestAPoolIsToldPageByPage: an answer has no room for all proxies, and the rest is asked of one worker.
func TestAPoolIsToldPageByPage(t *testing.T) {
	f := newFleet(t, "a", "b")
	all, err := ask[control.ProxiesResponse](f, control.Proxies, nil, 2)
	if err != nil || len(all) != 2 || all[0].Total != 2500 || len(all[0].Proxies) != 1000 {
		t.Fatalf("%d answers, %v; want both with 1000 of 2500 proxies", len(all), err)
	}
	rest, err := ask[control.ProxiesResponse](f, control.Proxies, control.ProxiesRequest{Worker: "b", From: 2000}, 0)
	if err != nil || len(rest) != 1 || rest[0].Worker != "b" || len(rest[0].Proxies) != 500 || rest[0].Proxies[0].ID != "p2000" {
		t.Errorf("%d answers, %v; want the rest of b", len(rest), err)
	}
	for _, odd := range []control.ProxiesRequest{{Worker: "a", From: -1}, {From: 1}} {
		if _, err := ask[control.ProxiesResponse](f, control.Proxies, odd, 1); err == nil || !strings.Contains(err.Error(), "from") {
			t.Errorf("%+v: %v, want it refused", odd, err)
		}
	}
	f.addrs.Store(4096)
	large, err := ask[control.ProxiesResponse](f, control.Proxies, nil, 1)
	if err != nil || len(large[0].Proxies) < 100 || len(large[0].Proxies) > 128 {
		t.Errorf("%d proxies, %v; want as many as half a megabyte takes", len(large[0].Proxies), err)
	}
}

// startOther starts a worker that answers pings and, if it is not "", a verb with nothing.
func (f *fleet) startOther(name, version, deaf string) {
	f.Helper()
	s, err := micro.AddService(f.nc, micro.Config{Name: "shop", Version: version, Metadata: map[string]string{"worker": name}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Stop() })
	if deaf != "" {
		err := s.AddEndpoint("deaf", micro.HandlerFunc(func(micro.Request) {}), micro.WithEndpointSubject("shop.ctl."+deaf), micro.WithEndpointQueueGroupDisabled())
		if err != nil {
			f.Fatal(err)
		}
	}
}

// TestAMissingAnswerIsNamed has workers that are too old for a verb and one that does not answer it, beside others of its name.
func TestAMissingAnswerIsNamed(t *testing.T) {
	f := newFleet(t, "a", "b", "b")
	f.startOther("old", "0.9.0", "")
	f.startOther("b", "1.2.3", control.Workers)
	want := []control.Silent{{Worker: "b", Version: "1.2.3"}, {Worker: "old", Version: "0.9.0"}}
	testenv.Eventually(t, "three answers and the two workers that are silent", func() bool { // others may be silent on a busy machine
		got, silent, err := control.AskAll[control.Status](t.Context(), f.nc, f.names, control.Workers, nil)
		return err == nil && len(got) == 3 && slices.Equal(silent, want)
	})
	got, silent, err := control.AskAll[control.Status](t.Context(), f.nc, f.names, "future", nil)
	if !errors.Is(err, control.ErrUnknownVerb) || len(got) != 0 || len(silent) != 5 {
		t.Errorf("nobody knows the verb: got %d answers, %v and %v, want all five workers", len(got), silent, err)
	}
}

func TestAFleetWithoutWorkersMissesNone(t *testing.T) {
	f := newFleet(t)
	_, silent, err := control.AskAll[control.Status](t.Context(), f.nc, f.names, control.Workers, nil)
	if !errors.Is(err, control.ErrNoWorkers) || len(silent) != 0 {
		t.Errorf("got %v and %v, want no workers", silent, err)
	}
}
