package jobs_test

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
)

// vectors reads a table that testdata/wpt.go made: quoted texts, - and expectations, separated by blanks.
func vectors(t *testing.T, file string, each func(columns []string)) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		var columns []string
		for line != "" && line[0] != '!' {
			text, rest, _ := strings.Cut(line, " ")
			if quoted, err := strconv.QuotedPrefix(line); err == nil {
				rest = strings.TrimPrefix(line[len(quoted):], " ")
				if text, err = strconv.Unquote(quoted); err != nil {
					t.Fatalf("%s: %v", line, err)
				}
			}
			columns, line = append(columns, text), rest
		}
		if line != "" {
			columns = append(columns, line)
		}
		each(columns)
	}
}

// mustParse is a URL without which a test makes no sense.
func mustParse(t *testing.T, text string) jobs.URL {
	t.Helper()
	u, err := jobs.ParseURL(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return u
}

// outcome is what came of a URL in the words of the tables: the URL, ! or !!.
func outcome(u jobs.URL, err error) string {
	var bad *jobs.URLError
	switch {
	case err == nil:
		return u.String()
	case errors.As(err, &bad) && bad.Malformed:
		return "!"
	}
	return "!!"
}

// fits reports whether an outcome is the one of a table. A host that gofer does not ask may be malformed elsewhere, or the
// other way round: "http://" has no host, and so nothing to ask.
func fits(got, want string) bool {
	if strings.HasPrefix(want, "!") {
		return strings.HasPrefix(got, "!") && (got == "!!" || !strings.HasPrefix(want, "!!"))
	}
	return got == want
}

func TestLocationsAreReadAsTheURLStandardReadsThem(t *testing.T) {
	count := 0
	vectors(t, "testdata/wpt-urls.txt", func(c []string) {
		input, base, want := c[0], c[1], c[2]
		on := mustParse(t, "http://base.invalid/")
		if strings.HasPrefix(strings.ToLower(input), "http:") {
			on = mustParse(t, "https://base.invalid/") // or "http:page" would be relative
		}
		if base != "-" {
			var err error
			if on, err = on.Resolve(base); err != nil {
				t.Fatalf("base %q: %v", base, err)
			}
		}
		count++
		if got := outcome(on.Resolve(input)); !fits(got, want) {
			t.Errorf("%q on %q = %s, want %s", input, base, got, want)
		}
	})
	if count < 400 {
		t.Errorf("%d cases, want hundreds", count)
	}
}

// Where the standard repairs a URL, a job with it is invalid. Its dot segments stay.
func TestJobURLsAreReadAsTheURLStandardReadsThem(t *testing.T) {
	same, strict := 0, 0
	vectors(t, "testdata/wpt-urls.txt", func(c []string) {
		input, base, want := c[0], c[1], c[2]
		text, _, _ := strings.Cut(strings.ToLower(input), "#")
		after, web := strings.CutPrefix(text, "http://")
		if !web {
			after, web = strings.CutPrefix(text, "https://")
		}
		path, _, _ := strings.Cut(strings.ReplaceAll(after, "%2e", "."), "?")
		authority, _, _ := strings.Cut(path, "/")
		switch {
		case base != "-":
			return
		case strings.ContainsAny(input, "\\\t\r\n"), strings.Contains(authority, "@"), !web, strings.HasPrefix(after, "/"):
			strict++
			want = "!"
		case strings.Contains(path, "/.") || strings.Trim(input, " ") != input:
			return
		default:
			same++
		}
		if got := outcome(jobs.ParseURL(input)); !fits(got, want) {
			t.Errorf("%q = %s, want %s", input, got, want)
		}
	})
	if same < 150 || strict < 20 {
		t.Errorf("%d cases that a job may have and %d repaired ones, want many", same, strict)
	}
}

func TestHostsAreReadAsTheURLStandardReadsThem(t *testing.T) {
	vectors(t, "testdata/wpt-hosts.txt", func(c []string) {
		input, want := c[0], c[1]
		u, err := jobs.ParseURL("https://" + input + "/")
		got := outcome(u, err)
		if err == nil {
			got = u.Hostname()
		}
		if !fits(got, want) {
			t.Errorf("%q = %s, want %s", input, got, want)
		}
	})
}

func TestPathAndQueryAreSentAsTheyWereGiven(t *testing.T) {
	for url, want := range map[string]string{
		"http://slash.test/a%2Fb|c":            "/a%2Fb|c",
		"http://slash.test/wiki/Straße%2FWeg":  "/wiki/Stra%C3%9Fe%2FWeg",
		"http://slash.test/a%3Bb/ü":            "/a%3Bb/%C3%BC",
		"http://space.test/find?q=red shoes":   "/find?q=red%20shoes",
		"http://percent.test/100%-cotton":      "/100%-cotton",
		"http://percent.test/sale/50%off":      "/sale/50%off",
		`http://quote.test/?q="a"<b>`:          "/?q=%22a%22%3Cb%3E",
		"http://dots.test/a/../b/./c":          "/a/../b/./c",
		"http://dots.test/%2e%2E/b":            "/%2e%2E/b",
		"http://empty.test":                    "/",
		"http://empty.test?":                   "/?",
		"http://empty.test?a=b":                "/?a=b",
		"http://fragment.test/a#b?c":           "/a",
		"http://slashes.test//a///b":           "//a///b",
		"http://reserved.test/!$&'()*+,;=:@[]": "/!$&'()*+,;=:@[]",
		"http://query.test/?/?[]^`{|}~":        "/?/?[]^`{|}~",
		"http://controls.test/\x01?\x7f":       "/%01?%7F",
		"http://blank.test/ a ":                "/%20a%20",
		"http://bytes.test/?\xff\xfe":          "/?%FF%FE",
		"http://plus.test/a+b?c+d=%20&e=%zz%":  "/a+b?c+d=%20&e=%zz%",
		"http://host.test/a?x HTTP/1.0":        "/a?x%20HTTP/1.0",
	} {
		if u := mustParse(t, url); u.RequestTarget() != want {
			t.Errorf("%s: got %s, want %s", url, u.RequestTarget(), want)
		}
	}
}

func TestHostAndPortAreInTheirNormalForm(t *testing.T) {
	for url, want := range map[string][2]string{ // Host header, address
		"http://port.test:80/":       {"port.test", "port.test:80"},
		"http://port.test:/":         {"port.test", "port.test:80"},
		"https://port.test:443/":     {"port.test", "port.test:443"},
		"https://port.test:80/":      {"port.test:80", "port.test:80"},
		"http://port.test:0008080/":  {"port.test:8080", "port.test:8080"},
		"HTTP://Capital.Test/":       {"capital.test", "capital.test:80"},
		"http://a_b.bücher.test/":    {"a_b.xn--bcher-kva.test", "a_b.xn--bcher-kva.test:80"},
		"http://STRA\u1e9eE.test/":   {"xn--strae-oqa.test", "xn--strae-oqa.test:80"},
		"http://root.test./":         {"root.test.", "root.test.:80"},
		"http://%65xample.test/":     {"example.test", "example.test:80"},
		"http://[2001:DB8::0:1]/":    {"[2001:db8::1]", "[2001:db8::1]:80"},
		"http://[::1]:8080/":         {"[::1]:8080", "[::1]:8080"},
		"http://0x08.010.2056/":      {"8.8.8.8", "8.8.8.8:80"},
		"http://[::ffff:8.8.8.8]/":   {"[::ffff:808:808]", "[::ffff:808:808]:80"},
		"http://[fe80::1%25eth0]/":   {"[fe80::1]", "[fe80::1]:80"},
		"http://８.8.８.8/":            {"8.8.8.8", "8.8.8.8:80"},
		"http://xn--bcher-kva.test/": {"xn--bcher-kva.test", "xn--bcher-kva.test:80"},
	} {
		if u := mustParse(t, url); u.Authority() != want[0] || u.HostPort() != want[1] {
			t.Errorf("%s: Host %s at %s, want %s", url, u.Authority(), u.HostPort(), want)
		}
	}
}

func TestLocationsAreRelativeToTheAnsweringURL(t *testing.T) {
	base := mustParse(t, "http://shop.test:8080/a/../b/c?q#f")
	for location, want := range map[string]string{
		"x":                       "http://shop.test:8080/b/x",
		"":                        "http://shop.test:8080/b/c?q",
		"?r":                      "http://shop.test:8080/b/c?r",
		"#part":                   "http://shop.test:8080/b/c?q",
		"../x/./%2E%2e/y/..":      "http://shop.test:8080/",
		"/50%off|a b":             "http://shop.test:8080/50%off|a%20b",
		"//Other.test/..//a":      "http://other.test//a",
		"http:///host.test/":      "http://host.test/",
		"https:host.test/a":       "https://host.test/a",
		"http:page":               "http://shop.test:8080/b/page",
		`\\host.test\a\b?c\d`:     `http://host.test/a/b?c\d`,
		`/a\..\b`:                 "http://shop.test:8080/b",
		" \t/a\tb\t ":             "http://shop.test:8080/ab",
		"ht\ttp://host.test/":     "http://host.test/",
		"//host.test:443":         "http://host.test:443/",
		"https://host.test:443/":  "https://host.test/",
		"/caf\xe9":                "http://shop.test:8080/caf%E9",
		"/a?x HTTP/1.0 ":          "http://shop.test:8080/a?x%20HTTP/1.0",
		"/a?x HTTP/1.1\r\nHost: ": "http://shop.test:8080/a?x%20HTTP/1.1Host:",
	} {
		if got := outcome(base.Resolve(location)); got != want {
			t.Errorf("%q = %s, want %s", location, got, want)
		}
	}
}

func TestURLErrorsSayWhatIsWrongAndRepeatNothing(t *testing.T) {
	for url, want := range map[string]string{
		"http://a.test/s3cret\\x":    "backslash",
		"http://a.test/s3cret\tx":    "tab",
		"http:a.test/s3cret":         "not an absolute http or https URL",
		"s3cret":                     "not an absolute http or https URL",
		"ftp://s3cret/":              "not an absolute http or https URL",
		"http:///s3cret":             "no host",
		"http://?s3cret":             "no host",
		"http://./s3cret":            "no host",
		"http://user:s3cret@a.test/": "user information",
		"http://@a.test/s3cret":      "user information",
		"http://a.test:s3cret/":      "the port is not a number",
		"http://a.test:-1/s3cret":    "the port is not a number",
		"http://a.test:65536/s3cret": "between 1 and 65535",
		"http://a.test:0/s3cret":     "between 1 and 65535",
		"http://s3cret..test/":       "label",
		"http://*/s3cret":            "label",
		"http://127.0.0.257/s3cret":  "IPv4",
		"http://08.8.8.8/s3cret":     "IPv4",
		"http://[::1/s3cret":         "IPv6",
		"http://[s3cret]/":           "IPv6",
		"http://[::1%eth0]/s3cret":   "IPv6",
		"http://[::1%25]/s3cret":     "zone",
		"http://[::1]x/s3cret":       "IPv6",
		"http://s3c ret/":            "characters",
		"http://s3cret%00/":          "characters",
		"http://s3cret%/":            "characters",
		"http://s3cret\u200d/":       "IDNA",
		"http://s3cret\u00fc.xn--/":  "IDNA",
		"http://s3cret\xff/":         "IDNA",
		"http://s3cret" + strings.Repeat("a.", 130) + "test": "longer than 253 bytes",
		"http://" + strings.Repeat("\u00ad", 600) + "s3cret": "longer than 253 bytes", // although it is shorter once mapped
		"http://a.test/s3cret" + strings.Repeat("a", 8192):   "longer than 8192 bytes",
	} {
		if u, err := jobs.ParseURL(url); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3c") || !u.IsZero() {
			t.Errorf("%.60q = %v, %v; want an error with %q", url, u, err, want)
		}
	}
}

func TestURLAsLongAsAllowedIsTaken(t *testing.T) {
	const start = "http://a.test/"
	longest := start + strings.Repeat("a", jobs.MaxURLBytes-len(start))
	if _, err := jobs.ParseURL(longest); err != nil {
		t.Error(err)
	}
	base := mustParse(t, "http://a.test/")
	if got := outcome(base.Resolve(longest)); got != longest {
		t.Errorf("as a Location: %.40s", got)
	}
	for _, location := range []string{longest + "a", "/" + strings.Repeat("a", jobs.MaxURLBytes-13), "/" + strings.Repeat("ü", jobs.MaxURLBytes/4)} {
		if got := outcome(base.Resolve(location)); got != "!!" {
			t.Errorf("%d bytes: got %.40s, want the redirect to be refused", len(location), got)
		}
	}
}

func ExampleURL_Resolve() {
	u, _ := jobs.ParseURL("https://Example.com:443/a/b?c=d e")
	fmt.Println(u)
	next, _ := u.Resolve(`..\next?50%`)
	fmt.Println(next, next.RequestTarget())
	// Output:
	// https://example.com/a/b?c=d%20e
	// https://example.com/next?50% /next?50%
}
