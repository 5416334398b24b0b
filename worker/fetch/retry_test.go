package fetch_test

import (
	"encoding/json"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
)

// TestRetriesKeepToThePolicy runs a job whose attempts end as drawn, through its waits and parkings to its end, and goes through
// what was seen: no more attempts than allowed, whatever number of runs they are spread over; a final answer ends the job,
// and what may have arrived is not sent again unless that is allowed; each wait is the policy's, within its cap, or what the
// target asked for if that is longer, or none when another proxy may be tried at once; a proxy that failed the job is not
// used again while another one can be; no attempt starts early, and none after the deadline or the job's time; and each
// retry is announced, with its true wait.
func TestRetriesKeepToThePolicy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for range 10 {
			rapid.SyncTest(t, func(t *rapid.T) { newTrial(t).run(t) })
		}
	})
}

// trial is a job, the policy that it meets, and the network that plays its attempts.
type trial struct {
	script
	job     jobs.Job
	policy  jobs.Policy
	proxies int
	began   time.Time
	ended   time.Time
	rests   map[string]time.Time // until when a proxy rests for the host
}

func newTrial(t *rapid.T) *trial {
	c := &trial{proxies: rapid.IntRange(1, 5).Draw(t, "proxies"), rests: map[string]time.Time{}, began: time.Now()}
	most := 10
	if c.proxies > 2 {
		most = c.proxies // three proxies that work and then fail would be a failure of the pool, another test's matter
	}
	c.policy = drawPolicy(t, most)
	for range c.policy.MaxAttempts {
		c.acts = append(c.acts, act{
			do: rapid.SampledFrom([]deed{
				refuses, refuses, hangsUp, hangsUp, silent, banned, timedOut, timedOut, tooMany, tooMany, tooMany, noAnswer, noAnswer, busy, busy, busy, good, notFound, broken, around, large,
			}).Draw(t, "act"),
			after:      rapid.SampledFrom([]time.Duration{0, 70 * time.Millisecond, 20 * time.Second}).Draw(t, "after"),
			retryAfter: rapid.SampledFrom([]string{"", "0", "-1", "soon", "1", "2", "3", "120", "86400"}).Draw(t, "Retry-After"),
		})
	}
	words := map[string]any{
		"url": "http://shop.test/", "ban": map[string]any{"statuses": []int{403}}, "method": rapid.SampledFrom([]string{"GET", "GET", "POST"}).Draw(t, "method"),
	}
	if rapid.IntRange(0, 3).Draw(t, "hurried") == 0 {
		left := rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, 10 * time.Second, time.Hour}).Draw(t, "deadline")
		words["deadline"] = c.began.Add(left + oddly).UTC().Format(time.RFC3339Nano)
	}
	payload, err := json.Marshal(words)
	if err != nil {
		t.Fatal(err)
	}
	if c.job, err = jobs.Decode("default", "j", payload); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *trial) run(t *rapid.T) {
	f, pool := c.fetcher(c.proxies, rapid.SampledFrom([]rotation.Strategy{rotation.RoundRobin, rotation.Random, rotation.LeastUsed}).Draw(t, "strategy"), c.policy)
	o := &jobs.RunOutcome{Kind: jobs.RunScheduled}
	for o.Kind == jobs.RunScheduled {
		time.Sleep(time.Until(o.At))
		if o = f.Do(t.Context(), &c.job, &o.Progress); o.Kind == jobs.RunScheduled && !o.NoProxy {
			c.parked(t, o)
		}
	}
	c.ended = time.Now()
	f.Close()
	c.wg.Wait()
	for _, s := range pool.Status() {
		if s.Inflight != 0 {
			t.Fatalf("%s has %d attempts under way after the job", s.ID, s.Inflight)
		}
	}
	c.audit(t, o.Result)
}

