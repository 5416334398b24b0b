package text_test

import (
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/jobs/text"
)

func TestUserInfoIsHidden(t *testing.T) {
	t.Parallel()
	for written, want := range map[string]string{
		"":                              "",
		"a@b.test":                      "a@b.test",
		"@":                             "@",
		":@":                            "…@",
		"10:30 at a@b":                  "10:30 at a@b",
		"http://a.test/@x":              "…@x", // too much is hidden rather than too little
		"http://user:s3cret@p.test:80":  "…@p.test:80",
		"user:s3cret@p.test":            "…@p.test",
		`"http://u:s3/cr@et@h/" is bad`: `"…@h/" is bad`,
		"open u:s3cret@h: no such file": "open …@h: no such file",
		"a u:s3cret@h, b u:s3cret2@i":   "a …@h, b …@i",
		`invalid argument 'u:s3cret@h'`: `invalid argument '…@h'`,
		"tab\tu:s3cret@h\nu:s3cret@h":   "tab\t…@h\n…@h",
		"(u:s3cret@h) `u:s3cret@h`":     "(…@h) `…@h`",

		// The password of a URL may hold any character.
		`{"proxy":{"id":"http://bob:pa'sw0rd@gate.test:80"}}`: `{"proxy":{"id":"…@gate.test:80"}}`,
		`no proxy "http://bob:pa\"sw0rd@gate:80"`:             `no proxy "…@gate:80"`,
		"http://bob:pa(sw0rd@gate:80":                         "…@gate:80",
		"a http://bob:pa`sw0rd@gate:80 b":                     "a …@gate:80 b",
		"http://bob b:pa sw@0rd@gate:80/x c@d":                "…@gate:80/x c@d",
		"http://u:p/w'd@gate/ x":                              "…@gate/ x",
		"http://a,http://u:p'w d@h,http://v:p'w@i":            "……@i",
		"http://a.test/\"u@v\"\nb@c":                          "…@v\"\nb@c",
		"http://a.test is down\nb@c":                          "http://a.test is down\nb@c",
		"http://a.test/x, http://b.test/y of b@c":             "http://a.test/x, http://b.test/y of b@c",

		strings.Repeat("u:p@h ", 3) + "x": "…@h …@h …@h x",
	} {
		if got := text.HideUserInfo(written); got != want {
			t.Errorf("%q becomes %q, want %q", written, got, want)
		}
	}
}
