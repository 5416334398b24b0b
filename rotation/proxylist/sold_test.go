package proxylist_test

import (
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/rotation/proxylist"
)

func TestListsAreReadAsSellersWriteThem(t *testing.T) {
	for line, want := range map[string]string{
		"192.0.2.1:8080":                        "http://192.0.2.1:8080",
		"192.0.2.1:8080:user:secret":            "http://user:secret@192.0.2.1:8080",
		"192.0.2.1:8080:user:se:cr:et":          "http://user:se%3Acr%3Aet@192.0.2.1:8080",
		"192.0.2.1:8080:user:p@ss/word%":        "http://user:p%40ss%2Fword%25@192.0.2.1:8080",
		"user:secret@gate.example.net:8000":     "http://user:secret@gate.example.net:8000",
		"user:p@ss/w%rd@gate.example.net:8000":  "http://user:p%40ss%2Fw%25rd@gate.example.net:8000",
		"user@gate.example.net:8000":            "http://user@gate.example.net:8000",
		"[2001:db8::1]:3128":                    "http://[2001:db8::1]:3128",
		"[2001:db8::1]:3128:user:secret":        "http://user:secret@[2001:db8::1]:3128",
		"socks5://user:secret@192.0.2.1:1080":   "socks5://user:secret@192.0.2.1:1080",
		"HTTPS://gate.example.net:443":          "https://gate.example.net:443",
		"192.0.2.1:8080 region=eu":              "http://192.0.2.1:8080",
		"\ufeff192.0.2.1:8080":                  "http://192.0.2.1:8080",
		"192.0.2.1:8080\r":                      "http://192.0.2.1:8080",
		"192.0.2.1:8080:user:secret\tregion=eu": "http://user:secret@192.0.2.1:8080",
		"192.0.2.1:8080:user:s3c@ret:99":        "http://user:s3c%40ret%3A99@192.0.2.1:8080",
		"192.0.2.1:8080:user:a://b":             "http://user:a%3A%2F%2Fb@192.0.2.1:8080",
		"user:a://b@gate.example.net:8000":      "http://user:a%3A%2F%2Fb@gate.example.net:8000",
		"gate:8000:me@mail.example:secret":      "http://me%40mail.example:secret@gate:8000",
		"2001:470:1f0b:10::5:3128":              "",
		"192.0.2.1":                             "",
		"192.0.2.1:":                            "",
		":8080":                                 "",
		"192.0.2.1:99999":                       "",
		"192.0.2.1:8080:user":                   "",
		"http://192.0.2.1":                      "",
		"ftp://192.0.2.1:21":                    "",
		"2001:db8::1:3128":                      "",
	} {
		list, err := proxylist.ParseSold(strings.NewReader(line+"\n"), "http")
		if err != nil || len(list) != 1 {
			t.Errorf("%q: %v, %v; want one line", line, list, err)
			continue
		}
		got := ""
		if list[0].Err == nil {
			got = list[0].Proxy.URL.String()
		}
		if got != want {
			t.Errorf("%q is %q, %v; want %q", line, got, list[0].Err, want)
		}
	}
}