// parked checks that a job is put aside only as was announced.
func (c *trial) parked(t *rapid.T, o *jobs.RunOutcome) {
	if last := c.events[len(c.events)-1]; last.Kind != jobs.RetryScheduled || !last.NextAttemptAt.Equal(o.At) {
		t.Fatalf("parked until %v, announced was %+v", o.At, last)
	}
}

// audit goes through the attempts from the first to the last.
func (c *trial) audit(t *rapid.T, r jobs.Result) {
	earliest := c.began
	for i, a := range c.attempts {
		c.place(t, i, earliest)
		end := a.StartedAt.Add(a.Duration.Std())
		if until := end.Add(c.acts[i].rest()); until.After(end) && end.Before(c.bound()) {
			c.rests[a.Proxy] = until
		}
		code, wait := c.sentence(i, end)
		if i == len(c.events) && wait[0] < wait[1] && c.late(end.Add(wait[1])) != "" && (r.Error == jobs.ErrExpired || r.Error == jobs.ErrTimedOut) {
			code = r.Error // jitter drew a wait that would have been too long, perhaps for both bounds
		}
		if code != again {
			c.mustEnd(t, i, r, code, end)
			if c.job.Method == "POST" && !c.policy.RetryNonIdempotent && c.posts.Load() > 1 {
				t.Fatalf("a POST was sent %d times", c.posts.Load())
			}
			return
		}
		earliest = c.announced(t, i, end, wait)
	}
	// The next attempt found no proxy until its time was over.
	if c.late(earliest.Add(15*time.Minute)) == "" || r.Error != c.cut() || c.usable(earliest) > 0 {
		t.Fatalf("ended as %q after %d attempts, with %d proxies usable at %v", r.Error, len(c.attempts), c.usable(earliest), earliest)
	}
}

// place checks where and when an attempt was made.
func (c *trial) place(t *rapid.T, i int, earliest time.Time) {
	a := c.attempts[i]
	if a.Attempt != i+1 || a.StartedAt.Before(earliest) || c.usable(earliest) > 0 && !a.StartedAt.Equal(earliest) {
		t.Fatalf("attempt %d has number %d and began at %v, want %v", i+1, a.Attempt, a.StartedAt, earliest)
	}
	if c.rests[a.Proxy].After(a.StartedAt) {
		t.Fatalf("attempt %d went through %s, which rests", i+1, a.Proxy)
	}
	if c.failed(i, a.Proxy) && c.usable(a.StartedAt, c.attempts[:i]...) > 0 {
		t.Fatalf("attempt %d went through %s again, although another proxy could be used", i+1, a.Proxy)
	}
}

// failed reports whether one of the first attempts failed through a proxy.
func (c *trial) failed(attempts int, id string) bool {
	return slices.ContainsFunc(c.attempts[:attempts], func(a jobs.Attempt) bool { return a.Proxy == id })
}

// usable is how many proxies do not rest, without those of some attempts.
func (c *trial) usable(at time.Time, without ...jobs.Attempt) (n int) {
	for i := range c.proxies {
		id := "p" + string(rune('0'+i))
		if !c.rests[id].After(at) && !slices.ContainsFunc(without, func(a jobs.Attempt) bool { return a.Proxy == id }) {
			n++
		}
	}
	return n
}

// again is the sentence that another attempt follows.
const again = "again"

// sentence is how the job ends with attempt i, or what wait follows: the least and the most.
func (c *trial) sentence(i int, end time.Time) (code string, wait [2]time.Duration) {
	a := c.acts[i]
	switch {
	case !end.Before(c.bound()):
		return c.cut(), wait
	case a.do == around:
		return jobs.ErrTooManyRedirects, wait
	case a.do == large:
		return jobs.ErrBodyTooLarge, wait
	case !a.again():
		return "", wait
	case c.job.Method == "POST" && !c.policy.RetryNonIdempotent && a.do != refuses, i+1 == c.policy.MaxAttempts:
		return jobs.ErrAttemptsExhausted, wait
	case a.failover() && c.usable(end, c.attempts[:i+1]...) > 0:
	default:
		wait = [2]time.Duration{c.backoff(i + 1), c.backoff(i + 1)}
		if c.policy.Jitter {
			wait[0] = 0
		}
		wait = [2]time.Duration{max(wait[0], a.hint()), max(wait[1], a.hint())}
	}
	if late := c.late(end.Add(wait[0])); late != "" {
		return late, wait
	}
	return again, wait
}

