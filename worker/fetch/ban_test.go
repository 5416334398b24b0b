package fetch_test

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// withBody is an answer with a body.
func withBody(status, body string) string {
	return fmt.Sprintf("%s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
}

// wantAnswer checks that a job succeeded with an answer, and after how many attempts.
func wantAnswer(t *testing.T, what string, r jobs.Result, status, attempts int, body string) {
	t.Helper()
	if r.Outcome != jobs.Succeeded || r.Status != status || r.AttemptCount != attempts || string(r.Body) != body {
		t.Errorf("%s: %s %s, status %d after %d attempts with %q; want succeeded, %d after %d with %q",
			what, r.Outcome, r.Error, r.Status, r.AttemptCount, r.Body, status, attempts, body)
	}
}

func TestAJobThatOneProxyIsBannedForGoesThroughAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _, done := crowd(t, 12, func(proxy, host string) string {
			if proxy == "p3" && host == "shop.test" {
				return withBody("403 Forbidden", "go away")
			}
			return withBody("200 OK", "hello")
		})
		defer done()
		total := 0
		for range 120 {
			r := toTheEnd(t, f, decode(t, `http://shop.test/`))
			if r.Status != http.StatusOK || r.Outcome != jobs.Succeeded {
				t.Fatalf("%s %s, status %d, want 200 through another proxy", r.Outcome, r.Error, r.Status)
			}
			total += r.AttemptCount
		}
		if total != 121 {
			t.Errorf("%d attempts for 120 jobs, want one more: p3 is used last from then on", total)
		}
	})
}

// A page may be forbidden to all.
func TestAPageThatIsForbiddenToAllCostsOneAttemptOnceEveryProxyHasMetIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _, done := crowd(t, 4, func(_, host string) string {
			if host == "shop.test" {
				return withBody("403 Forbidden", "members only")
			}
			return "200 OK"
		})
		defer done()
		for _, attempts := range []int{3, 1, 1, 1} {
			wantAnswer(t, "forbidden to all", toTheEnd(t, f, decode(t, `http://shop.test/`)), 403, attempts, "members only")
		}
	})
}

func TestABanIsTheResultWhereNoOtherProxyCanBeUsed(t *testing.T) {
	for name, c := range map[string]struct {
		proxies int
		job     string
	}{
		"a pool of one":     {1, `{"url":"http://shop.test/"}`},
		"a job for a proxy": {3, `{"url":"http://shop.test/","proxy":{"id":"p1"}}`},
		"a POST":            {3, `{"url":"http://shop.test/","method":"POST","body":"x"}`},
		"one attempt":       {3, `{"url":"http://shop.test/","retry":{"max_attempts":1}}`},
		"a rule without":    {3, `{"url":"http://shop.test/","ban":{}}`},
		"no statuses":       {3, `{"url":"http://shop.test/","ban":{"statuses":[]}}`},
	} {
		synctest.Test(t, func(t *testing.T) {
			f, _, done := crowd(t, c.proxies, func(_, host string) string {
				if host == "shop.test" {
					return withBody("403 Forbidden", "no")
				}
				return "200 OK"
			})
			defer done()
			for range 2 {
				wantAnswer(t, name, toTheEnd(t, f, decode(t, c.job)), 403, 1, "no")
			}
		})
	}
}

func TestABanIsTheResultIfLaterAttemptsBringNone(t *testing.T) {
	for name, c := range map[string]struct {
		job, later string // what the others answer; empty hangs up, "silent" says nothing
		succeeds   bool
	}{
		"hang up":                   {`{"url":"http://shop.test/"}`, "", true},
		"silence":                   {`{"url":"http://shop.test/","timeout":3}`, "silent", true},
		"retry.timeout":             {`{"url":"http://shop.test/","retry":{"timeout":10}}`, "silent", true},
		"a wait too long to be had": {`{"url":"http://shop.test/","retry":{"base_delay":60,"max_backoff_delay":60,"jitter":false}}`, "503 Service Unavailable", true},
		"an answer that failed":     {`{"url":"http://shop.test/","retry":{"base_delay":0.1}}`, "503 Service Unavailable", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first := ""
				f, _, done := crowd(t, 3, func(proxy, host string) string {
					if host != "shop.test" {
						return "200 OK"
					}
					if first == "" {
						first = proxy
					}
					switch {
					case proxy == first:
						return withBody("403 Forbidden", "no")
					case c.later == "silent":
						time.Sleep(time.Hour)
					}
					return c.later
				})
				defer done()
				r := toTheEnd(t, f, decode(t, c.job))
				if !c.succeeds {
					if r.Error != jobs.ErrAttemptsExhausted || r.Status != http.StatusServiceUnavailable {
						t.Errorf("%s %s, status %d; want attempts_exhausted with the last answer", r.Outcome, r.Error, r.Status)
					}
					return
				}
				if r.Outcome != jobs.Succeeded || r.Status != http.StatusForbidden || string(r.Body) != "no" || r.AttemptCount < 2 {
					t.Errorf("%s %s, status %d after %d attempts; want the 403 after more than one", r.Outcome, r.Error, r.Status, r.AttemptCount)
				}
			})
		})
	}
}

