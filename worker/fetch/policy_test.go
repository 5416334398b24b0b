package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// delays are the announced waits, in milliseconds.
func (r *rig) delays() (out []int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.retries {
		out = append(out, e.Delay.Std().Milliseconds())
	}
	return out
}

func TestProxyFaultFailsOverAtOnceAndNeverBack(t *testing.T) {
	r := newRig(t, nil)
	r.use(r.proxy(testenv.Refusing, nil).URL("http")+" id=bad1", r.proxy(testenv.Refusing, nil).URL("http")+" id=bad2", r.proxy(testenv.Good, nil).URL("http")+" id=good")
	for range 3 {
		o := r.do(`{"url":"http://shop.test/ok","retry":{"base_delay":60}}`)
		wantBody(t, o, "hello from shop.test/ok\n")
	}
	if got := r.delays(); slices.Max(append(got, 0)) != 0 {
		t.Errorf("waits = %v, want none while another proxy is left", got)
	}
}

func TestRetryAfterIsTheLeastWaitAndLongOnesGoBack(t *testing.T) {
	r := newRig(t, nil)
	r.use(r.proxy(testenv.Good, nil).URL("http")+" id=a", r.proxy(testenv.Good, nil).URL("http")+" id=b")
	if o := r.do("http://shop.test/retry-after/1"); o.Kind != jobs.RunFinished || r.delays()[0] != 1000 {
		t.Errorf("Retry-After 1: %d, waits %v", o.Kind, r.delays())
	}
	before := time.Now()
	o := r.do(`{"url":"http://shop.test/retry-after/7?status=503"}`)
	if wait := o.At.Sub(before); o.Kind != jobs.RunScheduled || wait < 7*time.Second || wait > 8*time.Second || len(o.Progress.Attempts) != 1 {
		t.Errorf("Retry-After 7: kind %d, in %v, %d attempts; want it parked for 7 s with its attempt", o.Kind, wait, len(o.Progress.Attempts))
	}
	last := r.retries[len(r.retries)-1]
	if last.Kind != jobs.RetryScheduled || last.Attempt != 1 || last.Status != 503 || !last.NextAttemptAt.Equal(o.At.UTC()) {
		t.Errorf("event = %+v", last)
	}
}

func TestStoppedJobKeepsTheAnnouncedTime(t *testing.T) {
	for path, kind := range map[string]string{"/retry-after/1": jobs.RetryInline, "/retry-after/7": jobs.RetryScheduled} {
		ctx, stop := context.WithCancelCause(t.Context())
		var announced jobs.RetryEvent
		r := newRig(t, func(c *fetch.Config) {
			c.Observer.RetryPlanned = func(e jobs.RetryEvent) {
				announced = e
				stop(jobs.ErrStopping)
			}
		})
		r.use(r.proxy(testenv.Good, nil).URL("http") + " id=p")
		o := r.doWith(ctx, "http://shop.test"+path, jobs.Progress{})
		if o.Kind != jobs.RunStopped || announced.Kind != kind || !o.At.Equal(announced.NextAttemptAt) {
			t.Errorf("%s: kind %d until %s, announced %s at %s; want it stopped until the announced time", path, o.Kind, o.At, announced.Kind, announced.NextAttemptAt)
		}
	}
}

func TestResumedJobGoesOnWhereItStopped(t *testing.T) {
	r := newRig(t, nil)
	r.use(r.proxy(testenv.Good, nil).URL("http") + " id=p")
	p := jobs.Progress{JobSeq: 9, Started: time.Now().Add(-time.Minute), Bytes: 100, Attempts: []jobs.Attempt{{Attempt: 1}, {Attempt: 2}}}
	o := r.doWith(t.Context(), `{"url":"http://shop.test/status/503","retry":{"max_attempts":4,"backoff_strategy":"linear"}}`, p)
	if o.Result.AttemptCount != 4 || o.Result.JobSeq != 9 || o.Result.Duration < time.Minute || o.Result.Bytes <= 100 {
		t.Errorf("result = %+v", o.Result)
	}
	if got := r.delays(); !slices.Equal(got, []int64{300}) {
		t.Errorf("waits = %v, want the third of the curve", got)
	}
}