// backoff is the n-th wait of the policy before jitter.
func (c *trial) backoff(n int) time.Duration {
	d := c.policy.BaseDelay.Std().Seconds()
	for i := 1; i < n; i++ {
		switch c.policy.BackoffStrategy {
		case jobs.Exponential:
			d *= c.policy.Multiplier
		case jobs.Linear:
			d += c.policy.BaseDelay.Std().Seconds()
		}
	}
	return time.Duration(math.Min(d, c.policy.MaxBackoffDelay.Std().Seconds()) * float64(time.Second))
}

// bound is when the job's time is over.
func (c *trial) bound() time.Time {
	at := c.began.Add(1000 * time.Hour)
	if !c.job.Deadline.IsZero() {
		at = c.job.Deadline
	}
	if timeout := c.began.Add(c.policy.Timeout.Std()); c.policy.Timeout > 0 && timeout.Before(at) {
		at = timeout
	}
	return at
}

// cut is the code of an attempt that meets the bound.
func (c *trial) cut() string {
	if c.bound().Equal(c.job.Deadline) {
		return jobs.ErrExpired
	}
	return jobs.ErrTimedOut
}

// late is the code of a job for which no attempt may start any more at a time.
func (c *trial) late(at time.Time) string {
	switch {
	case !c.job.Deadline.IsZero() && !at.Before(c.job.Deadline):
		return jobs.ErrExpired
	case c.policy.Timeout > 0 && !at.Before(c.began.Add(c.policy.Timeout.Std())):
		return jobs.ErrTimedOut
	}
	return ""
}

// mustEnd checks that the job ended with attempt i, at once.
func (c *trial) mustEnd(t *rapid.T, i int, r jobs.Result, code string, end time.Time) {
	if r.Error != code || r.AttemptCount != i+1 || len(c.attempts) != i+1 || len(c.events) != i || !c.ended.Equal(end) {
		t.Fatalf("ended as %q at %v after %d attempts and %d announcements, want %q at %v after %d and %d", r.Error, c.ended, r.AttemptCount, len(c.events), code, end, i+1, i)
	}
	if code == "" && (r.Outcome != jobs.Succeeded || r.Status != c.attempts[i].Status) {
		t.Fatalf("outcome %s with status %d, want succeeded with %d", r.Outcome, r.Status, c.attempts[i].Status)
	}
}

// announced checks what was said of the retry after attempt i, and returns when the next attempt may start.
func (c *trial) announced(t *rapid.T, i int, end time.Time, wait [2]time.Duration) time.Time {
	const exact = time.Microsecond // the model's floating point is not the policy's
	if i >= len(c.events) {
		t.Fatalf("the retry after attempt %d was not announced", i+1)
	}
	e := c.events[i]
	kind := jobs.RetryInline
	if e.Delay.Std() > 2*time.Second {
		kind = jobs.RetryScheduled
	}
	switch d := e.Delay.Std(); {
	case d < wait[0]-exact || d > wait[1]+exact:
		t.Fatalf("wait %d was %v, want %v", i+1, d, wait)
	case e.Attempt != i+1 || e.MaxAttempts != c.policy.MaxAttempts || e.Proxy != c.attempts[i].Proxy || e.Kind != kind:
		t.Fatalf("announcement %d: %+v", i+1, e)
	case !e.At.Equal(end) || !e.NextAttemptAt.Equal(end.Add(d)) || c.late(e.NextAttemptAt) != "":
		t.Fatalf("announcement %d at %v: %+v, want the wait to begin then and end in time", i+1, end, e)
	}
	return e.NextAttemptAt
}
