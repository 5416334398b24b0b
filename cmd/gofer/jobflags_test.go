package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// printed runs gofer submit --print and reads the lines that it prints.
func printed(t *testing.T, in string, args ...string) (list []map[string]any) {
	t.Helper()
	setenv(t, "GOFER_NATS_URL", "nats://127.0.0.1:1") // nobody listens there
	code, out, errOut := gofer(t, in, append([]string{"submit", "--print"}, args...)...)
	if code != exitOK {
		t.Fatalf("exit %d, %q", code, errOut)
	}
	for line := range strings.Lines(out) {
		var members map[string]any
		if err := json.Unmarshal([]byte(line), &members); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		list = append(list, members)
	}
	return list
}

func TestEachFlagOfSubmitIsAMemberOfTheJob(t *testing.T) {
	t.Parallel()
	got := printed(t, "", "-X", "PUT", "-H", "Accept-Language: en", "-H", "X-Trace: a", "-H", "X-Trace:b", "-d", "page=2",
		"--region", "DE", "--tag", "fast", "--tag", "home", "--session", "cart-7", "--attempts", "5", "--attempt-timeout", "20s",
		"--deadline", "2030-01-02T17:00:00+01:00", "--at", "2030-01-02T15:04:05Z", "--meta", "order=4711", "--meta", "k=a=b",
		"--queue", "low", "--id", "j1", "http://shop.test/search?q=tea")
	want := `{"id":"j1","queue":"low","url":"http://shop.test/search?q=tea","method":"PUT",
		"headers":{"Accept-Language":["en"],"X-Trace":["a","b"]},"body":"page=2","timeout":20,
		"not_before":"2030-01-02T15:04:05Z","deadline":"2030-01-02T16:00:00Z","retry":{"max_attempts":5},
		"proxy":{"tags":["fast","home"],"region":"DE","session":"cart-7"},"meta":{"order":"4711","k":"a=b"}}`
	if len(got) != 1 || canonical(t, got[0]) != canonical(t, json.RawMessage(want)) {
		t.Errorf("printed %s\nwant %s", canonical(t, got), canonical(t, json.RawMessage(want)))
	}
}

