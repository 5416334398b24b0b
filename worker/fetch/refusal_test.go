package fetch_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv"
)

func TestATargetThatSays407OpensNoProxyThatWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, pool, done := crowd(t, 6, func(_, host string) string {
			if host == "odd.test" {
				return "407 Proxy Authentication Required"
			}
			return "200 OK"
		})
		defer done()
		for range 2 {
			o := f.Do(t.Context(), decode(t, "http://odd.test/"), &jobs.Progress{})
			if o.Result.Outcome == jobs.Succeeded {
				t.Error("a 407 was the job's answer")
			}
			for _, a := range append(o.Result.Attempts, o.Progress.Attempts...) {
				if a.Status != 0 || a.Error == "" {
					t.Errorf("status of the target = %d (%s), want none", a.Status, a.Error)
				}
			}
		}
		wantClosed(t, pool, 6)
		r := f.Do(t.Context(), decode(t, `{"url":"http://odder.test/","method":"POST"}`), &jobs.Progress{}).Result
		if r.Outcome != jobs.Succeeded {
			t.Errorf("a job for another site: %s %s", r.Outcome, r.Error)
		}
	})
}

func TestAPostWhose407MayBeTheTargetsIsNotSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var posts atomic.Int64
		f, _, done := crowd(t, 6, func(_, host string) string {
			if host == "odd.test" {
				posts.Add(1)
				return "407 Proxy Authentication Required"
			}
			return "200 OK"
		})
		defer done()
		r := toTheEnd(t, f, decode(t, `{"url":"http://odd.test/","method":"POST"}`))
		if r.Error != jobs.ErrAttemptsExhausted || posts.Load() != 1 {
			t.Errorf("ended as %q, sent %d times, want attempts_exhausted after one", r.Error, posts.Load())
		}
	})
}

func TestAPostThatAProxyRefusedGoesToAnother(t *testing.T) {
	for _, target := range []string{"http://shop.test", "https://example.com"} {
		r := newRig(t, nil)
		r.use(r.proxy(testenv.Unauthorized, nil).URL("http")+" id=a", r.proxy(testenv.Good, nil).URL("http")+" id=b")
		for range 2 {
			if o := r.do(`{"url":"` + target + `/echo","method":"POST","body":"x"}`); o.Result.Outcome != jobs.Succeeded {
				t.Errorf("%s: %s %s after %d attempts (%s)", target, o.Result.Outcome, o.Result.Error, o.Result.AttemptCount, o.Result.Detail)
			}
		}
	}
}

// Credentials have run out: the proxy worked until now and refuses everything, and the others do not.
func TestAProxyThatWantsOtherCredentialsForEveryHostOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, pool, done := crowd(t, 4, func(proxy, host string) string {
			if strings.HasPrefix(host, "site") && proxy == "p0" {
				return "407 Proxy Authentication Required"
			}
			return "200 OK"
		})
		defer done()
		for i := range 400 {
			f.Do(t.Context(), decode(t, fmt.Sprintf(`{"url":"http://site%d.test/","retry":{"max_attempts":1}}`, i%39)), &jobs.Progress{})
			time.Sleep(100 * time.Millisecond)
		}
		for id, state := range pool.States() {
			if open := state != breaker.Closed; open != (id == "p0") {
				t.Errorf("after p0 refused all of its hosts %s is %s, want p0 open and the others closed", id, state)
			}
		}
	})
}

// Publishers choose what proxies are asked for, and every proxy may refuse such things.
func TestHostsThatEveryProxyRefusesOpenNone(t *testing.T) {
	for _, n := range []int{1, 2, 6} {
		synctest.Test(t, func(t *testing.T) {
			f, pool, done := crowd(t, n, func(_, host string) string {
				if strings.HasPrefix(host, "site") {
					return "403 Forbidden"
				}
				return "200 OK"
			})
			defer done()
			for i := range 100 {
				f.Do(t.Context(), decode(t, fmt.Sprintf(`{"url":"https://site%d.test:25/","retry":{"max_attempts":3}}`, i)), &jobs.Progress{})
			}
			wantClosed(t, pool, n)
		})
	}
}

func TestAProxyThatRefusesSomeHostsStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, pool, done := crowd(t, 1, func(_, host string) string {
			if strings.HasPrefix(host, "site") {
				return "403 Forbidden"
			}
			return "200 OK"
		})
		defer done()
		for i := range 60 {
			toTheEnd(t, f, decode(t, fmt.Sprintf(`{"url":"https://site%d.test/","retry":{"max_attempts":1}}`, i)))
			toTheEnd(t, f, decode(t, "http://good.test/"))
		}
		wantClosed(t, pool, 1)
	})
}

func TestWhatARedirectsTargetAsksForIsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _, done := crowd(t, 1, func(_, host string) string {
			switch host {
			case "short.test":
				return "302 Found\r\nLocation: http://shop.test/"
			case "shop.test":
				return "429 Too Many Requests\r\nRetry-After: 800"
			}
			return "200 OK"
		})
		defer done()
		if o := f.Do(t.Context(), decode(t, "http://short.test/"), &jobs.Progress{}); o.Kind != jobs.RunScheduled || len(o.Progress.Attempts) != 1 {
			t.Fatalf("kind %d, %+v, want it to wait for its retry", o.Kind, o.Progress.Attempts)
		}
		o := f.Do(t.Context(), decode(t, `{"url":"http://short.test/","follow_redirects":0}`), &jobs.Progress{})
		if o.Result.Status != http.StatusFound {
			t.Errorf("the site that redirected, and asked for nothing: kind %d, %s", o.Kind, o.Result.Error)
		}
		if o := f.Do(t.Context(), decode(t, "http://shop.test/"), &jobs.Progress{}); o.Kind != jobs.RunScheduled || !o.NoProxy {
			t.Errorf("the site that asked for 800 s was fetched: kind %d, %d", o.Kind, o.Result.Status)
		}
	})
}

func TestADeadSiteBehindAShortenerOpensNoProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, pool, done := crowd(t, 6, func(_, host string) string {
			switch host {
			case "short.test":
				return "302 Found\r\nLocation: https://dead.test/"
			case "dead.test":
				return "502 Bad Gateway"
			}
			return "200 OK"
		})
		defer done()
		for range 120 {
			toTheEnd(t, f, decode(t, `{"url":"http://short.test/","retry":{"max_attempts":1}}`))
			toTheEnd(t, f, decode(t, `{"url":"http://short.test/","follow_redirects":0}`))
			toTheEnd(t, f, decode(t, "http://good.test/"))
		}
		wantClosed(t, pool, 6)
	})
}

func TestASilentProxyOpensThoughJobsAreInAHurry(t *testing.T) {
	for name, bound := range map[string]string{"retry.timeout": `"retry":{"timeout":3}`, "timeout": `"timeout":3`} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var broken atomic.Bool
				f, pool, done := crowd(t, 2, func(proxy, host string) string {
					if broken.Load() && proxy == "p0" && host != "" {
						time.Sleep(time.Hour)
					}
					return "200 OK"
				})
				defer done()
				broken.Store(true)
				for range 150 {
					f.Do(t.Context(), decode(t, `{"url":"http://good.test/",`+bound+`}`), &jobs.Progress{})
				}
				if s, _ := pool.StatusOf("p0"); s.State != breaker.Open {
					t.Errorf("it is %s with %d failures", s.State, s.Failures)
				}
			})
		})
	}
}

func TestAJobWhoseTimeNoProxyCanMeetOpensNone(t *testing.T) {
	for name, bound := range map[string]string{"retry.timeout": `"retry":{"timeout":0.1}`, "timeout": `"timeout":0.1`} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, pool, done := crowd(t, 4, func(_, host string) string {
					if host == "" {
						time.Sleep(150 * time.Millisecond) // the way to the proxy
					}
					return "200 OK"
				})
				defer done()
				for i := range 20 { // sites that nobody has heard of: a failure there would be held against the proxy
					f.Do(t.Context(), decode(t, fmt.Sprintf(`{"url":"https://site%d.test/",%s}`, i, bound)), &jobs.Progress{})
					toTheEnd(t, f, decode(t, "http://good.test/"))
				}
				wantClosed(t, pool, 4)
			})
		})
	}
}

