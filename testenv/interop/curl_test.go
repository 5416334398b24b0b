package interop_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// curlCases is how many requests and answers gofer and curl exchange.
const curlCases = 300

// curlDifferences are why gofer sends another request line or Host than curl: gofer follows the URL Standard of the WHATWG, and
// curl does not in these cases. What is asked for is the same when all escapes are decoded. Fields, body and answer are always
// the same.
var curlDifferences = map[string]*regexp.Regexp{
	"curl leaves bytes that the standard encodes":       regexp.MustCompile("^[^#]*[\"<>`{}^'\u0080-\U0010ffff]"),
	"curl leaves capitals in a host":                    regexp.MustCompile(`^http://[^/?#]*[A-Z]`),
	"curl names a default port to a proxy":              regexp.MustCompile(`^http://[^/?#]*:80([/?#]|$)`),
	"curl asks for a name of another script as it is":   regexp.MustCompile("^http://[^/?#]*[\u0080-\U0010ffff]"),
	"curl refuses a blank, even in a fragment":          regexp.MustCompile(` `),
	"curl leaves out the mark of an empty query":        regexp.MustCompile(`^[^?#]*\?(#|$)`),
	"curl names no path where the URL has a query only": regexp.MustCompile(`^http://[^/?#]*\?`),
}

// wire is one request as it came to the proxy.
type wire struct {
	target string
	fields map[string][]string // in the spelling of the client
	body   string
}

// recorder is a proxy that keeps what it is asked for and sends one answer.
type recorder struct {
	mu     sync.Mutex // guards the fields below
	answer string
	got    []wire
}

func (r *recorder) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	for in := bufio.NewReader(c); ; {
		w, err := readWire(in)
		if err != nil {
			return
		}
		r.mu.Lock()
		r.got = append(r.got, w)
		answer := r.answer
		r.mu.Unlock()
		if _, err := io.WriteString(c, answer); err != nil || strings.Contains(answer, "Connection: close") {
			return
		}
	}
}

// take returns the requests since the last call.
func (r *recorder) take() []wire {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.got
	r.got = nil
	return got
}

func (r *recorder) set(answer string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

// readWire reads a request byte by byte: net/http would change it.
func readWire(in *bufio.Reader) (wire, error) {
	w := wire{fields: map[string][]string{}}
	line, err := in.ReadString('\n')
	if err != nil {
		return w, err
	}
	_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\r\n"), " ")
	w.target = strings.TrimSuffix(rest, " HTTP/1.1")
	length := 0
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return w, err
		}
		line = strings.TrimSuffix(line, "\r\n")
		if line == "" {
			break
		}
		name, value, _ := strings.Cut(line, ": ")
		w.fields[name] = append(w.fields[name], value)
		if name == "Content-Length" {
			_, _ = fmt.Sscan(value, &length)
		}
	}
	body := make([]byte, length)
	_, err = io.ReadFull(in, body)
	w.body = string(body)
	return w, err
}

// exchangeCase is what is asked for and answered.
type exchangeCase struct {
	url, method, body string
	headers           map[string]string
	status            int
	page              string
	answer            string
}

func randomCase(random *rand.Rand) exchangeCase {
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	c := exchangeCase{method: "GET", headers: map[string]string{}}
	c.url = "http://" + pick("shop.test", "shop.test", "a-b_c.shop.test", "Shop.Test", "b\u00fccher.test", "192.0.2.1", "[2001:db8::1]", "shop.test.") + pick("", "", ":80", ":8080")
	if random.IntN(6) > 0 {
		c.url += "/"
		for range random.IntN(4) {
			c.url += pick("a", "B", "a%2Fb", "%zz", "100%", "~x", "a;b=c", "a,b", "\u00fc", "a|b", "..", ".", "a b", "\"q\"", "{x}", "(y)", "*", "@", "$&+", "'", "!") + pick("/", "//", "")
		}
	}
	if random.IntN(2) > 0 {
		c.url += "?" + pick("q=1", "q=a+b", "q=%20&r=%C3%BC", "q=\u00fc", "q=<b>", "q='x'", "a[]=1", "q=a b", "?", "", "u=http://x/", "q={y}", "a=|")
	}
	c.url += pick("", "", "", "#top", "#a b")
	for range random.IntN(3) {
		c.headers[pick("X-Trace", "x-lower", "ACCEPT-LANGUAGE", "Cookie", "Authorization", "X_Under", "Referer")] = pick("a", "a b", "en;q=0.5, de", "\"quoted\"", "a=b; c=d", "\u00fc")
	}
	if random.IntN(3) == 0 {
		c.method, c.body = pick("POST", "PUT", "PATCH"), pick("a=b", "{\"k\": [1, 2]}", strings.Repeat("0123456789", 500), "\u00fc\n\r\n")
	}
	c.status = []int{200, 200, 200, 201, 203, 206, 300, 400, 404, 410, 418, 451, 500, 501}[random.IntN(14)]
	c.page = pick("ok", "", strings.Repeat("page ", 2000), "\x00\x01\xff", "line\r\n\r\nline")
	c.answer = randomAnswer(random, c)
	return c
}

