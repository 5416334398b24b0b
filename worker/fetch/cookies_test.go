package fetch_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv"
)

// hops serves requests through a proxy that plays every site: each is answered by the next head, the last one by its own cookies.
func (r *rig) hops(heads ...string) string {
	var requests atomic.Int64
	return "http://" + r.script(func(_ int64, c net.Conn) {
		for in := bufio.NewReader(c); ; {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if n := int(requests.Add(1)) - 1; n < len(heads) {
				_, _ = fmt.Fprintf(c, "HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n", heads[n])
				continue
			}
			said := strings.Join(req.Header["Cookie"], "|")
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(said), said)
			return
		}
	}).String() + " id=hops"
}

// found is a redirect that sets cookies.
func found(location string, cookies ...string) string {
	head := "302 Found\r\nLocation: " + location
	for _, cookie := range cookies {
		head += "\r\nSet-Cookie: " + cookie
	}
	return head
}

func TestACookieOfARedirectIsSentWhereItBelongs(t *testing.T) {
	many := make([]string, 60)
	for i := range many {
		many[i] = fmt.Sprintf("c%d=v", i)
	}
	refused, ofAddress := make([]string, 300), make([]string, 60)
	for i := range refused {
		refused[i] = fmt.Sprintf("r%d=v; Domain=%s", i, []string{"other.test", "test", "op.test", "shop.test.", "www.shop.test"}[i%5])
	}
	for i := range ofAddress {
		ofAddress[i] = fmt.Sprintf("r%d=v; Domain=8.8", i)
	}
	for name, c := range map[string]struct {
		own  string // the job's Cookie
		want string
		hops []string
	}{
		"to the same host":           {want: "seen=1", hops: []string{found("/", "seen=1; Path=/")}},
		"to its path only":           {want: "b=2", hops: []string{found("/x/y", "a=1; Path=/elsewhere", "b=2; Path=/x")}},
		"to its domain":              {want: "a=1", hops: []string{found("http://sub.shop.test/", "a=1; Domain=shop.test", "b=2")}},
		"to no other domain":         {want: "", hops: []string{found("http://other.test/", "a=1; Domain=shop.test", "b=2; Domain=other.test")}},
		"to no public suffix":        {want: "", hops: []string{found("http://other.test/", "a=1; Domain=test")}},
		"to no other public suffix":  {want: "", hops: []string{found("http://a.co.uk/"), found("http://b.co.uk/", "a=1; Domain=co.uk")}},
		"to no plain URL if secure":  {want: "b=2", hops: []string{found("/", "a=1; Secure", "b=2")}},
		"over several hops":          {want: "a=2; b=3", hops: []string{found("/", "a=1", "b=3"), found("/", "a=2"), found("/")}},
		"until it expires":           {want: "b=2", hops: []string{found("/", "a=1", "b=2"), found("/", "a=; Max-Age=0")}},
		"for longer than any number": {want: "a=1; b=2; c=3", hops: []string{found("/", "a=1; Max-Age=9999999999", "b=2; Max-Age=31536000000", "c=3; Max-Age="+strings.Repeat("9", 30))}},
		"until a date in any form": {want: "z=1", hops: []string{
			found("/", "a=1", "b=2", "c=3", "d=4", "e=5", "f=6", "g=7", "h=8", "z=1"),
			found("/", "a=; Expires=Thu, 01-Jan-70 00:00:01 GMT", "b=; expires = Thu, 1 Jan 1970 0:00:01 GMT", "c=; EXPIRES=Thu Jan 01 1970 00:00:01 GMT+0100",
				"d=; Expires=Thursday, 31-Dec-99 23:59:59 GMT", "e=; Expires=Thu, 01 Jan 1970 00:00:01", "f=; Expires=00:00:01 1970 january 1st", "g=; Max-Age=-"+strings.Repeat("9", 30),
				"h=; Expires=Fri, 31-Dec-9999 23:59:59 GMT; Max-Age=000"),
		}},
		"whatever is no date": {want: "a=; b=; c=; d=; e=; f=; g=; h=; i=; j=; k=; l=1", hops: []string{
			found("/", "a=1", "b=1", "c=1", "d=1", "e=1", "f=1", "g=1", "h=1", "i=1", "j=1", "k=1", "l=1"),
			found("/", "a=; Expires=0", "b=; Expires=-1", "c=; Expires=1970-01-01T00:00:01Z", "d=; Expires=Thu, 30 Feb 1970 00:00:01 GMT", "e=; Expires=Thu, 01 Jan 1600 00:00:01 GMT",
				"f=; Expires=Thu, 01 Jan 1970 24:00:01 GMT", "g=; Expires=Thu, 01 Jan 1970 00:60:01 GMT", "h=; Expires=Thu, 01 Jan 1970 00:00:61 GMT", "i=; Max-Age=", "j=; Max-Age=-", "k=; Max-Age=0s",
				"l=1; Expires=Fri, 01 Jan 69 00:00:00 GMT"),
		}},
		"beside the job's own":      {own: "x=1; y=2", want: "x=1; y=2; a=3", hops: []string{found("/", "a=3")}},
		"in place of the job's own": {own: "a=1;b=2 ;  A=3", want: "b=2; A=3; a=4", hops: []string{found("/", "a=4")}},
		"the job's own alone":       {own: "a=1;b=2 ;  A=3", want: "a=1;b=2 ;  A=3", hops: []string{found("/", "a=4; Path=/elsewhere")}},
		"the job's own nowhere else": {own: "secret=1", want: "a=2",
			hops: []string{found("http://other.test/"), found("/", "a=2")}},
		"the job's own not again": {own: "secret=1", want: "a=2",
			hops: []string{found("http://other.test/", "a=2"), found("http://shop.test/")}},
		"as they are": {want: `a=b c; q="x y"; c=1, 2; ü=ä` + "\xff; n m=v; e=; j={\"k\":[1]}; s=t", hops: []string{
			found("/", "a=b c", `q="x y"`, "c=1, 2", "ü=ä\xff", "n m=v", "e=", `j={"k":[1]}`, " s =\tt ; Path=/"),
		}},
		"without those that no browser keeps": {want: "b=2", hops: []string{found("/", "a\x01=1", "a=\x7f", "a", "=1", "", ";", "a=1\rX: y", "b=2")}},
		"as their names promise": {want: "h=1", hops: []string{
			found("/", "__Secure-a=1", "__Host-b=1; Path=/", "__secure-c=1", "__HOST-d=1", "__Secure-e=1; Secure", "__Host-f=1; Secure; Path=/", "g=1; Secure", "h=1"),
			found("http://shop.test/end", "g=1; SECURE"),
		}},
		"by the last attribute of a name": {want: "b=1; e=1", hops: []string{found("/x/y",
			"a=1; Path=/x; Path=/z", "b=1; Path=/z; Path=/x", "c=1; Path=/\u00fc", "d=1; Domain=sh\u00f6p.test", "e=1; Domain=other.test; Domain=shop.test", "f=1; Domain=shop.test; Domain=other.test")}},
		"up to fifty of them":                  {want: strings.Join(many[:50], "; "), hops: []string{found("/", many...)}},
		"beside any number that are refused":   {want: "a=1; b=2", hops: []string{found("/", append(refused, "a=1", "b=2; Domain=.SHOP.test")...)}},
		"beside those of a part of an address": {want: "a=1", hops: []string{found("http://8.8.8.8/"), found("/", append(ofAddress, "a=1")...)}},
		"in the room of expired ones": {want: strings.Join(append(many[1:50:50], "new=1"), "; "),
			hops: []string{found("/", many...), found("/", "late=1", "c0=; Max-Age=0", "new=1")}},
		"up to 4 KiB": {want: "b=" + strings.Repeat("v", 4095), hops: []string{found("/", "a="+strings.Repeat("v", 4096), "b="+strings.Repeat("v", 4095))}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.use(r.hops(c.hops...))
			o := r.do(fmt.Sprintf(`{"url":"http://shop.test/start","headers":{"Cookie":%q}}`, c.own))
			wantBody(t, o, c.want)
		})
	}
}