// A worker that drains has no message for the answer, and so it ends the job.
func TestAStoppedJobKeepsItsBan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := ""
		f, _, done := crowd(t, 3, func(proxy, host string) string {
			switch {
			case host != "shop.test":
				return "200 OK"
			case first == "" || first == proxy:
				first = proxy
				return withBody("403 Forbidden", "no")
			}
			time.Sleep(time.Hour)
			return ""
		})
		defer done()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		o := f.Do(ctx, decode(t, `http://shop.test/`), &jobs.Progress{})
		if o.Kind != jobs.RunFinished {
			t.Fatalf("kind %d, want a result", o.Kind)
		}
		wantAnswer(t, "stopped", o.Result, 403, 1, "no")
	})
}

// One publisher calls every answer a ban. The jobs of others do not notice.
func TestTheRuleOfOnePublisherHoldsForNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, pool, done := crowd(t, 10, func(_, _ string) string { return "200 OK" })
		defer done()
		for range 5 {
			f.Do(t.Context(), decode(t, `{"url":"http://good.test/x","ban":{"statuses":[200]},"retry":{"max_attempts":10}}`), &jobs.Progress{})
		}
		if o := f.Do(t.Context(), decode(t, `{"url":"http://good.test/x","ban":{"statuses":[200]}}`), &jobs.Progress{}); !o.NoProxy {
			t.Errorf("a job of the same rule: kind %d, want that it waits for a proxy", o.Kind)
		}
		for _, job := range []string{`{"url":"http://good.test/"}`, `{"url":"http://good.test/","ban":{"statuses":[403]}}`} {
			for range 20 {
				wantAnswer(t, job, f.Do(t.Context(), decode(t, job), &jobs.Progress{}).Result, 200, 1, "")
			}
		}
		wantClosed(t, pool, 10)
	})
}

func TestAnAnswerIsABanByTheMemberThatMatches(t *testing.T) {
	for _, c := range []struct {
		ban, answer string
		method      string
		want        bool
	}{
		{ban: `{"statuses":[302]}`, answer: "302 Found\r\nLocation: http://other.test/", want: true},
		{ban: `{"redirect_to_regexp":"^http://other.test/blocked"}`, answer: "302 Found\r\nLocation: //other.test/blocked", want: true},
		{ban: `{"redirect_to_regexp":"^http://other.test/blocked"}`, answer: "302 Found\r\nLocation: http://other.test/welcome"},
		{ban: `{"redirect_to_regexp":"blocked"}`, answer: "302 Found\r\nLocation: /blocked", method: "HEAD", want: true},
		{ban: `{"min_bytes":6}`, answer: withBody("200 OK", "short"), want: true},
		{ban: `{"min_bytes":5}`, answer: withBody("200 OK", "short")},
		{ban: `{"min_bytes":5}`, answer: "200 OK", method: "HEAD"},
		{ban: `{"min_bytes":5}`, answer: "204 No Content"},
		{ban: `{"not_body_regexp":"</html>"}`, answer: withBody("200 OK", "<html>"), want: true},
		{ban: `{"not_body_regexp":"</html>"}`, answer: withBody("200 OK", "</html>")},
		{ban: `{"not_body_regexp":"</html>"}`, answer: "304 Not Modified"},
		{ban: `{"not_body_regexp":"x","statuses":[304]}`, answer: "304 Not Modified", want: true},
		{ban: `{"redirect_to_regexp":"blocked","statuses":[]}`, answer: withBody("403 Forbidden", "")},
	} {
		for _, redirects := range []int{0, 10} {
			synctest.Test(t, func(t *testing.T) {
				f, _, done := crowd(t, 3, func(_, host string) string {
					if host == "shop.test" {
						return c.answer
					}
					return "200 OK"
				})
				defer done()
				job := fmt.Sprintf(`{"url":"http://shop.test/","method":%q,"follow_redirects":%d,"ban":%s}`, cmp.Or(c.method, "GET"), redirects, c.ban)
				r := toTheEnd(t, f, decode(t, job))
				if got := r.Error == jobs.ErrAttemptsExhausted; got != c.want || !got && r.Outcome != jobs.Succeeded {
					t.Errorf("%s of %q: %s %s (%s), want a ban: %v", job, strings.Fields(c.answer)[0], r.Outcome, r.Error, r.Detail, c.want)
				}
			})
		}
	}
}

