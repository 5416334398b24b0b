package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

func TestSubmitOfAFilePrintsOutcomesAndKeepsBodies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.worker(freeAddr(t))
	dir := t.TempDir()
	file := filepath.Join(dir, "jobs.txt")
	lines := "# two jobs\nhttp://shop.test/ok\n\n" + `{"id":"named","queue":"default","url":"http://shop.test/bytes/600000"}` + "\n"
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "bodies")
	code, stdout, errOut := gofer(t, "", "submit", "--file", file, "--output", out)
	if code != exitOK || strings.Count(stdout, "succeeded 200") != 2 {
		t.Fatalf("exit %d, printed %q, %q", code, stdout, errOut)
	}
	if strings.Contains(errOut, "%") {
		t.Errorf("a progress bar was shown although nobody looks: %q", errOut)
	}
	body, err := os.ReadFile(filepath.Join(out, "default", "named"))
	if err != nil || len(body) != 600000 {
		t.Errorf("the kept body has %d bytes, %v; want 600000", len(body), err)
	}
	if _, facts, _ := gofer(t, "", "results", "--json", "named"); strings.Contains(facts, "body_bytes") {
		t.Errorf("a length is claimed of a body in the object store: %s", facts)
	}
}

func TestKeptBodiesNeverShareOrReplaceAFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	setenv(t, "GOFER_QUEUES", "default,second")
	w.worker(freeAddr(t))
	dir, outside := t.TempDir(), t.TempDir()
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "default"), 0o750),
		os.WriteFile(filepath.Join(dir, "default", "there"), []byte("mine"), 0o600),
		os.Symlink(filepath.Join(outside, "victim"), filepath.Join(dir, "default", "link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	in := ""
	for _, name := range []string{"default/same", "second/same", "default/there", "default/link"} {
		queue, id, _ := strings.Cut(name, "/")
		in += job("/ok?"+queue, map[string]any{"id": id, "queue": queue}) + "\n"
	}
	code, stdout, errOut := gofer(t, in, "submit", "--output", dir, "-")
	if code != exitSomeFailed || strings.Count(stdout, "succeeded") != 4 || !strings.Contains(errOut, "refused: 0, failed: 2") {
		t.Errorf("exit %d, %q, %q; want %d and two failures", code, stdout, errOut, exitSomeFailed)
	}
	for name, mine := range map[string]bool{"default/same": false, "second/same": false, "default/there": true} {
		if body, err := os.ReadFile(filepath.Join(dir, name)); err != nil || (string(body) == "mine") != mine {
			t.Errorf("%s holds %q, %v", name, body, err)
		}
	}
	if list, _ := os.ReadDir(outside); len(list) != 0 {
		t.Errorf("a link was followed out of the folder")
	}
}

func TestEveryAcceptedJobIsTiedToItsLine(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	in := "# one\nhttp://a.test/1\n/broken\nhttp://a.test/2\n"
	_, stdout, _ := gofer(t, in, "submit", "--json", "-")
	for _, want := range []string{`"line":2,"url":"http://a.test/1"`, `"line":4,"url":"http://a.test/2"`} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%s is not in %q", want, stdout)
		}
	}
	if _, stdout, _ := gofer(t, "", "submit", "--id", "only", "http://a.test/"); stdout != "only\n" {
		t.Errorf("a single URL: printed %q, want the id alone", stdout)
	}
	code, stdout, _ := gofer(t, "", "submit", "--wait", "--json", "--timeout", "0.1", "http://a.test/1", "http://a.test/2")
	if code != exitFailed || strings.Count(stdout, `"line":`) != 2 {
		t.Errorf("exit %d, printed %q; want the two that go on", code, stdout)
	}
}

func TestJobsAreReadAsEditorsWriteThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	in := "\ufeff# jobs\r\n\r\n\thttp://a.test/1 \r\n{\"url\":\"http://a.test/2\"}\r\nhttp://a.test/\xff\r\n{\"url\":\"http://a.test/\",\"url\":\"http://b.test/\"}\r\nhttp://a.test/3"
	code, out, errOut := gofer(t, in, "submit", "--json", "-")
	for _, want := range []string{`"line":3,"url":"http://a.test/1"`, `"line":4,"url":"http://a.test/2"`, `"line":7,"url":"http://a.test/3"`} {
		if !strings.Contains(out, want) {
			t.Errorf("%s is not in %q", want, out)
		}
	}
	for _, want := range []string{"line 5: the payload is not UTF-8 text", `line 6: "url": given more than once`} {
		if !strings.Contains(errOut, want) {
			t.Errorf("%s is not in %q", want, errOut)
		}
	}
	if code != exitSomeFailed || strings.Count(out, "\n") != 3 {
		t.Errorf("exit %d, %q, %q; want three jobs", code, out, errOut)
	}
	if code, out, errOut := gofer(t, "\xff\xfeh\x00t\x00", "submit", "-"); code == exitOK || out != "" || !strings.Contains(errOut, "UTF-16: save it as UTF-8") {
		t.Errorf("UTF-16: exit %d, %q, %q; want it named", code, out, errOut)
	}
}

// fullDisk takes nothing.
type fullDisk struct{ err error }

func (d fullDisk) Write([]byte) (int, error) { return 0, d.err }

func TestAnAnswerThatIsLostIsAFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"submit http://a.test/", "queues", "dead ls --json", "config usage", "config show", "setup", "doctor", "--help", "version", "policy show"} {
		for _, cause := range []error{syscall.ENOSPC, syscall.EPIPE} {
			errOut := new(testenv.Log)
			code := run(t.Context(), environment(t), strings.Fields(args), strings.NewReader(""), fullDisk{cause}, errOut)
			if said := strings.Contains(errOut.String(), cause.Error()); code != exitFailed || said == errors.Is(cause, syscall.EPIPE) {
				t.Errorf("gofer %s, %v: exit %d, said %q", args, cause, code, errOut)
			}
		}
	}
}

func TestBadLinesAreNamedAndTheGoodOnesGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.worker(freeAddr(t))
	in := "http://shop.test/ok\n/relative\n{\"url\":\"http://shop.test/ok\",\"coler\":1}\nfile:///etc/passwd\n"
	code, stdout, errOut := gofer(t, in, "submit", "-")
	if code != exitSomeFailed || !strings.HasSuffix(stdout, "\t1\thttp://shop.test/ok\n") || strings.Count(stdout, "\n") != 1 {
		t.Errorf("exit %d, accepted %q; want %d and one id with its line and URL", code, stdout, exitSomeFailed)
	}
	for _, want := range []string{"line 2: the payload is neither an absolute URL nor a JSON object: write http://", `line 3: "coler": unknown field`, "line 4: url: not"} {
		if !strings.Contains(errOut, want) {
			t.Errorf("%q is not said in:\n%s", want, errOut)
		}
	}
}

func TestFailedJobsTurnTheExitCode(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.worker(freeAddr(t))
	code, _, errOut := gofer(t, "", "submit", "--wait", "http://127.0.0.1/")
	if code != exitSomeFailed || !strings.Contains(errOut, "target_denied") {
		t.Errorf("exit %d, %q; want %d and the reason", code, errOut, exitSomeFailed)
	}
}

func TestACancelledJobIsNotSaidToHaveFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	for want, ids := range map[string][]string{
		"gofer: the job was cancelled\n": {"a"}, "gofer: jobs accepted: 2, refused: 0, failed: 0, cancelled: 2\n": {"b", "c"},
	} {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			args, lines := []string{"submit", "--wait", "--id", ids[0], "http://a.test/"}, ""
			if len(ids) > 1 {
				args = []string{"submit", "--wait", "-"}
				for _, id := range ids {
					lines += `{"id":"` + id + `","url":"http://a.test/"}` + "\n"
				}
			}
			if code, _, errOut := gofer(t, lines, args...); code != exitSomeFailed || !strings.HasSuffix(errOut, want) {
				t.Errorf("exit %d, %q; want %d and %q", code, errOut, exitSomeFailed, want)
			}
		}()
		for _, id := range ids {
			testenv.Eventually(t, "the job to be there, and cancelled", func() bool {
				code, _, _ := gofer(t, "", "cancel", id)
				return code == exitOK
			})
		}
		<-ended
	}
}

func TestJobsThatNobodyTakesAreSaidWhileWaiting(t *testing.T) {
	t.Parallel()
	testenv.Long(t)
	w := newWorld(t, nil)
	w.worker(freeAddr(t))
	code, _, errOut := gofer(t, "", "submit", "--wait", "--timeout", "20", "--queue", "nosuch", "http://shop.test/ok")
	if !strings.Contains(errOut, "no result yet: nosuch/0") {
		t.Errorf("the job that goes on is not named: %q", errOut)
	}
	if code != exitFailed || !strings.Contains(errOut, "queue nosuch: jobs wait (1) and no worker has ever served it") || !strings.Contains(errOut, "no result within 20s") {
		t.Errorf("exit %d, %q; want %d, and what the job waits for", code, errOut, exitFailed)
	}
}

// TestSubmitWarnsAtOnceOfAQueueWhoseJobsNobodyTakes: who does not wait sees no other hint.
func TestSubmitWarnsAtOnceOfAQueueWhoseJobsNobodyTakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.worker(freeAddr(t))
	if code, _, errOut := gofer(t, "", "pause", "default"); code != exitOK {
		t.Fatal(errOut)
	}
	in := job("/ok", nil) + "\n" + job("/ok", map[string]any{"queue": "defalt"}) + "\n"
	code, out, errOut := gofer(t, in, "submit", "-")
	if code != exitOK || strings.Count(out, "\n") != 2 {
		t.Fatalf("exit %d, %q, %q; want two jobs", code, out, errOut)
	}
	for _, want := range []string{"queue default is paused, so its jobs wait: gofer resume default", "queue defalt: no worker has ever served it", "gofer cancel --queue defalt"} {
		if !strings.Contains(errOut, want) {
			t.Errorf("%q is not said in %q", want, errOut)
		}
	}
}

func TestTimesThatWereProbablyMeantOtherwiseAreWarnedOf(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"--wait --timeout 0.1":                "--timeout is the old name of --wait-timeout",
		"--wait --in 1h --wait-timeout 0.1":   "no result can come within --wait-timeout 100ms: the jobs run in 1h0m0s at the earliest",
		"--wait --in 0.001 --wait-timeout .1": "",
		"--in 1h":                             "",
	} {
		_, _, errOut := gofer(t, "", append(strings.Fields("submit "+args), "http://a.test/")...)
		if said := strings.Contains(errOut, "wait-timeout"); !strings.Contains(errOut, want) || said != (want != "") {
			t.Errorf("submit %s: %q, want %q", args, errOut, want)
		}
	}
}