func TestALargePageDoesNotHideWhatItsStatusSays(t *testing.T) {
	page := "\r\nContent-Length: 5000\r\n\r\n" + strings.Repeat("x", 5000)
	for _, says := range []string{"503 Busy", "403 Forbidden", "407 Proxy Authentication Required"} {
		r := newRig(t, nil)
		r.use(r.replies("HTTP/1.1 "+says+page)+" id=a", r.replies("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")+" id=b")
		for range 2 {
			o := r.do(`{"url":"http://shop.test/","max_body_bytes":1000,"ban":{"statuses":[403]}}`)
			if o.Result.Outcome != jobs.Succeeded {
				t.Errorf("%s: %s %s after %d attempts, want the other proxy to be tried", says, o.Result.Outcome, o.Result.Error, o.Result.AttemptCount)
			}
		}
	}
}

// A publisher chooses the URL, so one page that answers 407 must keep no other job for its site waiting.
func TestAPageThatSays407KeepsNoOtherJobOfItsSiteWaiting(t *testing.T) {
	for _, scheme := range []string{"http", "socks5"} {
		synctest.Test(t, func(t *testing.T) {
			const proxies = 6
			var odd atomic.Bool // the page that is asked for answers 407
			f, pool, done := crowdOf(t, scheme, proxies, func(_, host string) string {
				if host == "shop.test" && odd.Load() {
					return "407 Proxy Authentication Required"
				}
				return "200 OK"
			})
			defer done()
			odd.Store(true)
			if r := toTheEnd(t, f, decode(t, `{"url":"http://shop.test/odd","retry":{"max_attempts":6}}`)); r.Error != jobs.ErrAttemptsExhausted || len(r.Attempts) != proxies {
				t.Fatalf("the page that answers 407 ended as %s %q after %d attempts, want one through each proxy", r.Outcome, r.Error, len(r.Attempts))
			}
			odd.Store(false)
			for i := range 2 * proxies {
				o := f.Do(t.Context(), decode(t, "http://shop.test/ok"), &jobs.Progress{})
				if o.Kind != jobs.RunFinished || o.Result.Outcome != jobs.Succeeded || len(o.Result.Attempts) != 1 {
					t.Fatalf("%s: job %d for another page of the site: kind %d, %s %q, want its answer at once", scheme, i, o.Kind, o.Result.Outcome, o.Result.Detail)
				}
			}
			wantClosed(t, pool, proxies)
		})
	}
}

// A proxy may serve some sites only. Each job of a publisher with a rule of its own would lose an attempt through it.
func TestAProxyThatSays407ForASiteIsUsedLastByEveryJob(t *testing.T) {
	for _, rule := range []string{"", `,"ban":{"statuses":[]}`, `,"ban":{"statuses":[451]}`} {
		synctest.Test(t, func(t *testing.T) {
			var refused atomic.Int64
			f, _, done := crowd(t, 6, func(proxy, host string) string {
				if host == "shop.test" && proxy != "p5" {
					refused.Add(1)
					return "407 Proxy Authentication Required"
				}
				return "200 OK"
			})
			defer done()
			for range 40 {
				for _, site := range []string{"shop", "good"} { // so that round_robin begins anywhere
					f.Do(t.Context(), decode(t, `{"url":"http://`+site+`.test/","retry":{"max_attempts":6}`+rule+`}`), &jobs.Progress{})
				}
			}
			if refused.Load() != 5 {
				t.Errorf("rule %q: %d attempts ended with 407, want one through each of the five proxies", rule, refused.Load())
			}
		})
	}
}