func TestTimeBounds(t *testing.T) {
	r := newRig(t, nil)
	r.use(r.proxy(testenv.Good, nil).URL("http") + " id=p")
	soon := time.Now().Add(300 * time.Millisecond).UTC().Format(time.RFC3339Nano)
	for name, c := range map[string]struct{ payload, code string }{
		"retry.timeout cuts the running attempt": {`{"url":"http://shop.test/slow/60000","retry":{"timeout":0.3}}`, jobs.ErrTimedOut},
		"deadline cuts the running attempt":      {`{"url":"http://shop.test/slow/60000","deadline":"` + soon + `"}`, jobs.ErrExpired},
		"deadline has passed":                    {`{"url":"http://shop.test/ok","deadline":"2001-01-01T00:00:00Z"}`, jobs.ErrExpired},
		"no wait beyond retry.timeout":           {`{"url":"http://shop.test/status/503","retry":{"timeout":5,"base_delay":30}}`, jobs.ErrTimedOut},
		"attempt timeout":                        {`{"url":"http://shop.test/slow/60000","timeout":0.2,"retry":{"max_attempts":1}}`, jobs.ErrAttemptsExhausted},
		"trickling body":                         {`{"url":"http://shop.test/trickle","timeout":0.3,"retry":{"max_attempts":1}}`, jobs.ErrAttemptsExhausted},
	} {
		began := time.Now()
		o := r.do(c.payload)
		if o.Result.Error != c.code || time.Since(began) > 20*time.Second {
			t.Errorf("%s: %s after %v, want %s soon", name, o.Result.Error, time.Since(began), c.code)
		}
	}
	at := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	if o := r.do(`{"url":"http://shop.test/ok","not_before":"` + at.Format(time.RFC3339) + `"}`); o.Kind != jobs.RunScheduled || !o.At.Equal(at) {
		t.Errorf("not_before: kind %d at %v, want it to wait until %v", o.Kind, o.At, at)
	}
}

func TestPostIsNotSentTwiceUnlessAllowed(t *testing.T) {
	r := newRig(t, nil)
	good := r.proxy(testenv.Good, nil).URL("http") + " id=good"
	r.use(good)
	o := r.do(`{"url":"http://shop.test/status/503","method":"POST","body":"x"}`)
	if o.Result.Error != jobs.ErrAttemptsExhausted || o.Result.AttemptCount != 1 {
		t.Errorf("POST with a retryable answer: %s after %d attempts", o.Result.Error, o.Result.AttemptCount)
	}
	if o := r.do(`{"url":"http://shop.test/flaky/1","method":"POST","retry":{"retry_non_idempotent":true}}`); o.Result.Outcome != jobs.Succeeded {
		t.Errorf("POST that may be repeated: %s", o.Result.Error)
	}
	closed := r.proxy(testenv.Good, nil)
	line := closed.URL("http") + " id=closed"
	closed.Close()
	r.use(line, good)
	for range 2 {
		o = r.do(`{"url":"http://shop.test/echo","method":"POST","body":"x"}`)
		if o.Result.Outcome != jobs.Succeeded {
			t.Errorf("POST that was never sent: %s %v, want it retried", o.Result.Error, o.Result.Attempts)
		}
	}
}

func TestNoProxyWaitsOrFailsAndNeverGoesDirect(t *testing.T) {
	r := newRig(t, func(c *fetch.Config) { c.MaxWait = time.Minute })
	if o := r.do("http://shop.test/ok"); o.Kind != jobs.RunScheduled || !o.NoProxy || len(o.Progress.Attempts) != 0 || o.Progress.WaitingSince.IsZero() {
		t.Errorf("empty pool: %+v, want it to wait without an attempt", o)
	}
	if o := r.do(`{"url":"http://shop.test/ok","when_no_proxy":"fail"}`); o.Result.Error != jobs.ErrNoProxy {
		t.Errorf("when_no_proxy fail: %s", o.Result.Error)
	}
	r.use("http://192.0.2.1:1 id=p tags=x")
	r.pool.ForceOpen("p", 20*time.Second, "test")
	if o := r.do("http://shop.test/ok"); o.Kind != jobs.RunScheduled || time.Until(o.At) > 21*time.Second || time.Until(o.At) < 15*time.Second {
		t.Errorf("open pool: kind %d in %v, want the proxy's next test", o.Kind, time.Until(o.At))
	}
	if o := r.do(`{"url":"http://shop.test/ok","proxy":{"tags":["y"]}}`); o.Result.Error != jobs.ErrNoProxy {
		t.Errorf("tags that no proxy has: %d %s, want no_proxy at once", o.Kind, o.Result.Error)
	}
	waited := jobs.Progress{WaitingSince: time.Now().Add(-2 * time.Minute)}
	if o := r.doWith(t.Context(), "http://shop.test/ok", waited); o.Result.Error != jobs.ErrNoProxy {
		t.Errorf("after the longest wait: %d %s, want no_proxy", o.Kind, o.Result.Error)
	}
	if o := r.do(`{"url":"http://shop.test/ok","proxy":{"direct":true}}`); o.Result.Error != jobs.ErrInvalidJob {
		t.Errorf("direct without leave: %s", o.Result.Error)
	}
	if got := r.plain.Count("/ok"); got != 0 {
		t.Errorf("the origin was asked %d times, want never", got)
	}
}

