package fetch_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/rotation/sites"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// web is a network in memory: proxies that all work, and sites that do what the test says. Virtual time only.
type web struct {
	*testing.T
	table *sites.Table
	pool  *rotation.Pool
	f     *fetch.Fetcher

	mu     sync.Mutex
	does   map[string]string // by host: silent, a status line with what follows it; others answer 200
	badVia map[string]bool   // proxies that answer nothing
	asked  map[string]int    // requests by host
	via    []string          // the proxies of the requests, the latest last
	events []sites.Event
	waits  []sites.State
	wg     sync.WaitGroup
}

// inWeb runs a test with n proxies, attempts of at most two seconds, and no jitter.
func inWeb(t *testing.T, n int, do func(w *web)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &web{T: t, table: sites.New(sites.Config{}), does: map[string]string{}, badVia: map[string]bool{}, asked: map[string]int{}}
		w.pool = rotation.New(rotation.Config{Breaker: breaker.Config{Jitter: -1}})
		var list []proxylist.Proxy
		for i := range n {
			list = append(list, proxylist.Proxy{ID: fmt.Sprint("p", i), URL: &url.URL{Scheme: "http", Host: fmt.Sprintf("p%d.test:80", i)}})
		}
		w.pool.Replace(list)
		policy := jobs.DefaultPolicy()
		policy.MaxAttempts, policy.Jitter = 3, false
		w.f = fetch.New(fetch.Config{
			Pool: w.pool, Policy: func() jobs.Policy { return policy }, Dial: w.dial, AttemptTimeout: 2 * time.Second, Worker: "w", Sites: w.table,
			Observer: fetch.Observer{
				SitesChanged: func(e []sites.Event) { w.mu.Lock(); defer w.mu.Unlock(); w.events = append(w.events, e...) },
				SiteAwaited:  func(s sites.State) { w.mu.Lock(); defer w.mu.Unlock(); w.waits = append(w.waits, s) },
			},
		})
		do(w)
		w.f.Close()
		w.wg.Wait()
	})
}

func (w *web) dial(_ context.Context, _, addr string) (net.Conn, error) {
	client, server := net.Pipe()
	id, _, _ := strings.Cut(addr, ".")
	if w.badVia[id] {
		return nil, errors.New("refused")
	}
	w.wg.Go(func() {
		defer func() { _ = server.Close() }()
		in := bufio.NewReader(server)
		for more := true; more; {
			more = w.serve(id, server, in)
		}
	})
	return client, nil
}

func (w *web) serve(id string, c net.Conn, in *bufio.Reader) bool {
	req, err := http.ReadRequest(in)
	if err != nil {
		return false
	}
	w.mu.Lock()
	host := req.URL.Host
	does := w.does[host]
	w.asked[host]++
	w.via = append(w.via, id)
	w.mu.Unlock()
	switch does {
	case "silent":
		_, _ = io.Copy(io.Discard, in)
		return false
	case "":
		does = "200 OK\r\n"
	}
	time.Sleep(100 * time.Millisecond)
	_, err = io.WriteString(c, "HTTP/1.1 "+does+"Content-Length: 0\r\n\r\n")
	return err == nil
}

// is sets what a site does from now on.
func (w *web) is(host, does string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.does[host] = does
}

func (w *web) count(host string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[host]
}

// do runs a job once.
func (w *web) do(payload string, p jobs.Progress) *jobs.RunOutcome {
	w.Helper()
	job, err := jobs.Decode("default", "j", []byte(payload))
	if err != nil {
		w.Fatal(err)
	}
	return w.f.Do(w.Context(), &job, &p)
}

// warm lets other sites answer, through all proxies.
func (w *web) warm() {
	w.Helper()
	for i := range 60 {
		w.do(fmt.Sprintf("http://good%d.test/", i%5), jobs.Progress{})
	}
}

// dies makes a site silent, and jobs find it out.
func (w *web) dies(host string) {
	w.Helper()
	w.is(host, "silent")
	for i := 0; i < 10 && w.status(host).State != sites.Resting; i++ {
		w.do("http://"+host+"/", jobs.Progress{})
	}
	if s := w.status(host); s.State != sites.Resting {
		w.Fatalf("%s: got %+v, want it to rest", host, s)
	}
}

func (w *web) status(site string) sites.Status {
	s, _ := w.table.StatusOf(site)
	return s
}