// The list is the policy's, and holds before a redirect is followed. A retry that would have to wait elsewhere is not announced:
// the job ends with the ban.
func TestTheFleetsListIsThatOfThePolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var served sync.WaitGroup
		banned := ""
		status := func(proxy, host string) string {
			switch {
			case host == "":
				return "200 OK"
			case banned == "" || banned == proxy:
				banned = proxy
				return "302 Found\r\nLocation: http://other.test/"
			}
			return "503 Service Unavailable"
		}
		list, err := proxylist.ParseList(strings.NewReader("http://p0.test:80 id=p0\nhttp://p1.test:80 id=p1\n"))
		if err != nil {
			t.Fatal(err)
		}
		pool := rotation.New(rotation.Config{})
		pool.Replace(list)
		policy := jobs.DefaultPolicy()
		policy.BanStatusCodes, policy.BaseDelay, policy.Jitter = []int{302}, jobs.Duration(time.Minute), false
		var announced []jobs.RetryEvent
		f := fetch.New(fetch.Config{
			Pool: pool, Policy: func() jobs.Policy { return policy }, Dial: memory(&served, status),
			Observer: fetch.Observer{RetryPlanned: func(e jobs.RetryEvent) { announced = append(announced, e) }},
		})
		defer served.Wait()
		defer f.Close()
		wantAnswer(t, "302 is a ban", f.Do(t.Context(), decode(t, `http://shop.test/`), &jobs.Progress{}).Result, 302, 2, "")
		if len(announced) != 1 || announced[0].Delay != 0 || announced[0].Fault != jobs.FaultPair {
			t.Errorf("announced: %+v, want only the retry through the other proxy", announced)
		}
	})
}

// TestABlockPageThatIsTooLargeIsABanAllTheSame has one proxy that gets a large 403, and others that get the page.
func TestABlockPageThatIsTooLargeIsABanAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _, done := crowd(t, 4, func(proxy, host string) string {
			if proxy == "p1" && host == "shop.test" {
				return withBody("403 Forbidden", strings.Repeat("x", 5000))
			}
			return withBody("200 OK", "hello")
		})
		defer done()
		for range 12 {
			r := toTheEnd(t, f, decode(t, `{"url":"http://shop.test/","max_body_bytes":1000}`))
			if r.Outcome != jobs.Succeeded || r.Status != http.StatusOK || string(r.Body) != "hello" {
				t.Fatalf("%s %s, status %d, want the page through another proxy", r.Outcome, r.Error, r.Status)
			}
		}
	})
}

func TestABlockPageThatIsTooLargeEndsAJobThatNoOtherProxyServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _, done := crowd(t, 1, func(_, host string) string {
			if host == "shop.test" {
				return withBody("403 Forbidden", strings.Repeat("x", 5000))
			}
			return "200 OK"
		})
		defer done()
		r := toTheEnd(t, f, decode(t, `{"url":"http://shop.test/","max_body_bytes":1000}`))
		if r.Outcome != jobs.Failed || r.Error != jobs.ErrBodyTooLarge || r.AttemptCount != 1 {
			t.Errorf("%s %s after %d attempts, want body_too_large after one", r.Outcome, r.Error, r.AttemptCount)
		}
	})
}

// TestABanIsTheResultIfTheLastAnswerIsCutOff has a first proxy that is banned, and others whose answers end too early.
func TestABanIsTheResultIfTheLastAnswerIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		first := ""
		f, _, done := crowd(t, 4, func(proxy, host string) string {
			mu.Lock()
			defer mu.Unlock()
			if host != "shop.test" {
				return "200 OK"
			}
			if first = cmp.Or(first, proxy); proxy == first {
				return withBody("403 Forbidden", "go away")
			}
			return "200 OK\r\nConnection: close\r\nContent-Length: 100\r\n\r\ncut"
		})
		defer done()
		wantAnswer(t, "cut off", toTheEnd(t, f, decode(t, `http://shop.test/`)), 403, 3, "go away")
	})
}
