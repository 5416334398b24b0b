package main

import (
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/jobs/bus"
)

func TestHostsAreDeniedInTheSpellingThatWorkersLookFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	for given, want := range map[string]string{
		"2001:DB8:0::1": "2001:db8::1", "[2001:db8::2]": "2001:db8::2", "::ffff:192.0.2.1": "192.0.2.1", "0xc0.0.2.3": "192.0.2.3",
		"BÜCHER.test.": "xn--bcher-kva.test", "Shop.TEST": "shop.test",
	} {
		if code, out, errOut := gofer(t, "", "deny", "add", given); code != exitOK || out != want+"\n" {
			t.Errorf("deny add %s: exit %d, %q, %q; want %s", given, code, out, errOut, want)
		}
		if code, _, errOut := gofer(t, "", "deny", "rm", given); code != exitOK {
			t.Errorf("deny rm %s: exit %d, %q", given, code, errOut)
		}
	}
	for _, bad := range []string{"*.foo.test", "a.test:80", "a.test/x", "a..test", "a b", "", "user@a.test", "a.test?x"} {
		if code, _, _ := gofer(t, "", "deny", "add", "good.test", bad); code != exitUsage {
			t.Errorf("deny add %q: exit %d, want %d", bad, code, exitUsage)
		}
	}
	list := "\ufeff# hosts\r\n\r\n Shop.test \r\nb.test"
	if code, out, errOut := gofer(t, list, "deny", "add", "-"); code != exitOK || out != "shop.test\nb.test\n" {
		t.Errorf("deny add -: exit %d, %q, %q; want both hosts of the list", code, out, errOut)
	}
	if code, _, errOut := gofer(t, list+"\n\nno host\n", "deny", "rm", "-"); code != exitUsage || !strings.Contains(errOut, "line 6") {
		t.Errorf("deny rm -: exit %d, %q; want line 6 named", code, errOut)
	}
	if code, _, errOut := gofer(t, list, "deny", "rm", "-"); code != exitOK {
		t.Errorf("deny rm -: exit %d, %q", code, errOut)
	}
	if _, out, errOut := gofer(t, "", "deny", "ls"); out != "" || errOut != "No denied hosts.\n" {
		t.Errorf("denied are %q, %q, want none: a call with a bad host changes nothing", out, errOut)
	}
}