// canonical writes JSON with sorted members.
func canonical(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err == nil {
		var members any
		if err = json.Unmarshal(data, &members); err == nil {
			data, err = json.Marshal(members)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestAJSONLineKeepsItsOwnMembers(t *testing.T) {
	t.Parallel()
	line := `{"url":"http://shop.test/","method":"GET","body":"mine","headers":{"x-trace":"own"},"timeout":3,"retry":{"max_attempts":2},
		"proxy":{"region":"US"},"meta":{"order":"1"},"deadline":"2031-01-01T00:00:00Z"}`
	got := printed(t, strings.ReplaceAll(line, "\n", "")+"\nhttp://shop.test/plain\n", "-H", "X-Trace: flag", "-H", "Accept: */*", "-d", "a=b",
		"--attempts", "5", "--attempt-timeout", "20", "--region", "DE", "--tag", "fast", "--meta", "order=2", "--meta", "run=9",
		"--deadline", "2030-01-02T16:00:00Z", "-")
	if len(got) != 2 {
		t.Fatalf("printed %v, want two jobs", got)
	}
	own, plain := got[0], got[1]
	for _, c := range []struct {
		job          map[string]any
		member, want string
	}{
		{own, "method", `"GET"`},
		{own, "body", `"mine"`},
		{plain, "method", `"POST"`},
		{plain, "body", `"a=b"`},
		{own, "headers", `{"Accept":["*/*"],"x-trace":["own"]}`},
		{own, "timeout", `3`},
		{own, "retry", `{"max_attempts":2}`},
		{own, "proxy", `{"region":"US","tags":["fast"]}`},
		{own, "meta", `{"order":"1","run":"9"}`},
		{own, "deadline", `"2031-01-01T00:00:00Z"`},
		{plain, "headers", `{"Accept":["*/*"],"X-Trace":["flag"]}`},
		{plain, "meta", `{"order":"2","run":"9"}`},
		{plain, "proxy", `{"region":"DE","tags":["fast"]}`},
	} {
		if text := canonical(t, c.job[c.member]); text != c.want {
			t.Errorf("%s: %s = %s, want %s", c.job["url"], c.member, text, c.want)
		}
	}
}

func TestDataMakesAPostAndMayComeFromAFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	texts, bytes := filepath.Join(dir, "text"), filepath.Join(dir, "bytes")
	for path, content := range map[string]string{texts: "two\nlines\n", bytes: "\xff\x00"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for data, want := range map[string]string{
		"":           `{"method":"POST","url":"http://shop.test/"}`,
		"a=b":        `{"body":"a=b","method":"POST","url":"http://shop.test/"}`,
		"@" + texts:  `{"body":"two\nlines\n","method":"POST","url":"http://shop.test/"}`,
		"@" + bytes:  `{"body_base64":"/wA=","method":"POST","url":"http://shop.test/"}`,
		"a=b -X PUT": `{"body":"a=b","method":"PUT","url":"http://shop.test/"}`,
	} {
		body, more, _ := strings.Cut(data, " ")
		args := append([]string{"-d", body}, strings.Fields(more)...)
		if got := printed(t, "", append(args, "http://shop.test/")...); len(got) != 1 || canonical(t, got[0]) != want {
			t.Errorf("-d %s: %s, want %s", data, canonical(t, got), want)
		}
	}
}

func TestWhatPrintPrintsIsALineOfSubmit(t *testing.T) {
	t.Parallel()
	first := printed(t, "", "--id", "j1", "--queue", "low", "-H", "Accept: a", "http://shop.test/")
	again := printed(t, canonical(t, first[0])+"\n", "-")
	if canonical(t, first) != canonical(t, again) {
		t.Errorf("printed %s of %s, want the same", canonical(t, again), canonical(t, first))
	}
}

func TestJobFlagsThatMeanNothingAreUsageErrors(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-H Accept":                         "--header",
		"-H :value":                         "--header",
		"--meta order":                      "--meta",
		"--meta a=1 --meta a=2":             "more than once",
		"--attempts 0":                      "--attempts",
		"--attempts 11":                     "--attempts",
		"--attempt-timeout 0":               "--attempt-timeout",
		"--attempt-timeout 11m":             "--attempt-timeout",
		"--deadline tomorrow":               "--deadline",
		"-d @/does/not/exist":               "--data",
		"--fail":                            "--fail needs --wait",
		"--print --wait":                    "--print",
		"--in 1s --at 2030-01-02T15:04:05Z": "--in and --at",
		"--proxy=":                          "--proxy",
	} {
		code, _, errOut := gofer(t, "", append(append([]string{"submit"}, strings.Fields(args)...), "http://shop.test/")...)
		if code != exitUsage || !strings.Contains(errOut, want) {
			t.Errorf("%s: exit %d, %q; want %d and %q", args, code, errOut, exitUsage, want)
		}
	}
}

func TestAJobThatTheFlagsMakeInvalidIsRefusedWithItsReason(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"--print -H Host:a.test http://shop.test/":   "Host",
		"--print --proxy a/b http://shop.test/":      "proxy.id",
		"--print -X CONNECT http://shop.test/":       "method",
		"--print --meta bad.key=1 http://shop.test/": "meta",
	} {
		code, out, errOut := gofer(t, "", append([]string{"submit"}, strings.Fields(args)...)...)
		if code != exitFailed || out != "" || !strings.Contains(errOut, want) {
			t.Errorf("%s: exit %d, %q, %q; want %d and %q", args, code, out, errOut, exitFailed, want)
		}
	}
}

// TestFailLooksAtTheClassOfAnAnswer has a job whose answer is a 404: a success, but not with --fail.
func TestFailLooksAtTheClassOfAnAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.worker(freeAddr(t))
	for args, want := range map[string]int{
		"--wait http://shop.test/status/404":                              exitOK,
		"--wait --fail http://shop.test/status/404":                       exitSomeFailed,
		"--wait --fail http://shop.test/ok":                               exitOK,
		"--wait --fail http://shop.test/status/304":                       exitOK,
		"--wait --fail --attempts 1 --proxy nobody http://shop.test/ok":   exitSomeFailed,
		"--wait --fail http://shop.test/ok http://shop.test/status/404":   exitSomeFailed,
		"--output " + t.TempDir() + " --fail http://shop.test/status/500": exitSomeFailed,
	} {
		if code, _, errOut := gofer(t, "", append([]string{"submit"}, strings.Fields(args)...)...); code != want {
			t.Errorf("%s: exit %d, want %d; %q", args, code, want, errOut)
		}
	}
}

// TestFlagsReachTheTarget sends what curl would send with the same flags.
func TestFlagsReachTheTarget(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.worker(freeAddr(t))
	code, out, errOut := gofer(t, "", "submit", "--wait", "-H", "X-Trace: abc", "-d", "a=b", "http://shop.test/echo")
	if code != exitOK || !strings.Contains(out, "POST") || !strings.Contains(out, "a=b") {
		t.Errorf("exit %d, the target saw %q, %q; want a POST of a=b", code, out, errOut)
	}
}