func TestEachAttemptIsCountedAtItsSite(t *testing.T) {
	inWeb(t, 5, func(w *web) {
		w.do("http://a.test/", jobs.Progress{})
		w.is("a.test", "404 Not Found\r\n")
		w.do("http://a.test/", jobs.Progress{})
		w.is("a.test", "403 Forbidden\r\n")
		w.do(`{"url":"http://a.test/","ban":{"statuses":[403]},"retry":{"max_attempts":2}}`, jobs.Progress{})
		w.is("a.test", "silent")
		w.do(`{"url":"http://a.test/","retry":{"max_attempts":1}}`, jobs.Progress{})
		s := w.status("a.test")
		if got := s.Tally; got.Attempts != 5 || got.Bans != 2 || got.Classes != [5]uint32{1, 0, 3, 0, 1} || got.Faults != [4]uint32{0, 0, 2, 1} {
			t.Errorf("tally: got %+v, want 5 attempts: 2xx, 404, two bans, and one without an answer", got)
		}
		if s.LastError == "" || !s.LastErrorAt.Equal(time.Now()) {
			t.Errorf("last error: got %q at %s, want that of the last attempt", s.LastError, s.LastErrorAt)
		}
		w.is("b.test", "302 Found\r\nLocation: http://c.test/\r\n")
		w.do("http://b.test/", jobs.Progress{})
		if from, to := w.status("b.test").Tally, w.status("c.test").Tally; from.Attempts != 0 || to.Classes[0] != 1 {
			t.Errorf("a redirect from b.test to c.test: got %+v and %+v, want the attempt at c.test", from, to)
		}
	})
}

func TestAJobOfARestingSiteWaitsWithoutAnAttempt(t *testing.T) {
	inWeb(t, 5, func(w *web) {
		w.warm()
		w.dies("dead.test")
		asked, picks := w.count("dead.test"), len(w.via)
		o := w.do("http://dead.test/", jobs.Progress{JobSeq: 7})
		until := w.status("dead.test").Until
		if o.Kind != jobs.RunScheduled || o.Wait == nil || o.Wait.Site != "dead.test" || !o.Wait.Until.Equal(until) || o.At.Before(until) || o.At.After(until.Add(time.Second)) {
			t.Fatalf("outcome: got %+v, want it to wait until %s", o, until)
		}
		if o.NoProxy || len(o.Progress.Attempts) != 0 || o.Progress.JobSeq != 7 || !o.Progress.SiteSince.Equal(time.Now()) || !o.Progress.Started.IsZero() {
			t.Errorf("progress: got %+v, want no attempt, and since when it waits", o.Progress)
		}
		if w.count("dead.test") != asked || len(w.via) != picks || len(w.waits) == 0 || w.waits[len(w.waits)-1] != sites.Resting {
			t.Errorf("got %d requests and the waits %v, want none and one more", w.count("dead.test")-asked, w.waits)
		}
		for _, s := range w.pool.Status() {
			if s.Inflight != 0 || s.State != breaker.Closed {
				t.Errorf("%s: got %d in flight, %s", s.ID, s.Inflight, s.State)
			}
		}
	})
}

func TestAJobThatDoesNotWaitEndsAtOnceAsSiteDown(t *testing.T) {
	inWeb(t, 5, func(w *web) {
		w.warm()
		w.dies("dead.test")
		o := w.do(`{"url":"http://dead.test/","when_site_down":"fail"}`, jobs.Progress{})
		if o.Kind != jobs.RunFinished || o.Result.Outcome != jobs.Failed || o.Result.Error != jobs.ErrSiteDown || o.Result.AttemptCount != 0 || !strings.Contains(o.Result.Detail, "dead.test") {
			t.Errorf("got %+v, want site_down", o)
		}
	})
}

