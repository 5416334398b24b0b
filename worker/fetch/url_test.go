package fetch_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/fetch"
)

func ok(int) string { return "200 OK" }

// oddURLs are job URLs whose requests differ from them, with the expected authority and target.
func oddURLs() map[string][2]string {
	return map[string][2]string{
		"slash.test/a%2Fb|c":           {"slash.test", "/a%2Fb|c"},
		"slash.test/Straße%2FWeg?ü":    {"slash.test", "/Stra%C3%9Fe%2FWeg?%C3%BC"},
		"slash.test/a%3Bb;c":           {"slash.test", "/a%3Bb;c"},
		"space.test/a b?q=red shoes":   {"space.test", "/a%20b?q=red%20shoes"},
		"percent.test/100%-cotton?5%":  {"percent.test", "/100%-cotton?5%"},
		`quote.test/?q="a"<b>'`:        {"quote.test", "/?q=%22a%22%3Cb%3E%27"},
		"Capital.Test":                 {"capital.test", "/"},
		"a_b.bücher.test/":             {"a_b.xn--bcher-kva.test", "/"},
		"dots.test/a/../b/./%2e%2e":    {"dots.test", "/a/../b/./%2e%2e"},
		"slashes.test//a//b?c":         {"slashes.test", "//a//b?c"},
		"slashes.test//a%2F/%20?%zz|'": {"slashes.test", "//a%2F/%20?%zz|%27"},
		"question.test?":               {"question.test", "/?"},
		"star.test/*":                  {"star.test", "/*"},
		"[2001:DB8:0::1]/":             {"[2001:db8::1]", "/"},
		"0x08.8.8.010/":                {"8.8.8.8", "/"},
		"fragment.test/a#b c":          {"fragment.test", "/a"},
		"controls.test/\u0001\u007f":   {"controls.test", "/%01%7F"},
	}
}

func certificateNames() []string {
	names := []string{"8.8.8.8", "2001:db8::1"}
	for _, want := range oddURLs() {
		if !strings.HasPrefix(want[0], "[") && want[0] != "8.8.8.8" {
			names = append(names, want[0])
		}
	}
	return names
}

func TestTheRequestIsTheURLThatWasGiven(t *testing.T) {
	r := newRig(t, nil)
	w := r.tap("http/1.1", ok, certificateNames()...)
	for url, want := range oddURLs() {
		for _, port := range []string{"", ":", ":8080"} {
			end := len(url)
			if i := strings.IndexAny(url, "/?"); i >= 0 {
				end = i
			}
			given, authority := url[:end]+port+url[end:], want[0]+strings.TrimSuffix(port, ":")
			w.seen = nil
			r.do("http://" + given)
			if expected := (seen{host: authority, target: "http://" + authority + want[1], spaces: 2}); len(w.seen) != 1 || w.seen[0] != expected {
				t.Errorf("http://%s: got %+v, want %+v", given, w.seen, expected)
			}
		}
	}
}

func TestARequestThroughATunnelIsTheURLThatWasGiven(t *testing.T) {
	for _, protocol := range []string{"http/1.1", "h2"} {
		r := newRig(t, nil)
		w := r.tap(protocol, ok, certificateNames()...)
		for url, want := range oddURLs() {
			w.seen = nil
			o := r.do("https://" + url)
			expected := seen{connect: want[0] + ":443", host: want[0], sni: want[0], target: want[1]}
			if net.ParseIP(strings.Trim(want[0], "[]")) != nil {
				expected.sni = "" // RFC 6066 has names only
			}
			if protocol == "http/1.1" {
				expected.spaces = 2
			}
			if len(w.seen) != 1 || w.seen[0] != expected {
				t.Errorf("%s: https://%s: got %+v, want %+v (%s %v)", protocol, url, w.seen, expected, o.Result.Error, o.Result.Attempts)
			}
		}
	}
}

// net/http would take such a path for an authority, or encode it again.
func TestAPathOfTwoSlashesAndABarKeepsItsBytes(t *testing.T) {
	for _, protocol := range []string{"http/1.1", "h2"} {
		r := newRig(t, nil)
		w := r.tap(protocol, ok, "bar.test")
		r.do("https://bar.test//a|b%")
		if len(w.seen) != 1 || w.seen[0].target != "//a|b%" || w.seen[0].host != "bar.test" {
			t.Errorf("%s: got %+v", protocol, w.seen)
		}
	}
}

func TestASiteBehindASOCKSProxyIsAskedInOriginForm(t *testing.T) {
	r := newRig(t, nil)
	w := &wire{answer: ok}
	site := r.script(func(_ int64, c net.Conn) { w.serve(c) })
	p := r.proxy(testenv.Good, func(p *testenv.Proxy) { p.Resolve = func(string) string { return site.String() } })
	for _, scheme := range []string{"socks5", "socks5h"} {
		w.seen = nil
		r.use(p.URL(scheme) + " id=socks")
		r.do("http://Socks.test:80/a%2F|b c")
		if want := (seen{host: "socks.test", target: "/a%2F|b%20c", spaces: 2}); len(w.seen) != 1 || w.seen[0] != want {
			t.Errorf("%s: got %+v, want %+v", scheme, w.seen, want)
		}
	}
}

// A final dot is sent wherever the name is sent, but for TLS, where it is not allowed (RFC 6066, 3).
func TestAFinalDotIsSent(t *testing.T) {
	r := newRig(t, nil)
	w := r.tap("http/1.1", ok, "root.test")
	r.do("https://root.test./")
	if want := (seen{connect: "root.test.:443", host: "root.test.", sni: "root.test", target: "/", spaces: 2}); len(w.seen) != 1 || w.seen[0] != want {
		t.Errorf("got %+v, want %+v", w.seen, want)
	}
}

