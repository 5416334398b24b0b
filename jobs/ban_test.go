package jobs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/jobs"
)

// banned is a job with a pattern, or what is wrong with that.
func banned(pattern string) (jobs.Job, error) {
	return jobs.Decode("default", "j", fmt.Appendf(nil, `{"url":"http://a.test/","ban":{"body_regexp":%q}}`, pattern))
}

func TestLargePatternsAreRefusedBeforeTheyAreCompiled(t *testing.T) {
	for pattern, valid := range map[string]bool{
		"(?i)captcha|are you (a )?robot": true, "a{1000}": true, "(?:a{1,30}b){20}": true, strings.Repeat("x", 512): true,
		strings.Repeat("x", 513): false, "(?:a{1,40}b){50}": false, "(?:a{1,450}|b){2}": true, "(?:a{1,700}|b){2}": false,
		strings.Repeat(`(x|a{1,990})`, 42): false, `((a{100}){10}){10}`: false, `((a{10}){10}){10}b{1000}`: false,
	} {
		var took time.Duration
		var allocated uint64
		_, err := banned(pattern)
		if began := time.Now(); !valid {
			allocated = uint64(testing.AllocsPerRun(1, func() { _, _ = banned(pattern) }))
			took = time.Since(began) / 2
		}
		if (err == nil) != valid || allocated > 5000 {
			t.Errorf("%.40s: %v after %v and %d allocations, want valid %v", pattern, err, took, allocated, valid)
		}
		if invalid := (*jobs.InvalidError)(nil); err != nil && (!errors.As(err, &invalid) || len(invalid.Reasons) != 1 || !strings.HasPrefix(invalid.Reasons[0], "ban.body_regexp: ")) {
			t.Errorf("%.40s: %v, want one reason that names the field", pattern, err)
		}
	}
}

// TestThePatternsThatAreTakenAreSmall compares what is taken with the size of what the library makes of it.
func TestThePatternsThatAreTakenAreSmall(t *testing.T) {
	piece := rapid.SampledFrom([]string{"a", "[^<]", `\pL`, "(b|cd)", ".", "^", `\b`, "(?:e?f+)", "(?i)g", "héé"})
	rapid.Check(t, func(t *rapid.T) {
		var b strings.Builder
		for range rapid.IntRange(1, 8).Draw(t, "pieces") {
			b.WriteString("(?:" + strings.Join(rapid.SliceOfN(piece, 1, 4).Draw(t, "piece"), "") + ")")
			b.WriteString(rapid.SampledFrom([]string{"", "*", "+?", "{3}", "{0,40}", "{7,}", "{100}", "{2,300}"}).Draw(t, "repeated"))
		}
		expr := b.String()
		tree, err := syntax.Parse(expr, syntax.Perl)
		if err != nil {
			t.Skip(err)
		}
		prog, err := syntax.Compile(tree.Simplify())
		if err != nil {
			t.Fatal(err)
		}
		size := len(prog.Inst)
		if _, err := banned(expr); err == nil && size > jobs.MaxPatternSize*6/5 || err != nil && size < jobs.MaxPatternSize/2 {
			t.Fatalf("%s with %d instructions: %v", expr, size, err)
		}
	})
}

func TestStatusesUpTo999AreBans(t *testing.T) {
	for status, valid := range map[int]bool{99: false, 100: true, 600: true, 999: true, 1000: false} {
		_, err := jobs.Decode("default", "j", fmt.Appendf(nil, `{"url":"http://a.test/","ban":{"statuses":[%d]}}`, status))
		if (err == nil) != valid {
			t.Errorf("%d: %v, want valid %v", status, err, valid)
		}
	}
}

// rule decodes a ban.
func rule(t *testing.T, ban string) *jobs.Ban {
	t.Helper()
	job, err := jobs.Decode("default", "j", fmt.Appendf(nil, `{"url":"http://a.test/","ban":%s}`, ban))
	if err != nil {
		t.Fatal(err)
	}
	return job.Ban
}

func TestOneMemberOfABanIsEnough(t *testing.T) {
	for _, c := range []struct {
		ban, body, redirect string
		status              int
		want                bool
	}{
		{ban: `{"statuses":[403]}`, status: 403, want: true},
		{ban: `{"statuses":[403]}`, status: 404},
		{ban: `{"statuses":[]}`, status: 403},
		{ban: `{}`, status: 403, body: "captcha"},
		{ban: `{"body_regexp":"captcha"}`, body: "a captcha", want: true},
		{ban: `{"not_body_regexp":"</html>"}`, body: "<html>", want: true},
		{ban: `{"not_body_regexp":"</html>"}`, body: "<html></html>"},
		{ban: `{"not_body_regexp":"</html>"}`, want: true},
		{ban: `{"min_bytes":5}`, body: "four", want: true},
		{ban: `{"min_bytes":5}`, body: "fives"},
		{ban: `{"min_bytes":5,"body_regexp":"x"}`, body: "long enough", status: 200},
		{ban: `{"min_bytes":5,"body_regexp":"x"}`, body: "long enough x", want: true},
		{ban: `{"redirect_to_regexp":"/blocked"}`, redirect: "https://a.test/blocked?x", want: true},
		{ban: `{"redirect_to_regexp":"^/blocked"}`, redirect: "https://a.test/blocked?x"},
	} {
		ban := rule(t, c.ban)
		body, err := ban.MatchBody(t.Context(), []byte(c.body))
		if err != nil {
			t.Fatal(err)
		}
		redirect, err := ban.MatchRedirect(t.Context(), c.redirect)
		if got := ban.MatchStatus(c.status) || body || redirect; got != c.want || err != nil {
			t.Errorf("%s of %d %q to %q: %v, %v; want %v", c.ban, c.status, c.body, c.redirect, got, err, c.want)
		}
	}
}

