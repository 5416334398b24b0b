package jobs_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
)

// valid are the URLs of RFC 3986 with a host that is in its normal form already, but for the apostrophe, which browsers encode in
// queries.
var valid = regexp.MustCompile(`^https?://[a-z]+(\.[a-z]+)*(/([A-Za-z0-9._~!$&()*+,;=:@/-]|%[0-9A-Fa-f]{2})*(\?([A-Za-z0-9._~!$&()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?)$`)

var escapes = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

// inOrder reports whether all of parts are in whole, in their order.
func inOrder(whole, parts []string) bool {
	for _, part := range parts {
		i := slices.Index(whole, part)
		if i < 0 {
			return false
		}
		whole = whole[i+1:]
	}
	return true
}

// checkURL tests what holds for every URL in its normal form.
func checkURL(t *testing.T, given string, u jobs.URL) {
	t.Helper()
	if strings.ContainsFunc(u.String(), func(r rune) bool { return r <= ' ' || r > '~' }) || !strings.HasPrefix(u.RequestTarget(), "/") {
		t.Fatalf("%q = %q", given, u)
	}
	if len(u.String()) > jobs.MaxURLBytes {
		return
	}
	base, _ := jobs.ParseURL("http://base.test/")
	if again, err := base.Resolve(u.String()); err != nil || again.Authority() != u.Authority() || len(again.RequestTarget()) > len(u.RequestTarget()) {
		t.Fatalf("%q = %q, and as a Location %q, %v", given, u, again, err)
	}
	if strings.Contains(u.String(), `\`) {
		return // from the query of a Location: no job may have it
	}
	if again, err := jobs.ParseURL(u.String()); err != nil || again.String() != u.String() {
		t.Fatalf("%q = %q, and that is %q, %v", given, u, again, err)
	}
}

func FuzzParseURL(f *testing.F) {
	for _, seed := range []string{
		"http://slash.test/a%2Fb|c", "http://[::1]:80/?'", "https://b\u00fccher.test:0443/%zz%", "http://a.test/../%2e", "http://0x7f.1/ \x7f", "HTTP://a_b./?",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := jobs.ParseURL(text)
		if valid.MatchString(text) && len(text) <= jobs.MaxURLBytes && (err != nil || u.String() != text) {
			t.Fatalf("the valid URL %q = %q, %v", text, u, err)
		}
		if err != nil {
			return
		}
		checkURL(t, text, u)
		text, _, _ = strings.Cut(text, "#")
		_, after, _ := strings.Cut(text, "://")
		if path := strings.IndexAny(after, "/?"); path >= 0 && !inOrder(escapes.FindAllString(u.RequestTarget(), -1), escapes.FindAllString(after[path:], -1)) {
			t.Fatalf("%q = %q, which lacks an escape", text, u)
		}
	})
}

func FuzzResolve(f *testing.F) {
	for _, seed := range []string{"/a?x HTTP/1.0 ", "//h/ /\\..", "http:\x7f", "?\xff%", "//h:1/|//", "https:/", "/\x00", "http:///h", "..\\%2e%2E/x", "//@h", "\t"} {
		f.Add("http://start.test//a/|/%", seed)
	}
	f.Fuzz(func(t *testing.T, text, location string) {
		base, err := jobs.ParseURL(text)
		if err != nil {
			return
		}
		u, err := base.Resolve(location)
		if err != nil {
			return
		}
		checkURL(t, location, u)
		if again, err := base.Resolve(u.String()); err != nil || again.String() != u.String() {
			t.Fatalf("%q on %q = %q, and that on it %q, %v", location, base, u, again, err)
		}
		for _, dots := range []string{"/./", "/../", "/%2e/", "/%2E%2e/"} {
			if location != "" && strings.Contains(u.Path()+"/", dots) {
				t.Fatalf("%q on %q = %q", location, base, u)
			}
		}
	})
}
