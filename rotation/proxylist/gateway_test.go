package proxylist_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/rotation/proxylist"
)

func TestALineWithAPlaceholderIsAGateway(t *testing.T) {
	for line, want := range map[string]string{
		"http://user-{session}-cc-{region}:pw@gate.test:8000 id=g session_ttl=5m region=us": "gateway words regions 5m0s",
		"http://user:pw-{session}@gate.test:8000":                                           "gateway words 0s",
		"http://{session}@gate.test:8000":                                                   "gateway words 0s",
		"socks5://user-%7Bsession%7D:pw@gate.test:8000":                                     "gateway words 0s",
		"http://user:pw@gate.test:8001 gateway=yes":                                         "gateway 0s",
		"http://user-{region}:pw@gate.test:8001 gateway=yes":                                "gateway regions 0s",
		"http://user-{session}:pw@gate.test:8001 gateway=yes":                               "gateway words 0s",
		"http://user-%7Bother%7D:pw@gate.test:8001":                                         "proxy 0s",
	} {
		p, err := proxylist.ParseLine(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		got := p.Kind()
		if p.HasWords() {
			got += " words"
		}
		if p.HasRegions() {
			got += " regions"
		}
		if got += " " + p.SessionTTL.String(); got != want {
			t.Errorf("%s is read as %q, want %q", line, got, want)
		}
		again, err := proxylist.ParseLine(p.Line())
		if err != nil || !again.Equal(&p) || again.ID != p.ID {
			t.Errorf("%s is written as %q, and read again as %q, %v", line, p.Line(), again.Line(), err)
		}
	}
}

func TestALineThatNoGatewayCanHaveIsRefused(t *testing.T) {
	for line, want := range map[string]string{
		"http://user:s3cret@gate.test:1 session_ttl=5m":                   "session_ttl is for gateways",
		"http://user:s3cret@gate.test:1 gateway=yes session_ttl=5m":       "session_ttl needs {session}",
		"http://user-{session}:s3cret@gate.test:1 session_ttl=0s":         "above 0",
		"http://user-{session}:s3cret@gate.test:1 session_ttl=-1m":        "above 0",
		"http://user-{session}:s3cret@gate.test:1 session_ttl=soon":       "above 0",
		"http://user:s3cret@gate.test:1 gateway=no":                       "gateway is not yes",
		"http://user-{region}:s3cret@gate.test:1":                         "{region} stands without {session}",
		"http://user:s3cret@{session}.test:1":                             "in user and password only",
		"http://user:s3cret@gate.test:{session}":                          "in user and password only",
		"http://{session}.test:1":                                         "in user and password only",
		"http://user-{sessid}:s3cret@gate.test:1":                         "none of {session} and {region}",
		"http://user-{session:s3cret@gate.test:1":                         "none of {session} and {region}",
		"http://user-{session}-{region}:s3cret@gate.test:1 region=a-b":    "region does not match",
		"http://user-{session}:s3cret@gate.test:1 gateway=yes gateway=no": "each key once",
	} {
		p, err := proxylist.ParseLine(line)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, %v; want an error with %q and without the password", line, p, err, want)
		}
	}
}

func TestAnExitFillsThePlaceholdersOfUserAndPassword(t *testing.T) {
	p, err := proxylist.ParseLine("http://us%40er-{session}-{region}:p%3Aw-{session}@gate.test:8000")
	if err != nil {
		t.Fatal(err)
	}
	u := p.Through("k3v9x0a7m2qd", "us")
	password, _ := u.User.Password()
	if u.User.Username() != "us@er-k3v9x0a7m2qd-us" || password != "p:w-k3v9x0a7m2qd" || u.Host != "gate.test:8000" {
		t.Errorf("user %q, password %q at %s", u.User.Username(), password, u.Host)
	}
	if want := "http://us%40er-k3v9x0a7m2qd-us:p%3Aw-k3v9x0a7m2qd@gate.test:8000"; u.String() != want {
		t.Errorf("the URL of the exit is %q, want %q", u, want)
	}
	if p.URL.User.Username() != "us@er-{session}-{region}" {
		t.Errorf("the line's own user became %q", p.URL.User.Username())
	}
}

func TestAGatewayIsTheSameWhateverItsPassword(t *testing.T) {
	parse := func(line string) proxylist.Proxy {
		p, err := proxylist.ParseLine(line)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	a, b := parse("http://user-{session}:one@gate.test:1"), parse("http://user-{session}:two@gate.test:1")
	if a.ID != b.ID || a.Equal(&b) {
		t.Errorf("ids %s and %s, equal %v; want one id, and a change", a.ID, b.ID, a.Equal(&b))
	}
	for _, other := range []string{"http://user-{region}:one@gate.test:1 gateway=yes", "http://user-{session}:one@gate.test:1 gateway=yes", "http://user-{session}:one@gate.test:1 session_ttl=1m"} {
		if o := parse(other); a.Equal(&o) {
			t.Errorf("%s equals %s", other, a.Line())
		}
	}
	a.SessionTTL = time.Minute
	for _, text := range []string{a.String(), fmt.Sprintf("%v %+v %#v", a, a, a)} {
		if strings.Contains(text, "one") || strings.Contains(text, "user") {
			t.Errorf("a gateway prints as %q, with its user information", text)
		}
	}
}

func TestSellersWriteGatewaysWithoutAScheme(t *testing.T) {
	for _, line := range []string{"gate.example.net:8000:user-{session}:pw", "user-{session}:pw@gate.example.net:8000"} {
		list, err := proxylist.ParseSold(strings.NewReader(line), "http")
		if err != nil || len(list) != 1 || list[0].Err != nil || !list[0].Proxy.HasWords() {
			t.Errorf("%s: %+v, %v; want a gateway", line, list, err)
		}
	}
}
