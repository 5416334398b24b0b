package fetch_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
)

// TestAnswersThatBrowsersAndCurlReadDifferently holds gofer and curl to the table "Where browsers and curl differ" of
// jobs/README.md.
func TestAnswersThatBrowsersAndCurlReadDifferently(t *testing.T) {
	curl := lookForCurl(t)
	for name, c := range map[string]struct {
		answer string
		curl   int // its exit code
	}{
		"line ends before the status line": {"\r\nHTTP/1.1 200 OK\r\n" + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(page), page), 1},
		"several lengths that differ":      {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(page), page), 0},
		"gzip with the length of the page": {"HTTP/1.1 200 OK\r\n" + fmt.Sprintf("Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", len(page), squeeze(t, page, "gzip")), 18},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			site := r.site(func(*http.Request) string { return c.answer })
			r.use(site + " id=p")
			res := r.do(`{"url":"http://shop.test/","retry":{"max_attempts":1}}`).Result
			if res.Outcome != jobs.Failed || len(res.Body) > 0 {
				t.Errorf("gofer: %s %s with %d bytes, want a failure", res.Outcome, res.Error, len(res.Body))
			}
			if code := exitOfCurl(t, curl, "-x", site, "http://shop.test/"); curl != "" && code != c.curl {
				t.Errorf("curl: exit %d, want %d: change the table", code, c.curl)
			}
		})
	}
}

func TestInformationalAnswerToCONNECTIsNoTunnel(t *testing.T) {
	curl := lookForCurl(t)
	r := newRig(t, nil)
	for _, early := range []string{"", "100 Continue", "102 Processing", "103 Early Hints"} {
		proxy := r.script(func(_ int64, c net.Conn) {
			in := bufio.NewReader(c)
			if _, err := http.ReadRequest(in); err != nil {
				return
			}
			if early != "" {
				_, _ = io.WriteString(c, "HTTP/1.1 "+early+"\r\n\r\n")
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			target, err := net.Dial("tcp", r.secure.Addr())
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = target.Close() }()
				_, _ = io.Copy(target, in)
			}()
			_, _ = io.Copy(c, target)
		})
		r.use("http://" + proxy.String() + " id=p")
		res := r.do(`{"url":"https://example.com/ok","retry":{"max_attempts":1}}`).Result
		if tunnel := res.Outcome == jobs.Succeeded; tunnel != (early == "") {
			t.Errorf("%q before the 200: %s %s", early, res.Outcome, res.Detail)
		}
		want := 56
		if early == "" {
			want = 0
		}
		if code := exitOfCurl(t, curl, "-x", "http://"+proxy.String(), "https://example.com/ok"); curl != "" && code != want {
			t.Errorf("curl, %q before the 200: exit %d, want %d: change the table", early, code, want)
		}
	}
}

// lookForCurl is curl's path, or empty.
func lookForCurl(t *testing.T) string {
	t.Helper()
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Log("curl is not installed: only gofer is looked at")
	}
	return curl
}

// exitOfCurl is the exit code of curl.
func exitOfCurl(t *testing.T, curl string, args ...string) int {
	t.Helper()
	if curl == "" {
		return 0
	}
	err := exec.CommandContext(t.Context(), curl, append([]string{"-s", "-k", "--compressed", "--max-time", "20"}, args...)...).Run()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return failed.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0
}