// cookiesOver makes redirects over sites by https and http, each step with cookies that its answer sets, and returns the cookies of
// the last request.
func (r *rig) cookiesOver(steps ...[2]string) string {
	r.Helper()
	var n atomic.Int64
	next := func(w http.ResponseWriter, req *http.Request) {
		at := int(n.Add(1))
		if at >= len(steps) {
			_, _ = io.WriteString(w, strings.Join(req.Header["Cookie"], "; "))
			return
		}
		w.Header()["Set-Cookie"] = strings.Split(steps[at-1][1], "|")
		w.Header().Set("Location", steps[at][0])
		w.WriteHeader(http.StatusFound)
	}
	plain, secure := httptest.NewServer(http.HandlerFunc(next)), httptest.NewUnstartedServer(http.HandlerFunc(next))
	secure.TLS = &tls.Config{Certificates: r.secure.TLS.Certificates}
	secure.StartTLS()
	defer plain.Close()
	defer secure.Close()
	r.use(r.proxy(testenv.Good, func(p *testenv.Proxy) {
		p.Resolve = func(target string) string {
			if strings.HasSuffix(target, ":443") {
				return secure.Listener.Addr().String()
			}
			return plain.Listener.Addr().String()
		}
	}).URL("http") + " id=p")
	o := r.do(steps[0][0])
	if o.Result.Outcome != jobs.Succeeded {
		r.Errorf("%s %s", o.Result.Error, o.Result.Detail)
	}
	return string(o.Result.Body)
}