func TestWrongCallsAreUsageErrors(t *testing.T) {
	t.Parallel()
	newWorld(t, nil) // a server without streams
	for _, args := range [][]string{
		{"frobnicate"}, {"submit"}, {"submit", "--colour"}, {"submit", "--in", "soon", "http://a.test/"}, {"submit", "--at", "noon", "http://a.test/"},
		{"submit", "--id", "x", "http://a.test/", "http://b.test/"}, {"results", "a.b"}, {"cancel"}, {"pause", "UPPER"}, {"dead", "replay"}, {"version", "extra"},
		{"submit", ""}, {"submit", "# x", "http://a.test/"}, {"submit", "--queue", "", "http://a.test/"}, {"submit", "--output", "", "http://a.test/"},
		{"submit", "--id", "a b", "http://a.test/"}, {"submit", "--queue", "A", "http://a.test/"}, {"events", "--queue", "A B"}, {"results", "--queue", "A B", "x"},
		{"cancel", "--queue", "default", "other/x"}, {"results", "--queue", "default", "other/x"}, {"job", "--queue", "default", "other/x"},
		{"proxies", "rm", "good", "a b"}, {"deny", "add", "a.test", "*.b.test"}, {"deny", "rm", "a.test:80"}, {"help", "bogus"}, {"proxies", "add", "http://a.test:1", "id=metrics"},
	} {
		w := strings.Join(args, " ")
		if code, _, errOut := gofer(t, "", args...); code != exitUsage || errOut == "" {
			t.Errorf("gofer %s: exit %d, %q; want %d and why", w, code, errOut, exitUsage)
		}
	}
}

func TestFlagsThatWouldBeIgnoredAreUsageErrors(t *testing.T) {
	t.Parallel()
	newWorld(t, nil) // a server without streams
	for _, c := range []struct{ args, want string }{
		{"submit --wait-timeout 5s http://a.test/", "--wait-timeout needs --wait or --output"},
		{"submit --timeout 0 http://a.test/", "--timeout needs --wait or --output"},
		{"results --wait", "--wait needs an ID"},
		{"results x --all", "leave out the ID"},
		{"results x --durable reader", "leave out the ID"},
		{"results --durable reader --all", "--durable goes with neither --queue nor --all"},
		{"results --durable reader --queue default", "--durable goes with neither --queue nor --all"},
		{"events --durable reader --all", "--durable goes with neither --queue nor --all"},
		{"events --durable reader --queue default", "--durable goes with neither --queue nor --all"},
	} {
		if code, _, errOut := gofer(t, "", strings.Fields(c.args)...); code != exitUsage || !strings.Contains(errOut, c.want) {
			t.Errorf("gofer %s: exit %d, %q; want %d and %q", c.args, code, errOut, exitUsage, c.want)
		}
	}
}

func TestAFileWithoutJobsIsSaid(t *testing.T) {
	t.Parallel()
	newWorld(t, nil)
	file := filepath.Join(t.TempDir(), "jobs.txt")
	if err := os.WriteFile(file, []byte("\n# nothing yet\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, want string }{
		{"submit --file " + file, "gofer: no jobs in " + file + "\n"}, {"submit --wait --json -", "gofer: no jobs in standard input\n"},
		{"submit --file -", "gofer: no jobs in standard input\n"},
	} {
		if code, out, errOut := gofer(t, "", strings.Fields(c.args)...); code != exitOK || out != "" || errOut != c.want {
			t.Errorf("gofer %s: exit %d, %q, %q; want %d and %q", c.args, code, out, errOut, exitOK, c.want)
		}
	}
}

func TestAWaitThatIsTooLongIsToldFromOneThatIsNone(t *testing.T) {
	t.Parallel()
	newWorld(t, nil)
	_, _, errOut := gofer(t, "", "submit", "--in", "2562048h", "http://a.test/")
	var hours int
	_, rest, _ := strings.Cut(errOut, "no job waits beyond the year 2261, that is ")
	if _, err := fmt.Sscanf(rest, "%dh at most", &hours); err != nil {
		t.Fatalf("said %q, want the longest wait: %v", errOut, err)
	}
	for _, c := range []struct {
		wait, want string
		code       int
	}{
		{fmt.Sprintf("%dh", hours), "the streams are missing", exitFailed}, // the job itself is sound
		{fmt.Sprintf("%dh", hours+1), "too long", exitUsage},
		{"99999999999", "too long", exitUsage},
		{"soon", "not a duration such as 3s", exitUsage},
	} {
		if code, _, errOut := gofer(t, "", "submit", "--in", c.wait, "http://a.test/"); code != c.code || !strings.Contains(errOut, c.want) {
			t.Errorf("--in %s: exit %d, %q; want %d and %q", c.wait, code, errOut, c.code, c.want)
		}
	}
	for _, args := range []string{"submit --wait --timeout 2562048h http://a.test/", "pause default --for 2562048h"} {
		if code, _, errOut := gofer(t, "", strings.Fields(args)...); code != exitUsage || !strings.Contains(errOut, "the longest duration is 2562047h") {
			t.Errorf("gofer %s: exit %d, %q; want the longest duration", args, code, errOut)
		}
	}
}

func TestMisspeltVerbsAreGuessed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, want string }{
		{"sumbit http://a.test/", `gofer has no verb "sumbit", did you mean submit?`},
		{"proxies lst", "did you mean ls?\nTry 'gofer proxies --help'."},
		{"frobnicate", "gofer has no verb \"frobnicate\"\n"},
		{"job", "too few arguments: gofer job ID"},
		{"queues extra", "too many arguments: gofer queues"},
	} {
		if code, _, errOut := gofer(t, "", strings.Fields(c.args)...); code != exitUsage || !strings.Contains(errOut, c.want) {
			t.Errorf("gofer %s: exit %d, %q; want %d and %q", c.args, code, errOut, exitUsage, c.want)
		}
	}
}