func TestDirectFetchChecksWhereTheNameLeads(t *testing.T) {
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := net.LookupHost(name)
	if err != nil || slices.ContainsFunc(addrs, func(a string) bool { return jobs.ClassifyHost(a) != jobs.HostRefused }) {
		t.Skipf("skipped: the name of this machine, %s, leads to %v, %v, and not inside", name, addrs, err)
	}
	r := newRig(t, func(c *fetch.Config) { c.AllowDirect = true })
	_, port, _ := net.SplitHostPort(r.plain.Addr())
	o := r.do(fmt.Sprintf(`{"url":%q,"proxy":{"direct":true}}`, "http://"+name+":"+port+"/ok"))
	if o.Result.Error != jobs.ErrTargetDenied || o.Result.AttemptCount != 1 || r.plain.Count("/ok") != 0 {
		t.Errorf("a direct fetch of a local name: %s %s after %d attempts, want %s at the first", o.Result.Outcome, o.Result.Error, o.Result.AttemptCount, jobs.ErrTargetDenied)
	}
	open := newRig(t, func(c *fetch.Config) { c.AllowDirect, c.AllowPrivateTargets = true, true })
	o = open.do(fmt.Sprintf(`{"url":%q,"proxy":{"direct":true}}`, open.plain.URL+"/ok"))
	if o.Result.Outcome != jobs.Succeeded || o.Result.Proxy != "" {
		t.Errorf("an allowed direct fetch: %s %s %v", o.Result.Outcome, o.Result.Error, o.Result.Attempts)
	}
}

func TestTheCauseOfAStopDecides(t *testing.T) {
	for cause, want := range map[error]jobs.RunKind{jobs.ErrLeaseLost: jobs.RunLeaseLost, jobs.ErrJobCancelled: jobs.RunFinished, jobs.ErrStopping: jobs.RunStopped} {
		r := newRig(t, nil)
		r.use(r.proxy(testenv.Good, nil).URL("http") + " id=p")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(200*time.Millisecond, func() { cancel(cause) })
		o := r.doWith(ctx, "http://shop.test/slow/60000", jobs.Progress{JobSeq: 3})
		if o.Kind != want || len(o.Progress.Attempts) != 0 {
			t.Errorf("%v: kind %d with %d attempts, want %d with none", cause, o.Kind, len(o.Progress.Attempts), want)
		}
		if errors.Is(cause, jobs.ErrJobCancelled) && (o.Result.Outcome != jobs.Cancelled || o.Result.Error != jobs.ErrCancelled) {
			t.Errorf("cancelled job = %s %s", o.Result.Outcome, o.Result.Error)
		}
		if s, _ := r.pool.StatusOf("p"); s.Inflight != 0 || s.Failures != 0 {
			t.Errorf("%v: in flight %d, failures %d; want the proxy not to be blamed", cause, s.Inflight, s.Failures)
		}
	}
}

func TestPanicEndsTheJobAndReleasesTheProxy(t *testing.T) {
	r := newRig(t, func(c *fetch.Config) {
		c.Observer.AttemptEnded = func(*jobs.Attempt, int64, string) { panic("in a callback") }
	})
	r.use(r.proxy(testenv.Good, nil).URL("http") + " id=p")
	if o := r.do("http://shop.test/ok"); o.Kind != jobs.RunFinished || o.Result.Outcome != jobs.Failed {
		t.Errorf("outcome = %+v, want a failed job", o)
	}
	if s, _ := r.pool.StatusOf("p"); s.Inflight != 0 {
		t.Errorf("in flight after a panic = %d", s.Inflight)
	}
}

func TestDeniedTargetsInEverySpelling(t *testing.T) {
	r := newRig(t, func(c *fetch.Config) { c.Denied = func(host string) bool { return host == "banned.test" } })
	r.use(r.proxy(testenv.Good, nil).URL("http") + " id=p")
	for _, host := range []string{
		"127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0x7f.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254",
		"100.64.0.1", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1]", "[fc00::1]",
		"[fe80::1%25eth0]", "localhost", "LOCALHOST", "localhost.", "a.localhost", "127.0.0.1.", "\uff11\uff12\uff17.0.0.1", "banned.test", "BANNED.test.", "255.255.255.255",
	} {
		o := r.do(fmt.Sprintf(`{"url":%q,"retry":{"max_attempts":1}}`, "http://"+host+"/ok"))
		if o.Result.Error != jobs.ErrTargetDenied {
			t.Errorf("%s = %s %s, want %s", host, o.Result.Outcome, o.Result.Error, jobs.ErrTargetDenied)
		}
	}
	for _, host := range []string{"shop.test", "shop.test:80"} {
		if o := r.do("http://" + host + "/ok"); o.Result.Outcome != jobs.Succeeded {
			t.Errorf("%s = %s %s, want it fetched", host, o.Result.Error, o.Result.Detail)
		}
	}
}

func TestRetryAfterCoolsThePair(t *testing.T) {
	r := newRig(t, nil)
	r.use(r.proxy(testenv.Good, nil).URL("http") + " id=p")
	r.do("http://shop.test/retry-after/60")
	var none *rotation.NoProxyError
	if _, _, err := r.pool.Pick(rotation.Need{Host: "shop.test:80"}); !errors.As(err, &none) {
		t.Errorf("the pair can be picked although the host asked for a minute: %v", err)
	}
	if _, _, err := r.pool.Pick(rotation.Need{Host: "other.test:80"}); err != nil {
		t.Errorf("another host: %v", err)
	}
}