func TestSecureCookiesComeFromHTTPSAlone(t *testing.T) {
	const secure, plain = "https://example.com/x/y", "http://example.com/x/y"
	for name, c := range map[string]struct {
		want  string
		steps [][2]string
	}{
		"by https":    {"a=1; __Secure-c=1; __Host-b=1", [][2]string{{secure, "a=1; Secure|__Host-b=1; Secure; Path=/|__Secure-c=1; Secure"}, {secure}}},
		"not by http": {"d=1", [][2]string{{plain, "a=1; Secure|__Host-b=1; Secure; Path=/|__Secure-c=1; Secure|d=1"}, {secure}}},
		"nor without what they promise": {"d=1", [][2]string{
			{secure, "__Host-a=1; Secure|__Host-b=1; Path=/|__Host-c=1; Secure; Path=/; Domain=example.com|__HOST-e=1; Secure; Path=/x|__Secure-f=1|d=1"}, {secure},
		}},
		"not replaced by http":        {"a=1", [][2]string{{secure, "a=1; Secure; Path=/x"}, {plain, "a=2; Path=/x|a=3; Path=/x/y|a=4; Domain=example.com; Path=/x/"}, {secure}}},
		"replaced by https":           {"a=2", [][2]string{{secure, "a=1; Secure; Path=/"}, {secure, "a=2; Path=/"}, {plain}}},
		"beside those of other paths": {"a=1; a=2", [][2]string{{secure, "a=1; Secure; Path=/x/y"}, {plain, "a=2; Path=/x|b=1; Path=/other"}, {secure}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			if got := r.cookiesOver(c.steps...); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestCookiesAreForgottenAfterTheAttempt(t *testing.T) {
	r := newRig(t, nil)
	r.use("http://" + r.script(func(_ int64, c net.Conn) {
		in := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			head := found("/end", "a=1")
			if req.URL.Path == "/end" {
				head = "503 Service Unavailable"
			}
			if req.URL.Path == "/start" && req.Header["Cookie"] != nil {
				head = "200 OK"
			}
			_, _ = io.WriteString(c, "HTTP/1.1 "+head+"\r\nContent-Length: 0\r\n\r\n")
		}
	}).String() + " id=p")
	for range 2 {
		if o := r.do("http://shop.test/start"); o.Result.Status != http.StatusServiceUnavailable || o.Result.AttemptCount != 3 {
			t.Errorf("%d after %d attempts, want no attempt to begin with the cookies of another", o.Result.Status, o.Result.AttemptCount)
		}
	}
}

func TestHeadersKeepTheirSpelling(t *testing.T) {
	r := newRig(t, nil)
	heads := make(chan string, 2)
	r.use("http://" + r.script(func(_ int64, c net.Conn) {
		in := bufio.NewReader(c)
		for _, answer := range []string{found("/next", "seen=1"), "200 OK"} {
			head := ""
			for !strings.HasSuffix(head, "\r\n\r\n") {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				head += line
			}
			heads <- head
			_, _ = io.WriteString(c, "HTTP/1.1 "+answer+"\r\nContent-Length: 0\r\n\r\n")
		}
	}).String() + " id=p")
	r.do(`{"url":"http://shop.test/","headers":{"user-agent":"ua","ACCEPT-encoding":"gzip","x-ONE":["a","b"],"X-One":"c","cookie":"own=1"}}`)
	for _, cookies := range []string{"own=1", "own=1; seen=1"} {
		want := "\r\nACCEPT-encoding: gzip\r\nX-One: c\r\ncookie: " + cookies + "\r\nuser-agent: ua\r\nx-ONE: a\r\nx-ONE: b\r\n\r\n"
		if head := <-heads; !strings.HasSuffix(head, "Host: shop.test"+want) {
			t.Errorf("got %q, want it to end in %q", head, want)
		}
	}
}
