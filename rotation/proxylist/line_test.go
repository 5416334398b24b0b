package proxylist_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/rotation/proxylist"
)

func TestListIsReadAsEditorsWriteIt(t *testing.T) {
	for name, list := range map[string]string{
		"byte order mark": "\ufeffhttp://a.test:1 id=a\nhttp://b.test:2 id=b\n",
		"CRLF":            "http://a.test:1 id=a\r\n\r\nhttp://b.test:2 id=b\r\n",
		"no last newline": "http://a.test:1 id=a\nhttp://b.test:2 id=b",
		"blanks":          " \thttp://a.test:1\tid=a \u00a0\n\n  # none\nhttp://b.test:2   id=b\n",
	} {
		got, err := proxylist.ParseList(strings.NewReader(list))
		if err != nil || len(got) != 2 || got[0].ID != "a" || got[1].ID != "b" {
			t.Errorf("%s: read %v, %v; want a and b", name, got, err)
		}
	}
	if _, err := proxylist.ParseList(strings.NewReader("\xff\xfeh\x00t\x00t\x00p\x00")); err == nil || !strings.Contains(err.Error(), "UTF-16") {
		t.Errorf("UTF-16: %v, want it named", err)
	}
}

func TestCharactersThatCannotBeSeenAreNoPartOfAProxy(t *testing.T) {
	for _, line := range []string{"http://a\u200b.test:1", "http://a.test:1 region=e\u202eu", "http://a.test:1 tags=x\x1b[31m", "http://a.test:1 region=\xff"} {
		if p, err := proxylist.ParseLine(line); err == nil {
			t.Errorf("%q is proxy %s, want an error", line, p)
		}
	}
}

func TestAnIPv6AddressOfAProxyStandsInBrackets(t *testing.T) {
	for line, want := range map[string]string{
		"http://[2001:db8::1]:80": "", "http://[fe80::1%25eth0]:80": "", "http://2001:db8::1:80": "not a proxy URL", "socks5://2001:db8::1:80": "in brackets", "socks5://a::1": "in brackets",
		"http://[a.test]:80": "not a proxy URL", "http://[::1]": "no port",
	} {
		p, err := proxylist.ParseLine(line)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q is read as %q, %v; want an error with %q", line, p.ID, err, want)
		}
	}
}

func TestNumbersOfAProxyAreDecimal(t *testing.T) {
	for _, field := range []string{"weight=0x10", "weight=010", "max_inflight=1_000", "max_inflight=1e3", "rate=0x1p4", "rate=NaN", "rate=Inf", "rate=1e400", "rate=-1", "weight=99999999999999999999"} {
		if p, err := proxylist.ParseLine("http://a.test:1 " + field); err == nil {
			t.Errorf("%s is read as weight %d, max_inflight %d, rate %v; want an error", field, p.Weight, p.MaxInflight, p.Rate)
		}
	}
}

func TestEntriesAreNamedAsEntries(t *testing.T) {
	_, err := proxylist.ParseEntries([]string{"http://a.test:1", "foo", "http://a.test:1"})
	want := []string{"entry 2: not a proxy URL", "entry 3: the same proxy as in entry 1"}
	if err == nil || !slices.EqualFunc(strings.Split(err.Error(), "\n"), want, strings.HasPrefix) {
		t.Errorf("errors: %v\nwant %q", err, want)
	}
}

// FuzzParseLine puts a secret between two texts. A line that is read can be written and read again, and no error repeats a
// line, which may hold a password anywhere.
func FuzzParseLine(f *testing.F) {
	for _, seed := range [][2]string{
		{"http://user:", "@a.test:80 id=a tags=b,c region=d weight=2 max_inflight=3 rate=0.5"}, {"", ":pw@host:80"}, {"socks5h://", "@[::1]:1080"},
		{"http://a.test:80 id=", ""}, {"http://a.test:80 rate=", " weight=1"}, {"https://%zz", "@a"}, {"http://[fe80::1%25", "]:80"}, {"http://u:p%20w", "@A.test:80 weight=1000"},
		{"http://user-{session}-{region}:", "@a.test:80 region=us session_ttl=90s"}, {"http://%7Bsession%7D", ":pw@a.test:80 gateway=yes"}, {"http://{sess", "}@a.test:80"}, {"soCks5://", "::1"},
	} {
		f.Add(seed[0], seed[1])
	}
	const secret = "s3cr3tZq"
	f.Fuzz(func(t *testing.T, before, after string) {
		line := before + secret + after
		p, err := proxylist.ParseLine(line)
		if err != nil {
			if strings.Contains(strings.ToLower(err.Error()), strings.ToLower(secret)) {
				t.Fatalf("the error of %q repeats a part of it: %v", line, err)
			}
			return
		}
		again, err := proxylist.ParseLine(p.Line())
		if err != nil {
			t.Fatalf("%q was written as %q, which is not read: %v", line, p.Line(), err)
		}
		if !reflect.DeepEqual(again, p) || again.Line() != p.Line() {
			t.Fatalf("%q was written as %q, and read again as %q", line, p.Line(), again.Line())
		}
	})
}

func TestPortIsANumber(t *testing.T) {
	p, err := proxylist.ParseLine("http://a.test:0080")
	if err != nil {
		t.Fatal(err)
	}
	if same, _ := proxylist.ParseLine("http://a.test:80"); p.ID != same.ID || p.Addr() != "http://a.test:80" {
		t.Errorf("port 0080 is proxy %s at %s, want %s", p.ID, p.Addr(), same.ID)
	}
}