// randomAnswer writes the page in one of the framings and codings that servers use.
func randomAnswer(random *rand.Rand, c exchangeCase) string {
	head, body := fmt.Sprintf("HTTP/1.1 %d Word\r\nContent-Type: text/plain\r\nX-Empty:\r\n", c.status), c.page
	if random.IntN(3) == 0 && c.status != http.StatusPartialContent {
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		_, _ = io.WriteString(w, body)
		_ = w.Close()
		head, body = head+"Content-Encoding: gzip\r\n", packed.String()
	}
	switch random.IntN(3) {
	case 0:
		return head + "Connection: close\r\n\r\n" + body
	case 1:
		var chunks strings.Builder
		for rest := body; rest != ""; {
			n := min(len(rest), 1+random.IntN(4000))
			fmt.Fprintf(&chunks, "%x\r\n%s\r\n", n, rest[:n])
			rest = rest[n:]
		}
		return head + "Transfer-Encoding: chunked\r\n\r\n" + chunks.String() + "0\r\n\r\n"
	}
	return fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, len(body), body)
}

// TestGoferAndCurlExchangeTheSame has gofer and curl send the same request and read the same answer.
func TestGoferAndCurlExchangeTheSame(t *testing.T) {
	curl := testenv.Need(t, "curl")
	proxy, address := startRecorder(t)
	fetcher := fetcherThrough(t, address)
	random := rand.New(rand.NewPCG(5, 6))
	met := map[string]bool{}
	for range curlCases {
		c := randomCase(random)
		proxy.set(c.answer)
		status, page := askGofer(t, fetcher, c)
		own := proxy.take()
		wantStatus, wantPage, refused := askCurl(t, curl, address, c)
		theirs := proxy.take()
		why := differencesOf(c.url, met)
		if refused && len(why) > 0 && len(theirs) == 0 {
			continue // curl takes no such URL
		}
		if status != wantStatus || page != wantPage || status != c.status || page != c.page {
			t.Errorf("%s %q: gofer reads %d and %d bytes, curl %d and %d bytes, sent were %d and %d bytes", c.method, c.url, status, len(page), wantStatus, len(wantPage), c.status, len(c.page))
		}
		if len(own) != 1 || len(theirs) != 1 {
			t.Errorf("%s %q: gofer sends %d requests, curl %d", c.method, c.url, len(own), len(theirs))
			continue
		}
		compareWire(t, c, own[0], theirs[0], len(why) > 0)
	}
	for why := range curlDifferences {
		if !met[why] {
			t.Errorf("%s: not met", why)
		}
	}
}

func differencesOf(text string, met map[string]bool) (why []string) {
	for reason, where := range curlDifferences {
		if where.MatchString(text) {
			met[reason] = true
			why = append(why, reason)
		}
	}
	return why
}

func compareWire(t *testing.T, c exchangeCase, own, theirs wire, mayDiffer bool) {
	t.Helper()
	switch {
	case own.target == theirs.target:
	case !mayDiffer:
		t.Errorf("%q: gofer asks for %q, curl for %q", c.url, own.target, theirs.target)
	case sameResource(own.target) != sameResource(theirs.target) && !strings.Contains(c.url, "\u00fccher"):
		t.Errorf("%q: gofer asks for %q, curl for %q, which is another resource", c.url, own.target, theirs.target)
	}
	if host, want := own.fields["Host"], theirs.fields["Host"]; !slices.Equal(host, want) && (!mayDiffer || len(host) != 1 || !strings.EqualFold(host[0], want[0]) && !strings.Contains(c.url, "\u00fccher")) {
		t.Errorf("%q: gofer sends Host %q, curl %q", c.url, host, want)
	}
	for _, name := range slices.Sorted(maps.Keys(c.headers)) {
		if got, want := own.fields[name], theirs.fields[name]; !slices.Equal(got, want) {
			t.Errorf("%q: gofer sends %s: %q, curl %q", c.url, name, got, want)
		}
	}
	if own.body != theirs.body || own.body != c.body {
		t.Errorf("%q: gofer sends a body of %d bytes, curl of %d, want %d", c.url, len(own.body), len(theirs.body), len(c.body))
	}
}

