package main

import (
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