func TestANameIsTheSameSiteWithAFinalDot(t *testing.T) {
	r := newRig(t, func(c *fetch.Config) { c.Denied = func(host string) bool { return host == "denied.test" } })
	r.tap("http/1.1", func(int) string { return "429 Too Many Requests\r\nRetry-After: 60" })
	r.do("http://root.test./")
	var none *rotation.NoProxyError
	if _, _, err := r.pool.Pick(rotation.Need{Host: "root.test:80"}); !errors.As(err, &none) {
		t.Errorf("the proxy can be picked for the site although it asked for a minute: %v", err)
	}
	if o := r.do("http://Denied.test./a b#c"); o.Result.Error != jobs.ErrTargetDenied || o.Result.URL != "http://denied.test./a%20b" {
		t.Errorf("got %s for %s, want it denied", o.Result.Error, o.Result.URL)
	}
}

func TestARedirectIsRequestedAsBrowsersDo(t *testing.T) {
	for location, want := range map[string][2]string{ // authority, target
		"http://split.test/a?x HTTP/1.0 ": {"split.test", "/a?x%20HTTP/1.0"},
		"/sale/50%off":                    {"start.test", "/sale/50%off"},
		"find?q=red shoes":                {"start.test", "/shop/find?q=red%20shoes"},
		"http:///host.test/":              {"host.test", "/"},
		`\\host.test\a%2Fb|\..\c`:         {"host.test", "/c"},
		"/a\tb":                           {"start.test", "/ab"},
		"../%2e%2E//x/./y":                {"start.test", "//x/y"},
		"//Host.Test:80?":                 {"host.test", "/?"},
		"/caf\xe9/\xc3\xbc":               {"start.test", "/caf%E9/%C3%BC"},
		"?\"'<>`":                         {"start.test", "/shop/?%22%27%3C%3E`"},
		"http://@host.test/":              {"host.test", "/"},
	} {
		r := newRig(t, nil)
		w := r.tap("http/1.1", func(n int) string { return []string{"302 Found\r\nLocation: " + location, "200 OK"}[n] })
		o := r.do("http://start.test/shop/")
		expected := seen{host: want[0], target: "http://" + want[0] + want[1], spaces: 2}
		if len(w.seen) != 2 || w.seen[1] != expected || o.Result.URL != expected.target {
			t.Errorf("%q: got %+v and the URL %s, want %+v", location, w.seen, o.Result.URL, expected)
		}
	}
}

func TestADirectRequestIsTheURLThatWasGiven(t *testing.T) {
	r := newRig(t, func(c *fetch.Config) { c.AllowDirect, c.AllowPrivateTargets = true, true })
	lines := make(chan string, 1)
	addr := r.script(func(_ int64, c net.Conn) {
		line, _ := readHead(bufio.NewReader(c))
		lines <- line
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	})
	for target, want := range map[string]string{"/a%2Fb|c d": "/a%2Fb|c%20d", "//a?%": "//a?%", "?'": "/?%27"} {
		r.do(fmt.Sprintf(`{"url":%q,"proxy":{"direct":true}}`, "http://"+addr.String()+target))
		if got := <-lines; got != "GET "+want+" HTTP/1.1" {
			t.Errorf("%s: got %q, want %s", target, got, want)
		}
	}
}

// FuzzRequestLine fetches any URL, is redirected to any Location, and reads what goes over the wire.
func FuzzRequestLine(f *testing.F) {
	for _, seed := range []string{"/a?x HTTP/1.0 ", "//h/ /\\..", "http:\x7f", "?\xff%", "//h:1/|//", "https:/", "/\x00"} {
		f.Add("http://start.test//a/|/%", seed)
	}
	pool := rotation.New(rotation.Config{})
	pool.Replace([]proxylist.Proxy{{ID: "p", URL: &url.URL{Scheme: "http", Host: "p.test:80"}}})
	f.Fuzz(func(t *testing.T, url, location string) {
		job, err := jobs.Decode("default", "j", []byte(url))
		if err != nil {
			return
		}
		w := &wire{answer: func(n int) string { return []string{"302 Found\r\nLocation: " + location, "200 OK"}[min(n, 1)] }}
		var served sync.WaitGroup
		fetcher := fetch.New(fetch.Config{Pool: pool, Policy: jobs.DefaultPolicy, AllowPrivateTargets: true, Dial: func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			served.Go(func() { w.serve(server); _ = server.Close() })
			return client, nil
		}})
		job.Retry = &jobs.Override{MaxAttempts: new(int)}
		*job.Retry.MaxAttempts = 1
		o := fetcher.Do(t.Context(), &job, &jobs.Progress{})
		fetcher.Close()
		served.Wait()
		for _, s := range w.seen {
			odd := strings.ContainsFunc(s.target+s.host+s.connect, func(r rune) bool { return r <= ' ' || r > '~' })
			if odd || s.connect == "" && s.spaces != 2 {
				t.Errorf("%q and then %q: got %+v", url, location, s)
			}
		}
		if n := len(w.seen); n > 0 && o.Result.Outcome == jobs.Succeeded && w.seen[n-1].target != o.Result.URL {
			t.Errorf("%q and then %q: got %+v, the result has %s", url, location, w.seen[n-1], o.Result.URL)
		}
	})
}
