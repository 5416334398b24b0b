package jobs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
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
	if took := time.Since(began); found || !errors.Is(err, context.DeadlineExceeded) || took > 5*time.Second {
		t.Errorf("found %v, %v after %v; want that it ends with its context", found, err, took)
	}
}