func TestRulesAreTheSameIfTheirMembersAre(t *testing.T) {
	same := rule(t, `{"statuses":[403,429],"body_regexp":"a"}`).Key()
	if got := rule(t, `{"body_regexp":"a","statuses":[429,403,403],"min_bytes":0}`).Key(); got != same || same == 0 {
		t.Errorf("the same members in another order: key %d, want %d", got, same)
	}
	for _, other := range []string{`{}`, `{"statuses":[403,429]}`, `{"statuses":[403,429],"not_body_regexp":"a"}`, `{"statuses":[403,429],"body_regexp":"a","min_bytes":1}`} {
		if got := rule(t, other).Key(); got == same || got == 0 {
			t.Errorf("%s: key %d, want another one than %d and not zero", other, got, same)
		}
	}
	if (*jobs.Ban)(nil).Key() != 0 {
		t.Error("no rule has a key")
	}
}

func TestMembersOfABanAreChecked(t *testing.T) {
	for _, ban := range []string{`{"min_bytes":-1}`, `{"not_body_regexp":"("}`, `{"redirect_to_regexp":"a{1000}{1000}"}`, `{"status":[1]}`, `{"statuses":[99]}`} {
		_, err := jobs.Decode("default", "j", fmt.Appendf(nil, `{"url":"http://a.test/","ban":%s}`, ban))
		if err == nil || !strings.Contains(err.Error(), "ban") {
			t.Errorf("%s: %v, want a reason that names the ban", ban, err)
		}
	}
}

func TestAPolicyMayHaveNoBans(t *testing.T) {
	base := jobs.DefaultPolicy()
	for document, want := range map[string][]int{`{}`: {403}, `{"ban_status_codes":[]}`: {}, `{"ban_status_codes":[429,999]}`: {429, 999}} {
		p, err := jobs.DecodePolicy([]byte(document), base)
		if err != nil || !slices.Equal(p.BanStatusCodes, want) {
			t.Errorf("%s: %v, %v; want %v", document, p.BanStatusCodes, err, want)
		}
		text, err := json.Marshal(p)
		if again, errAgain := jobs.DecodePolicy(text, base); err != nil || errAgain != nil || !slices.Equal(again.BanStatusCodes, want) {
			t.Errorf("%s, written and read: %v, %v, %v; want %v", document, again.BanStatusCodes, err, errAgain, want)
		}
	}
	if base.BanStatusCodes[0] != 403 {
		t.Errorf("the base is now %v", base.BanStatusCodes)
	}
	if _, err := jobs.DecodePolicy([]byte(`{"ban_status_codes":[1000]}`), base); err == nil {
		t.Error("a status of 1000 is accepted")
	}
	if _, err := jobs.Decode("default", "j", []byte(`{"url":"http://a.test/","retry":{"ban_status_codes":[403]}}`)); err == nil {
		t.Error("a job's retry may name ban_status_codes, want that its ban does")
	}
}

func TestPatternsExamineTheFirstMiBOfABody(t *testing.T) {
	job, err := banned("robot")
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[int]bool{0: true, 1<<20 - 5: true, 1<<20 - 4: false, 2 << 20: false} {
		body := bytes.Repeat([]byte("x"), 3<<20)
		copy(body[at:], "robot")
		if got, err := job.Ban.MatchBody(t.Context(), body); got != want || err != nil {
			t.Errorf("at %d: %v, %v; want %v", at, got, err, want)
		}
	}
}

// TestPatternsMatchWhatTheLibraryMatches has bodies short enough for one step and too long for that.
func TestPatternsMatchWhatTheLibraryMatches(t *testing.T) {
	text := strings.Repeat("a line that has nothing in it, é\n", 3000)
	for _, body := range []string{"", "robot", "a robot\n", text, text + "robot", "\xff" + text + "\n\n", text + "\xc3"} {
		for _, pattern := range []string{"robot", "(?i)ROBOT$", "^a line", "(?m)^$", `\A(?s:.*)robot\z`, "nothing.{1,30}robot", `[^\x00-\x{10FFFF}]`, `\pL{30}|it, é\nrobot`, "(?:a line.*\n){40,60}robot", ""} {
			job, err := banned(pattern)
			if err != nil {
				t.Fatal(err)
			}
			want := pattern != "" && regexp.MustCompile(pattern).MatchString(body)
			if got, err := job.Ban.MatchBody(t.Context(), []byte(body)); got != want || err != nil {
				t.Errorf("%q in %d bytes: %v, %v; want %v", pattern, len(body), got, err, want)
			}
		}
	}
}

func TestAMatchEndsWithItsContext(t *testing.T) {
	job, err := banned("(?:(x|a{1,300})b?){3}c")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	found, err := job.Ban.MatchBody(ctx, bytes.Repeat([]byte("a"), 1<<20)) // that takes many seconds
	if took := time.Since(began); found || !errors.Is(err, context.DeadlineExceeded) || took > 20*time.Second {
		t.Errorf("found %v, %v after %v; want that it ends with its context", found, err, took)
	}
}
