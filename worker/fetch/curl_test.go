package fetch_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv"
)

// oddAnswer is a random answer: sound, or with something in its head or its framing that some servers send.
func oddAnswer(random *rand.Rand) string {
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	const body = "this is the page"
	end := pick("\r\n", "\r\n", "\r\n", "\n")
	lines := []string{pick("HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.0 200 OK", "HTTP/1.1 404", "HTTP/1.1 410 ", "HTTP/1.1 999 No")}
	for range random.IntN(3) {
		lines = append(lines, pick("X: y", "X-Powered-By : PHP", "X B: a", "X: a\x1b[1m", "X: a\r\n\tb", "X(1): y", "Connection: keep-alive", "Connection: close", "X:", "x-a:b", "Set-Cookie: a=b", "Just some words", ": y"))
	}
	length := fmt.Sprint("Content-Length: ", len(body))
	chunks := false
	switch random.IntN(10) {
	case 0, 1:
		lines = append(lines, length)
	case 2:
		lines = append(lines, length, length)
	case 3:
		lines = append(lines, pick(length+", "+length[16:], "Content-Length : 16", "Content-Length:016", "content-length:\t16 ", "Content-Length: 5", "Content-Length: 20", "Content-Length: +16", "Content-Length: 16 16", "Content-Length: x", "Content-Length:"))
	case 4:
		lines = append(lines, length, pick("Content-Length: 5", "Transfer-Encoding: identity"))
	case 5:
	default:
		chunks = true
		lines = append(lines, pick("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", "transfer-encoding:Chunked", "Transfer-Encoding : chunked", "Transfer-Encoding: chunked, chunked", "Transfer-Encoding: identity, chunked", "Transfer-Encoding: xchunked"))
		if random.IntN(4) == 0 {
			lines = append(lines, pick("Transfer-Encoding: chunked", "Content-Length: 5", length))
		}
	}
	text := strings.Join(lines, end) + end + end
	if !chunks {
		return text + body + pick("", "", "more")
	}
	eol := pick("\r\n", "\r\n", "\r\n", "\n")
	size := pick("7", "7", "007", "7;a=b", "7 ", "7\t;a", "7;a=\"b\"", "0x7", "7 7", "-7")
	last := pick("0", "0", "00", "0;x")
	return text + size + eol + body[:7] + eol + "9" + eol + body[7:] + eol + last + eol + pick("", "", "", "X: y"+eol, "words"+eol) + pick(eol, eol, eol, "") + pick("", "", "more")
}

// differences are why gofer reads an answer otherwise than curl: Chromium does not read it as curl does, or curl refuses what
// browsers read. The table "Where browsers and curl differ" of jobs/README.md has them.
var differences = map[string]*regexp.Regexp{
	"curl refuses a line that is no field":                        regexp.MustCompile(`(?i)\n(Just some )?words\r?\n`),
	"curl takes one of several lengths":                           regexp.MustCompile(`(?s)Content-Length: 16.*Content-Length: 5`),
	"curl looks for chunks in HTTP/1.0":                           regexp.MustCompile(`(?is)^HTTP/1.0.*\ntransfer-encoding`),
	"curl takes a name before a blank for another name":           regexp.MustCompile(`(Transfer-Encoding|Content-Length) :`),
	"curl takes identity for a sign that there is no length":      regexp.MustCompile(`Transfer-Encoding: identity\r?\n`),
	"curl takes the size of a chunk that only begins as a number": regexp.MustCompile(`\n7 7\r?\n`),
	"curl takes a length that only begins as a number":            regexp.MustCompile(`(?s)Content-Length: (\+16|16 16).*more$`),
}

// TestAnswersAreReadAsCurlReadsThem has the same random answers for gofer and for curl. Where they differ there is a reason.
func TestAnswersAreReadAsCurlReadsThem(t *testing.T) {
	testenv.Long(t)
	curl := testenv.Need(t, "curl")
	r := newRig(t, nil)
	random := rand.New(rand.NewPCG(3, 4))
	var answer string
	site := r.site(func(*http.Request) string { return answer })
	r.use(site + " id=p")
	met := map[string]bool{}
	for range 1000 {
		answer = oddAnswer(random)
		res := r.do(`{"url":"http://shop.test/","retry":{"max_attempts":1}}`).Result
		got := "no answer"
		if res.Outcome == jobs.Succeeded {
			got = fmt.Sprint(res.Status, " ", string(res.Body))
		}
		want := saidCurl(t, curl, "-x", site, "http://shop.test/")
		if got == want {
			continue
		}
		explained := false
		for why, where := range differences {
			if where.MatchString(answer) {
				met[why], explained = true, true
			}
		}
		if !explained {
			t.Errorf("%q: %q (%s), and curl reads %q", answer, got, res.Detail, want)
		}
	}
	for why := range differences {
		if !met[why] {
			t.Errorf("%s: not met", why)
		}
	}
}

// saidCurl is the status and the body that curl reads, or that there is no answer.
func saidCurl(t *testing.T, curl string, args ...string) string {
	t.Helper()
	const marker = "status "
	out, err := exec.CommandContext(t.Context(), curl, append([]string{"-s", "--max-time", "20", "-w", marker + "%{http_code}"}, args...)...).Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		return "no answer"
	}
	if err != nil {
		t.Fatal(err)
	}
	body, status := string(out[:len(out)-len(marker)-3]), string(out[len(out)-3:])
	return status + " " + body
}
