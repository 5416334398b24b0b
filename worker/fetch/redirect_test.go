package fetch_test

import (
	"bufio"
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

func TestRedirectThatRepeatsTheRequestKeepsItsBody(t *testing.T) {
	r := newRig(t, nil)
	// The origin of testenv only knows 302.
	addr := r.script(func(_ int64, c net.Conn) {
		in := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			body, _ := io.ReadAll(req.Body)
			head := "200 OK"
			switch req.URL.Path {
			case "/301", "/302", "/303", "/307":
				head = req.URL.Path[1:] + " Moved\r\nLocation: /end"
			}
			said := req.Method + " " + string(body) + " " + req.Header.Get("Content-Type")
			_, _ = fmt.Fprintf(c, "HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s", head, len(said), said)
		}
	})
	r.use("http://" + addr.String() + " id=p")
	const kept, get = " thing text/x", "GET  "
	for method, want := range map[string][4]string{ // after 301, 302, 303, 307
		"POST":   {get, get, get, "POST" + kept},
		"PUT":    {"PUT" + kept, "PUT" + kept, get, "PUT" + kept},
		"DELETE": {"DELETE" + kept, "DELETE" + kept, get, "DELETE" + kept},
	} {
		for i, path := range []string{"/301", "/302", "/303", "/307"} {
			o := r.do(`{"url":"http://shop.test` + path + `","method":"` + method + `","body":"thing","headers":{"Content-Type":"text/x"}}`)
			wantBody(t, o, want[i])
		}
	}
}

func TestARedirectToAnotherOriginRepeatsTheBodyWithoutItsDescription(t *testing.T) {
	r := newRig(t, nil)
	for _, location := range []string{"http://other.test/", "http://shop.test:8080/", "//shop.test.:80/"} {
		r.use("http://" + r.script(func(n int64, c net.Conn) {
			req, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				return
			}
			body, _ := io.ReadAll(req.Body)
			head := "307 Moved\r\nLocation: " + location
			if n > 1 {
				head = "200 OK"
			}
			said := fmt.Sprintf("%s %s %q %q", req.Method, body, req.Header["Content-Type"], req.Header["Accept"])
			_, _ = fmt.Fprintf(c, "HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", head, len(said), said)
		}).String() + " id=a")
		o := r.do(`{"url":"http://shop.test/","method":"PUT","body":"thing","headers":{"content-type":"text/x","accept":"text/y"}}`)
		wantBody(t, o, `PUT thing [] ["text/y"]`)
	}
}

func TestAJobThatEndsWhileItWaitsNamesTheURLOfItsLastAttempt(t *testing.T) {
	r := newRig(t, func(c *fetch.Config) { c.InlineWait = time.Nanosecond })
	r.use(r.hops(found("http://www.shop.test/end"), "503 Service Unavailable\r\nRetry-After: 60"))
	waiting := r.do("http://shop.test/start")
	if waiting.Kind != jobs.RunScheduled {
		t.Fatalf("got %v %s, want the job to wait", waiting.Kind, waiting.Result.Error)
	}
	value, err := waiting.Progress.Encode()
	if err != nil {
		t.Fatal(err)
	}
	carried, err := jobs.ParseProgress(value)
	if err != nil {
		t.Fatal(err)
	}
	ended := r.doWith(t.Context(), `{"url":"http://shop.test/start","deadline":"2001-01-01T00:00:00Z"}`, carried).Result
	if ended.Error != jobs.ErrExpired || ended.Status != http.StatusServiceUnavailable || ended.URL != "http://www.shop.test/end" {
		t.Errorf("got %s, status %d of %s; want the URL that answered 503", ended.Error, ended.Status, ended.URL)
	}
	// An attempt without redirects ends at the job's own URL.
	r.use(r.hops())
	if again := r.doWith(t.Context(), "http://shop.test/start", carried).Result; again.Status != http.StatusOK || again.URL != "http://shop.test/start" {
		t.Errorf("got status %d of %s, want the job's own URL", again.Status, again.URL)
	}
}

func TestARedirectWhereNoJobMayGoIsDeniedAndSaysWhy(t *testing.T) {
	for location, want := range map[string]string{
		"http://user:s3cret@shop.test/":                "user information",
		"http://a_b.\u24dbocalhost/":                   "loopback",
		"//.:9090/":                                    "no host",
		"//*:9090/":                                    "label",
		"//127.0.0.257/":                               "IPv4",
		"//[fe80::1%25eth0]/":                          "link-local",
		"/" + strings.Repeat("s3cret", 1500):           "longer than 8192 bytes",
		"http://" + strings.Repeat("a.", 130) + "test": "longer than 253 bytes",
		"ftp://shop.test/":                             "http or https",
	} {
		r := newRig(t, nil)
		r.use(r.replies("HTTP/1.1 302 Found\r\nLocation: "+location+"\r\nContent-Length: 0\r\n\r\n") + " id=a")
		o := r.do("http://shop.test/")
		if o.Result.Error != jobs.ErrTargetDenied || !strings.Contains(o.Result.Detail, want) || strings.Contains(o.Result.Detail, "s3cret") {
			t.Errorf("%s: %s, %q, want target_denied with %q", location, o.Result.Error, o.Result.Detail, want)
		}
	}
}

func TestALocationThatIsNoURLIsTheTargetsFault(t *testing.T) {
	for location, want := range map[string]string{
		"http://[::1/s3cret":         "IPv6",
		"http:///?s3cret":            "no host",
		"//#s3cret":                  "no host",
		"//:9090/s3cret":             "no host",
		"http://shop.test:s3cret/":   "port",
		"http://shop.test:99999/":    "port",
		"http://s3cret shop.test/":   "characters",
		"http://s3cret%00.shop.test": "characters",
		"http://\xffs3cret.test/":    "IDNA",
	} {
		r := newRig(t, nil)
		r.use(r.replies("HTTP/1.1 302 Found\r\nLocation: "+location+"\r\nContent-Length: 0\r\n\r\n") + " id=a")
		a, reason := r.judged("http://shop.test/")
		if a.Fault != jobs.FaultTarget || reason != "location" || !strings.Contains(a.Error, want) || strings.Contains(a.Error, "s3cret") || !strings.Contains(a.Error, "Location") {
			t.Errorf("%q: fault %q, reason %q (%s); want the target's, with %q", location, a.Fault, reason, a.Error, want)
		}
	}
}