func TestAJobEndsAsSiteDownOnceItHasWaitedAndATestFailed(t *testing.T) {
	inWeb(t, 5, func(w *web) {
		w.warm()
		w.dies("dead.test")
		began := time.Now()
		waits := w.do("http://dead.test/", jobs.Progress{})
		// Nobody tests the site: the job is not ended however long it waits.
		time.Sleep(30 * time.Second)
		if again := w.do("http://dead.test/", waits.Progress); again.Kind != jobs.RunScheduled || !again.Progress.SiteSince.Equal(waits.Progress.SiteSince) || !again.Wait.End.IsZero() {
			t.Fatalf("during the first rest: got %+v, want it to go on waiting", again)
		}
		time.Sleep(40 * time.Second)
		w.do(`{"url":"http://dead.test/test","retry":{"max_attempts":1}}`, jobs.Progress{}) // the test
		again := w.do("http://dead.test/", waits.Progress)
		if end := began.Add(3 * time.Minute); again.Kind != jobs.RunScheduled || !again.Wait.End.Equal(end) || again.At.After(end) {
			t.Fatalf("after a failed test: got %+v, want it to be looked at at %s", again, end)
		}
		time.Sleep(time.Until(again.At))
		o := w.do("http://dead.test/", again.Progress)
		if o.Kind != jobs.RunFinished || o.Result.Error != jobs.ErrSiteDown || o.Result.AttemptCount != 0 || !o.Result.FinishedAt.Equal(began.Add(3*time.Minute)) {
			t.Errorf("got %+v, want site_down after three minutes", o)
		}
	})
}

func TestTheTestThatSucceedsEndsTheWait(t *testing.T) {
	inWeb(t, 5, func(w *web) {
		w.warm()
		w.dies("dead.test")
		waits := w.do("http://dead.test/", jobs.Progress{})
		w.is("dead.test", "")
		time.Sleep(time.Until(waits.At))
		o := w.do("http://dead.test/", waits.Progress)
		if o.Kind != jobs.RunFinished || o.Result.Outcome != jobs.Succeeded || o.Result.AttemptCount != 1 {
			t.Errorf("got %+v, want the answer of the test", o)
		}
		if s := w.status("dead.test"); s.State != sites.Returning {
			t.Errorf("site: got %s, want %s", s.State, sites.Returning)
		}
	})
}

func TestAnAttemptThatFailsForgetsTheWait(t *testing.T) {
	inWeb(t, 5, func(w *web) {
		w.warm()
		w.dies("dead.test")
		waits := w.do("http://dead.test/", jobs.Progress{Released: true})
		if waits.Progress.Released {
			t.Error("a released job that is refused: got it still released")
		}
		time.Sleep(time.Until(waits.At))
		o := w.do("http://dead.test/", waits.Progress)
		if o.Kind != jobs.RunScheduled || o.Wait == nil || len(o.Progress.Attempts) != 1 || !o.Progress.SiteSince.Equal(time.Now()) {
			t.Errorf("after its attempt failed: got %+v, want one attempt, and that it waits since now", o)
		}
	})
}

func TestADeadlineHoldsWhileTheSiteRests(t *testing.T) {
	inWeb(t, 5, func(w *web) {
		w.warm()
		w.dies("dead.test")
		deadline := time.Now().Add(10 * time.Second).UTC()
		payload := `{"url":"http://dead.test/","deadline":"` + deadline.Format(time.RFC3339Nano) + `"}`
		o := w.do(payload, jobs.Progress{})
		if o.Kind != jobs.RunScheduled || !o.At.Equal(deadline) || !o.Wait.End.Equal(deadline) {
			t.Fatalf("got %+v, want it to wait until its deadline", o)
		}
		time.Sleep(10 * time.Second)
		if o = w.do(payload, o.Progress); o.Result.Error != jobs.ErrExpired {
			t.Errorf("got %+v, want it expired", o)
		}
		started := jobs.Progress{Attempts: []jobs.Attempt{{Attempt: 1}}, Started: time.Now()}
		payload = `{"url":"http://dead.test/","retry":{"timeout":5}}`
		if o = w.do(payload, started); o.Kind != jobs.RunScheduled || o.At.After(time.Now().Add(5*time.Second)) || !o.Wait.End.Equal(started.Started.Add(5*time.Second)) {
			t.Fatalf("got %+v, want it to wait for its retry.timeout", o)
		}
		time.Sleep(5 * time.Second)
		if o = w.do(payload, o.Progress); o.Result.Error != jobs.ErrTimedOut {
			t.Errorf("got %+v, want it timed out", o)
		}
		waits := time.Now()
		if o = w.do(payload, jobs.Progress{}); o.Kind != jobs.RunScheduled || !o.At.Equal(waits.Add(5*time.Second)) || !o.Wait.End.Equal(o.At) {
			t.Fatalf("got %+v, want it to wait for its retry.timeout without an attempt", o)
		}
		time.Sleep(5 * time.Second)
		if o = w.do(payload, o.Progress); o.Result.Error != jobs.ErrTimedOut || o.Result.Duration != 0 || o.Result.AttemptCount != 0 {
			t.Errorf("got %+v, want it timed out after no attempt", o)
		}
	})
}