func TestUnreachableServerHasItsExitCode(t *testing.T) {
	t.Parallel()
	setenv(t, "GOFER_NATS_URL", "nats://user:s3cret@"+freeAddr(t))
	for _, args := range [][]string{{"submit", "http://a.test/"}, {"results"}, {"doctor"}, {"queues"}} {
		code, out, errOut := gofer(t, "", args...)
		if code != exitUnreachable {
			t.Errorf("gofer %s: exit %d, want %d", args[0], code, exitUnreachable)
		}
		if strings.Contains(out+errOut, "s3cret") {
			t.Errorf("gofer %s printed the password: %s%s", args[0], out, errOut)
		}
	}
}

func TestFullQueueIsSaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{JobsMaxMsgs: 2}); err != nil {
		t.Fatal(err)
	}
	code, stdout, errOut := gofer(t, "", "submit", "http://a.test/1", "http://a.test/2", "http://a.test/3")
	if code != exitSomeFailed || strings.Count(stdout, "\n") != 2 || !strings.Contains(errOut, "GOFER_JOBS_MAX_MSGS") {
		t.Errorf("exit %d, accepted %q, said %q; want two accepted and what to do about the third", code, stdout, errOut)
	}
}

func TestMissingStreamsAreSaid(t *testing.T) {
	t.Parallel()
	newWorld(t, nil)
	if code, _, errOut := gofer(t, "", "submit", "http://a.test/"); code != exitFailed || !strings.Contains(errOut, "gofer setup") {
		t.Errorf("exit %d, %q; want 1 and what to do", code, errOut)
	}
}

func TestSetupShowsWhatItWouldDoThenDoesIt(t *testing.T) {
	t.Parallel()
	newWorld(t, nil)
	code, out, _ := gofer(t, "", "setup", "--dry-run")
	if code != exitOK || !strings.Contains(out, "GOFER_JOBS") || !strings.Contains(out, "Nothing was changed") {
		t.Errorf("dry run: exit %d, %q", code, out)
	}
	if code, out, errOut := gofer(t, "", "setup"); code != exitOK {
		t.Errorf("setup: exit %d, %q, %q", code, out, errOut)
	}
	if _, out, _ := gofer(t, "", "setup", "--dry-run"); !strings.Contains(out, "Everything is as configured.") {
		t.Errorf("after setup there are differences: %q", out)
	}
	setenv(t, "GOFER_JOBS_MAX_MSGS", "1000")
	if _, out, _ := gofer(t, "", "setup", "--dry-run"); !strings.Contains(out, "1000") {
		t.Errorf("a changed setting is not shown: %q", out)
	}
}

