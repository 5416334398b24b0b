package fetch_test

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// nothings is a small body in three layers of gzip that takes long to decode and comes to nothing: members without data.
func nothings(t *testing.T) string {
	t.Helper()
	nothing := squeeze(t, "", "gzip")
	return squeeze(t, strings.Repeat(squeeze(t, strings.Repeat(nothing, 1<<20/len(nothing)), "gzip"), 1000), "gzip")
}

// TestEveryBoundHoldsInEveryStage has a fetch that would go on for long, and each of the bounds that end one.
func TestEveryBoundHoldsInEveryStage(t *testing.T) {
	const bound = 100 * time.Millisecond
	decoding := nothings(t)
	page := func(body, encoding string) string {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n%s", encoding, len(body), body)
	}
	answer := func(text string) func(*rig) {
		return func(r *rig) { r.use(r.replies(text) + " id=p") }
	}
	silent := func(r *rig) {
		r.use("http://" + r.script(func(_ int64, c net.Conn) { _, _ = io.Copy(io.Discard, c) }).String() + " id=p")
	}
	for stage, c := range map[string]struct {
		url, ban string
		setUp    func(*rig)
	}{
		"dial":    {url: "http://shop.test/", setUp: func(r *rig) { r.use("http://silent.test:80 id=p") }},
		"connect": {url: "https://example.com/", setUp: silent},
		"wait":    {url: "http://shop.test/", setUp: silent},
		"tls": {url: "https://example.com/", setUp: func(r *rig) {
			r.use("http://" + r.script(func(_ int64, c net.Conn) {
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
					_, _ = io.Copy(io.Discard, c)
				}
			}).String() + " id=p")
		}},
		"read": {url: "http://shop.test/", setUp: func(r *rig) {
			r.use("http://" + r.script(func(_ int64, c net.Conn) {
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx")
					_, _ = io.Copy(io.Discard, c)
				}
			}).String() + " id=p")
		}},
		"decode": {url: "http://shop.test/", setUp: answer(page(decoding, "gzip, gzip, gzip"))},
		"match":  {url: "http://shop.test/", ban: "(?:(x|a{1,300})b?){3}c", setUp: answer(page(strings.Repeat("a", 1<<20), "identity"))},
	} {
		for name, b := range map[string]struct {
			job   string
			cause error
			kind  jobs.RunKind
			err   string
		}{
			"timeout":       {job: `"timeout":0.1,"retry":{"max_attempts":1}`, err: jobs.ErrAttemptsExhausted},
			"retry.timeout": {job: `"retry":{"timeout":0.1}`, err: jobs.ErrTimedOut},
			"deadline":      {job: `"deadline":"` + time.Now().Add(time.Hour).Format(time.RFC3339Nano) + `"`, err: jobs.ErrExpired},
			"cancel":        {cause: jobs.ErrJobCancelled, err: jobs.ErrCancelled},
			"drain":         {cause: jobs.ErrStopping, kind: jobs.RunStopped},
			"lost lease":    {cause: jobs.ErrLeaseLost, kind: jobs.RunLeaseLost},
		} {
			t.Run(stage+", "+name, func(t *testing.T) {
				r := newRig(t, func(cfg *fetch.Config) {
					cfg.MaxBodyBytes = 1 << 30
					dialer := net.Dialer{}
					cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
						if addr == "silent.test:80" {
							<-ctx.Done()
							return nil, ctx.Err()
						}
						return dialer.DialContext(ctx, network, addr)
					}
				})
				c.setUp(r)
				began := time.Now()
				job := decode(t, fmt.Sprintf(`{"url":%q,"ban":{"body_regexp":%q}%s}`, c.url, c.ban, strings.TrimSuffix(","+b.job, ",")))
				if name == "deadline" {
					job.Deadline = time.Now().Add(bound)
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if b.cause != nil {
					defer time.AfterFunc(bound, func() { cancel(b.cause) }).Stop()
				}
				o := r.f.Do(ctx, job, &jobs.Progress{})
				// It holds within a second. This machine may be busy, and unbound all of them would take far longer.
				if took := time.Since(began); took < bound-time.Millisecond || took > 20*time.Second {
					t.Errorf("it took %v, want little more than %v", took, bound)
				}
				if o.Kind != cmp.Or(b.kind, jobs.RunFinished) || o.Result.Error != b.err {
					t.Errorf("kind %d, %q (%s); want %d, %q", o.Kind, o.Result.Error, o.Result.Detail, b.kind, b.err)
				}
				if name == "timeout" && r.reasons[len(r.reasons)-1] != "timeout" && stage != "dial" {
					t.Errorf("reason %q, want timeout", r.reasons[len(r.reasons)-1])
				}
				if name == "timeout" && stage == "match" {
					wantNobodysFault(t, o.Result.Attempts[0])
				}
			})
		}
	}
}

// wantNobodysFault is for an attempt whose answer came whole, and whose time the pattern of the job took.
func wantNobodysFault(t *testing.T, a jobs.Attempt) {
	t.Helper()
	if a.Fault != jobs.FaultNone || !strings.Contains(a.Error, "pattern") {
		t.Errorf("fault %q (%s), want that of nobody", a.Fault, a.Error)
	}
}