// sameResource is a target without what may be written in several ways: the case and the default port of its host, escapes, the
// mark of an empty query.
func sameResource(target string) string {
	scheme, rest, _ := strings.Cut(target, "://")
	end := strings.IndexAny(rest+"/", "/?")
	host, path := strings.TrimSuffix(strings.ToLower(rest[:end]), ":80"), strings.TrimSuffix(rest[end:], "?")
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	if decoded, err := url.PathUnescape(path); err == nil {
		path = decoded
	} else {
		path = strings.NewReplacer("%22", "\"", "%20", " ", "%7B", "{", "%7D", "}", "%27", "'", "%3C", "<", "%3E", ">", "%C3%BC", "\u00fc").Replace(path)
	}
	return scheme + "://" + host + path
}

func startRecorder(t *testing.T) (*recorder, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := new(recorder)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go r.serve(c) // ends with its connection
		}
	})
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	return r, "http://" + l.Addr().String()
}

func fetcherThrough(t *testing.T, proxy string) *fetch.Fetcher {
	t.Helper()
	list, err := proxylist.ParseList(strings.NewReader(proxy))
	if err != nil {
		t.Fatal(err)
	}
	pool := rotation.New(rotation.Config{})
	pool.Replace(list)
	policy := jobs.DefaultPolicy()
	policy.MaxAttempts, policy.BanStatusCodes = 1, nil
	f := fetch.New(fetch.Config{Pool: pool, Policy: func() jobs.Policy { return policy }, AllowPrivateTargets: true})
	t.Cleanup(f.Close)
	return f
}

func askGofer(t *testing.T, f *fetch.Fetcher, c exchangeCase) (status int, page string) {
	t.Helper()
	job := jobs.Job{Queue: "default", ID: "j", URL: c.url, Method: c.method, Body: c.body, Headers: jobs.Headers{}}
	for name, value := range c.headers {
		job.Headers[name] = []string{value}
	}
	payload, err := job.Encode()
	if err != nil {
		t.Fatalf("%q: %v", c.url, err)
	}
	if job, err = jobs.Decode("default", "j", payload); err != nil {
		t.Fatalf("%q: %v", c.url, err)
	}
	o := f.Do(t.Context(), &job, &jobs.Progress{})
	if o.Result.Outcome != jobs.Succeeded {
		t.Errorf("%q: %s %s %+v", c.url, o.Result.Outcome, o.Result.Error, o.Result.Attempts)
	}
	return o.Result.Status, string(o.Result.Body)
}

func askCurl(t *testing.T, curl, proxy string, c exchangeCase) (status int, page string, refused bool) {
	t.Helper()
	const marker = "\nstatus "
	args := []string{"-s", "-g", "--path-as-is", "--compressed", "--max-time", "60", "-x", proxy, "-X", c.method, "-w", marker + "%{http_code}"}
	for name, value := range c.headers {
		args = append(args, "-H", name+": "+value)
	}
	if c.body != "" {
		args = append(args, "--data-binary", "@-", "-H", "Content-Type:", "-H", "Expect:")
	}
	cmd := exec.CommandContext(t.Context(), curl, append(args, c.url)...)
	cmd.Env = []string{"LC_ALL=C.UTF-8"}
	cmd.Stdin = strings.NewReader(c.body)
	out, err := cmd.Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) && failed.ExitCode() == 3 {
		return 0, "", true
	}
	if err != nil {
		t.Errorf("curl %q: %v", c.url, err)
	}
	at := bytes.LastIndex(out, []byte(marker))
	_, _ = fmt.Sscan(string(out[at+len(marker):]), &status)
	return status, string(out[:at]), false
}
