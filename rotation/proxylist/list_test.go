package proxylist_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/rotation/proxylist"
)

func TestListNamesEveryBrokenLineAndNoSecret(t *testing.T) {
	list := "# list\nhttp://a:s3cret@192.0.2.1:8080\nftp://a:s3cret@b.test\nsocks4://b.test\na:s3cret@b.test:80\nhttp://b.test:99999\nhttp://b.test weight=0\nhttp://b.test id=a.b\nhttp://b.test colour=red\nhttp://a:0ther-pw@192.0.2.1:8080\n"
	got, err := proxylist.ParseList(strings.NewReader(list))
	if err == nil || got != nil {
		t.Fatalf("%v, %v", got, err)
	}
	for _, want := range []string{"line 3", "line 4", "line 5", "line 6", "line 7", "line 8", "line 9", "line 10", "line 2"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not named in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "0ther") {
		t.Errorf("a password was printed:\n%v", err)
	}
}

func TestProxyNeverPrintsItsPassword(t *testing.T) {
	p, err := proxylist.ParseLine("http://user:s3cret@[2001:db8::1]:8080 tags=a,b region=eu weight=3 max_inflight=9")
	if err != nil {
		t.Fatal(err)
	}
	if said := fmt.Sprintf("%v %+v %#v %s %v", p, p, p, p, &p); strings.Contains(said, "s3cret") || strings.Contains(said, "user") {
		t.Errorf("printed %s", said)
	}
	if p.Addr() != "http://[2001:db8::1]:8080" || !strings.HasPrefix(p.ID, "p") || len(p.ID) != 13 {
		t.Errorf("addr %s, id %s", p.Addr(), p.ID)
	}
	again, err := proxylist.ParseLine(p.Line())
	if err != nil || again.ID != p.ID || again.URL.String() != p.URL.String() || again.Weight != 3 || again.MaxInflight != 9 || len(again.Tags) != 2 {
		t.Errorf("written and read again: %#v, %v", again, err)
	}
}

func FuzzParseList(f *testing.F) {
	for _, seed := range []string{"http://a.test:80", "socks5://u:p@[::1]:1080 id=a tags=b,c region=d weight=2", "# x\n\nhttps://a.test", "user:pw@host", "http://%zz", "http://a.test id="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := proxylist.ParseList(strings.NewReader(text))
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, p := range list {
			if seen[p.ID] || p.URL.Port() == "" {
				t.Fatalf("two proxies of one id, or one without a port: %s %s", p.ID, p.Addr())
			}
			seen[p.ID] = true
		}
	})
}

func TestJoinKeepsThePlaceOfTheFirstAndTheSettingsOfTheSecond(t *testing.T) {
	list := func(names string) (out []proxylist.Proxy) {
		for name := range strings.FieldsSeq(names) {
			id, region, _ := strings.Cut(name, "=")
			out = append(out, proxylist.Proxy{ID: id, Region: region})
		}
		return out
	}
	a, b := list("a=1 b=1 c=1"), list("b=2 d=2")
	if got, want := proxylist.Join(a, b), list("a=1 b=2 c=1 d=2"); !reflect.DeepEqual(got, want) {
		t.Errorf("joined: got %v, want %v", got, want)
	}
	if want := list("a=1 b=1 c=1"); !reflect.DeepEqual(a, want) {
		t.Errorf("the first list has changed to %v", a)
	}
}