func TestANewSiteGetsItsShareAndItsJobsWait(t *testing.T) {
	inWeb(t, 20, func(w *web) {
		w.is("new.test", "silent")
		var wg sync.WaitGroup
		var mu sync.Mutex
		var waiting []jobs.RunOutcome
		for range 20 {
			wg.Go(func() {
				// when_site_down fails only a job whose site rests.
				o := w.do(`{"url":"http://new.test/","when_site_down":"fail","retry":{"max_attempts":1}}`, jobs.Progress{})
				mu.Lock()
				defer mu.Unlock()
				if o.Kind == jobs.RunScheduled {
					waiting = append(waiting, *o)
				}
			})
		}
		time.Sleep(time.Second)
		if got := w.count("new.test"); got != 8 {
			t.Errorf("attempts at once: got %d, want an eighth of 64", got)
		}
		wg.Wait()
		if len(waiting) != 12 || waiting[0].Wait == nil || !strings.Contains(waiting[0].Wait.Detail, "is new") || !waiting[0].Wait.Until.IsZero() {
			t.Errorf("waiting: got %d, such as %+v, want the 12 others", len(waiting), waiting)
		}
		// The wait ends no job, however long it is.
		old := jobs.Progress{SiteSince: time.Now().Add(-time.Hour)}
		if o := w.do("http://new.test/", old); o.Kind == jobs.RunFinished && o.Result.Error == jobs.ErrSiteDown {
			t.Errorf("after an hour: got %+v, want no site_down", o)
		}
	})
}

// TestAJobThatFindsNoProxyAfterItsSiteWaitsForAProxyOnly: people would look at the site, which lets the job through.
func TestAJobThatFindsNoProxyAfterItsSiteWaitsForAProxyOnly(t *testing.T) {
	inWeb(t, 2, func(w *web) {
		for _, id := range []string{"p0", "p1"} {
			w.pool.ForceOpen(id, time.Hour, "by hand")
		}
		o := w.do("http://new.test/", jobs.Progress{SiteSince: time.Now().Add(-time.Minute)})
		if o.Kind != jobs.RunScheduled || !o.NoProxy || o.Wait != nil {
			t.Fatalf("got %+v, want it to wait for a proxy", o)
		}
		header, err := o.Progress.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if state, since, _ := jobs.StateOfWait(header); state != jobs.StateNoProxy || !since.Equal(time.Now()) {
			t.Errorf("got %s since %s, want %s since now", state, since, jobs.StateNoProxy)
		}
	})
}

func TestAFailureCountsForTheSiteWhereTheAttemptEnded(t *testing.T) {
	inWeb(t, 5, func(w *web) {
		w.warm()
		w.is("from.test", "302 Found\r\nLocation: http://to.test:8080/\r\n")
		w.dies("to.test:8080")
		w.table.Reset("to.test:8080")
		for i := 0; i < 10 && w.status("to.test:8080").State != sites.Resting; i++ {
			w.do(`{"url":"http://from.test/","retry":{"max_attempts":1}}`, jobs.Progress{})
		}
		if from, to := w.status("from.test"), w.status("to.test:8080"); from.State != sites.Answering || to.State != sites.Resting {
			t.Errorf("got %s and %s, want only the site at rest that the redirect leads to", from.State, to.State)
		}
	})
}

func TestGatewayErrorsRestASiteAndOtherErrorsDoNot(t *testing.T) {
	for status, want := range map[string]sites.State{
		"502 Bad Gateway": sites.Resting, "504 Gateway Timeout": sites.Resting, "522 Timed Out": sites.Resting, "530 Frozen": sites.Resting,
		"500 Oops": sites.Answering, "503 Busy": sites.Answering, "403 No": sites.Answering, "429 Slow": sites.Answering, "519 Hm": sites.Answering,
	} {
		inWeb(t, 5, func(w *web) {
			w.warm()
			w.is("a.test", status+"\r\n")
			for i := 0; i < 10 && w.status("a.test").State != sites.Resting; i++ {
				w.do(`{"url":"http://a.test/","retry":{"max_attempts":1}}`, jobs.Progress{})
			}
			if s := w.status("a.test"); s.State != want {
				t.Errorf("%s: got %s, want %s", status, s.State, want)
			}
		})
	}
}

