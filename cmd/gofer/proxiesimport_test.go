package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

// bucketLines are the proxies in the fleet's bucket, as lines, in the order of their ids.
func bucketLines(t *testing.T, w *world) (lines []string) {
	t.Helper()
	kv, err := w.client.Bucket(t.Context(), "proxies")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := kv.Keys(t.Context())
	if err != nil {
		return nil // there are none
	}
	slices.Sort(keys)
	for _, key := range keys {
		entry, err := kv.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(entry.Value()))
	}
	return lines
}

func TestImportAddsTheLinesThatItCanReadAndNamesTheOthers(t *testing.T) {
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "bought.txt")
	content := "\ufeff# bought\r\n127.0.0.1:1001 id=a\r\n\r\n127.0.0.1:1002:user:s3cret id=b\r\nno proxy at s3cret\r\nuser:s3cret@127.0.0.1:1003 id=c\r\n127.0.0.1:1001 id=a\r\n"
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := gofer(t, "", "proxies", "import", "--scheme", "socks5", file)
	if code != exitSomeFailed || strings.Count(out, "\n") != 3 || strings.Contains(out+errOut, "s3cret") {
		t.Errorf("exit %d, %q, %q; want %d, three ids and no password", code, out, errOut, exitSomeFailed)
	}
	for _, want := range []string{"line 5:", "line 7: the same proxy as in line 2", "added: 3, refused: 2"} {
		if !strings.Contains(errOut, want) {
			t.Errorf("said %q, want %q", errOut, want)
		}
	}
	want := []string{
		"socks5://127.0.0.1:1001 id=a", "socks5://user:s3cret@127.0.0.1:1002 id=b", "socks5://user:s3cret@127.0.0.1:1003 id=c",
	}
	if got := bucketLines(t, w); !slices.Equal(got, want) {
		t.Errorf("the bucket has %q, want %q", got, want)
	}
}

func TestImportWithCheckAddsOnlyWhatWorks(t *testing.T) {
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	good := strings.TrimPrefix(w.startProxy(testenv.Good).URL("http"), "http://")
	in := good + " id=works\n" + freeAddr(t) + " id=nobody\n"
	code, out, errOut := gofer(t, in, "proxies", "import", "--check", "--target", "http://shop.test/ok", "-")
	if code != exitSomeFailed || strings.Count(out, "\n") != 2 || !strings.Contains(errOut, "added: 1, refused: 0, not working: 1") {
		t.Errorf("exit %d, %q, %q; want %d and one that works", code, out, errOut, exitSomeFailed)
	}
	if got := bucketLines(t, w); len(got) != 1 || !strings.HasSuffix(got[0], " id=works") {
		t.Errorf("the bucket has %q, want the one that works", got)
	}
}

func TestImportRefusesWhatItCannotUse(t *testing.T) {
	newWorld(t, nil)
	for args, want := range map[string]string{
		"--scheme ftp -":                 "--scheme",
		"--target http://shop.test/ok -": "--target needs --check",
		"/does/not/exist":                "no such file",
	} {
		code, _, errOut := gofer(t, "127.0.0.1:1\n", append([]string{"proxies", "import"}, strings.Fields(args)...)...)
		if code != exitUsage || !strings.Contains(errOut, want) {
			t.Errorf("%s: exit %d, %q; want %d and %q", args, code, errOut, exitUsage, want)
		}
	}
	if code, _, errOut := gofer(t, "nothing\n", "proxies", "import", "-"); code != exitFailed || !strings.Contains(errOut, "added: 0, refused: 1") {
		t.Errorf("a list without a proxy: exit %d, %q", code, errOut)
	}
}

// TestAListThatNeverEndsIsRefused: every verb that reads proxies stops, be it comments that never end, or a device.
func TestAListThatNeverEndsIsRefused(t *testing.T) {
	t.Parallel()
	newWorld(t, nil)
	for _, verb := range [][]string{{"proxies", "check"}, {"proxies", "import"}, {"proxies", "add"}} {
		for _, file := range []string{"-", "/dev/zero"} {
			if verb[1] == "add" && file != "-" { // it takes no file
				continue
			}
			in, to := pipe(t)
			go func() {
				comment := []byte(strings.Repeat("# "+strings.Repeat("x", 1000)+"\n", 64))
				for {
					if _, err := to.Write(comment); err != nil {
						return
					}
				}
			}()
			p := launch(t, command(t, "", append(verb, file)...), in)
			want := "line 1: longer than "
			if file == "-" {
				want = "gofer: standard input: more than 67108864 bytes"
			}
			if code, took := p.end(patience); code != exitUsage || !strings.Contains(p.err.String(), want) {
				t.Errorf("%v %s: exit %d after %s, said %s; want %d and %q", verb, file, code, took, p.err, exitUsage, want)
			}
			_ = to.Close()
		}
	}
}

// TestAnImportThatFillsTheBucketSaysHowManyItAdded bounds the bucket, as an account that bounds all streams does.
func TestAnImportThatFillsTheBucketSaysHowManyItAdded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	stream, err := w.client.JetStream().Stream(t.Context(), "KV_gofer-proxies")
	if err != nil {
		t.Fatal(err)
	}
	bounded := stream.CachedInfo().Config
	bounded.MaxBytes = 2000
	if _, err := w.client.JetStream().UpdateStream(t.Context(), bounded); err != nil {
		t.Fatal(err)
	}
	var list strings.Builder
	for i := range 100 {
		fmt.Fprintf(&list, "10.0.0.%d:8080\n", i)
	}
	code, out, errOut := gofer(t, list.String(), "proxies", "import", "-")
	added := strings.Count(out, "\n")
	want := fmt.Sprintf("added: %d, not added: %d", added, 100-added)
	if code != exitSomeFailed || added == 0 || !strings.Contains(errOut, want) || !strings.Contains(errOut, "raise GOFER_RESULTS_MAX_BYTES") {
		t.Errorf("exit %d, %d ids, %q; want %d, %q and what to raise", code, added, errOut, exitSomeFailed, want)
	}
	if code, _, errOut := gofer(t, list.String(), "proxies", "import", "-"); code != exitSomeFailed {
		t.Errorf("the second time exit %d, %s; want %d: those that are there are replaced", code, errOut, exitSomeFailed)
	}
}