func TestDoctorNamesAQueueThatNobodyServes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.worker(freeAddr(t))
	if code, out, errOut := gofer(t, "", "doctor"); code != exitOK {
		t.Errorf("doctor of a healthy fleet: exit %d, %q, %q", code, out, errOut)
	}
	if code, _, errOut := gofer(t, "", "submit", "--queue", "unserved", "http://a.test/"); code != exitOK {
		t.Fatalf("submit to another queue: exit %d, %q", code, errOut)
	}
	if code, out, _ := gofer(t, "", "doctor"); code != exitFailed || !strings.Contains(out, "queue unserved") {
		t.Errorf("doctor: exit %d, %q; want the queue named", code, out)
	}
	if code, _, errOut := gofer(t, "", "pause", "default"); code != exitOK {
		t.Fatalf("pause: exit %d, %q", code, errOut)
	}
	if _, out, _ := gofer(t, "", "doctor"); !strings.Contains(out, "paused, jobs wait (0): gofer resume default") {
		t.Errorf("doctor: %q; want the pause without an end", out)
	}
}

func TestDeadLetterIsReplayedOnceUnderANewID(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.worker(freeAddr(t))
	w.publish("dead", job("/ok", map[string]any{"proxy": map[string]any{"region": "mars", "region_strict": true}}))
	w.result("dead")
	testenv.Eventually(t, "the letter to be listed", func() bool {
		_, out, _ := gofer(t, "", "dead", "ls", "--json")
		return strings.Contains(out, `"id":"dead"`)
	})
	code, out, errOut := gofer(t, "", "dead", "replay", "dead")
	if code != exitOK || !strings.Contains(out, "replay-") {
		t.Fatalf("replay: exit %d, %q, %q", code, out, errOut)
	}
	if code, _, _ := gofer(t, "", "dead", "replay", "dead"); code == exitOK {
		t.Errorf("a second replay of the same letter was accepted")
	}
}

func TestNoJetStreamIsSaid(t *testing.T) {
	t.Parallel()
	newWorld(t, func(o *server.Options) { o.JetStream = false })
	if code, _, errOut := gofer(t, "", "submit", "http://a.test/"); code != exitFailed || !strings.Contains(errOut, "gofer setup") {
		t.Errorf("submit without JetStream: exit %d, %q; want it to send the user to gofer setup", code, errOut)
	}
	if code, _, errOut := gofer(t, "", "setup"); code != exitConfig || !strings.Contains(errOut, "JetStream is switched off") {
		t.Errorf("setup without JetStream: exit %d, %q; want %d and what to do", code, errOut, exitConfig)
	}
}

// TestTwoJobsOfAnIdAreSaidToBeTwo: the server accepts the id again while its job waits.
func TestTwoJobsOfAnIdAreSaidToBeTwo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.worker(freeAddr(t))
	url := "http://shop.test/ok"
	submit := func(args ...string) string {
		t.Helper()
		code, _, errOut := gofer(t, "", append(append([]string{"submit", "--id", "twice"}, args...), url)...)
		if code != exitOK {
			t.Fatalf("exit %d, %q", code, errOut)
		}
		return errOut
	}
	if said := submit("--in", "1h"); said != "" {
		t.Errorf("the first job: said %q, want nothing", said)
	}
	testenv.Eventually(t, "the first job to wait", func() bool {
		_, story, _ := gofer(t, "", "job", "twice")
		return strings.Contains(story, "is delayed\n")
	})
	if said := submit(); !strings.Contains(said, "job default/twice waits already. There will be one result") {
		t.Errorf("the second job: said %q, want that the first one waits", said)
	}
	testenv.Eventually(t, "the second job to end", func() bool {
		_, story, _ := gofer(t, "", "job", "twice")
		return strings.Contains(story, "is finished and waiting\n") && strings.Contains(story, "a second job of this id waits; it will store nothing")
	})
}