func TestATestUsesAProxyThatWorks(t *testing.T) {
	inWeb(t, 12, func(w *web) {
		w.warm()
		w.dies("dead.test")
		// Only one proxy relays anything in the last minute; what the others do is not known.
		time.Sleep(59 * time.Second)
		for w.count("only.test") == 0 {
			w.do(`{"url":"http://only.test/","proxy":{"id":"p7"}}`, jobs.Progress{})
		}
		time.Sleep(2 * time.Second)
		w.do(`{"url":"http://dead.test/","retry":{"max_attempts":1}}`, jobs.Progress{})
		if got := w.via[len(w.via)-1]; got != "p7" {
			t.Errorf("the test: got it through %s, want p7, which relayed another site", got)
		}
	})
}

func TestAFaultOfTheProxyLeavesTheSiteToTheNextTest(t *testing.T) {
	inWeb(t, 2, func(w *web) {
		w.warm()
		w.dies("dead.test")
		w.is("dead.test", "")
		time.Sleep(2 * time.Minute) // no connection stays open
		w.badVia["p0"], w.badVia["p1"] = true, true
		if o := w.do(`{"url":"http://dead.test/","retry":{"max_attempts":1}}`, jobs.Progress{}); o.Result.AttemptCount != 1 || o.Result.Attempts[0].Fault != jobs.FaultProxy {
			t.Fatalf("got %+v, want a fault of the proxy", o)
		}
		if s := w.status("dead.test"); s.State != sites.Resting || s.Rest != time.Minute || s.Until.After(time.Now()) {
			t.Errorf("site: got %+v, want the next test at once", s)
		}
		last := w.events[len(w.events)-1]
		if last.Reason != sites.ReasonVoid {
			t.Errorf("event: got %+v, want %s", last, sites.ReasonVoid)
		}
	})
}

func TestAnAnswerThatIsABanIsAResultRatherThanAWait(t *testing.T) {
	inWeb(t, 5, func(w *web) {
		w.warm()
		w.is("a.test", "403 Forbidden\r\n")
		job := func() *jobs.RunOutcome { return w.do("http://a.test/", jobs.Progress{}) }
		job()
		w.table.Apply(sites.Finding{Site: "b.test", State: sites.Resting, Until: time.Now().Add(time.Minute)})
		if o := w.do("http://b.test/", jobs.Progress{}); o.Kind != jobs.RunScheduled {
			t.Errorf("got %+v, want it to wait by the finding of another worker", o)
		}
		if slices.ContainsFunc(w.events, func(e sites.Event) bool { return e.Foreign }) {
			t.Error("events: got a finding of another worker told as one of this worker")
		}
	})
}

func TestSitesAreHostAndPortWithoutTheDefaultOne(t *testing.T) {
	inWeb(t, 5, func(w *web) {
		w.warm()
		for _, payload := range []string{"http://A.test:80/x", "http://a.test./", "http://a.test:8080/", "http://[2606:4700::1]:81/", "http://[2606:4700::1]/"} {
			w.do(payload, jobs.Progress{})
		}
		for site, want := range map[string]bool{"a.test": true, "a.test:80": false, "a.test.": false, "a.test:8080": true, "[2606:4700::1]:81": true, "[2606:4700::1]": true} {
			if _, known := w.table.StatusOf(site); known != want {
				t.Errorf("site %s: got known %t, want %t", site, known, want)
			}
		}
	})
}

// A worker without proxies fetches directly: that is one way.
func TestADirectWorkerRestsASiteThatRefuses(t *testing.T) {
	table := sites.New(sites.Config{})
	r := newRig(t, func(c *fetch.Config) { c.AllowDirect, c.AllowPrivateTargets, c.Sites = true, true, table })
	site := r.plain.Addr()
	for range 40 {
		r.do(`{"url":"http://` + r.plain.Addr() + `/ok","proxy":{"direct":true}}`)
	}
	if s, known := table.StatusOf(site); !known || s.State != sites.Answering {
		t.Fatalf("%s: got %+v, want it known", site, s)
	}
	dead := closedAddr(t)
	for range 40 {
		r.do(`{"url":"http://` + dead + `/","proxy":{"direct":true},"retry":{"max_attempts":1}}`)
		if s, _ := table.StatusOf(dead); s.State == sites.Resting {
			return
		}
	}
	t.Error("a site that refuses every connection: got no rest, want one")
}

// closedAddr is an address where nobody listens.
func closedAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	return l.Addr().String()
}
