// This program makes the tables wpt-urls.txt and wpt-hosts.txt of the tests of package jobs from the test vectors of the WHATWG
// URL standard, urltestdata.json and toascii.json of https://github.com/web-platform-tests/wpt/tree/master/url/resources:
//
//	go run jobs/testdata/wpt.go DIRECTORY-OF-THE-TWO-FILES
//
// The Web Platform Tests are under the 3-Clause BSD License.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const header = `# Made by jobs/testdata/wpt.go from %s of the Web Platform Tests (web-platform-tests/wpt, 3-Clause BSD License). Do not edit.
# %s
`

type urlCase struct {
	Input, Href, Protocol, Username, Password, Hostname, Port, Hash string
	Base                                                            *string
	Failure                                                         bool
}

type hostCase struct {
	Input  string
	Output *string
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: go run jobs/testdata/wpt.go DIRECTORY")
	}
	if err := errors.Join(urls(os.Args[1]), hosts(os.Args[1])); err != nil {
		log.Fatal(err)
	}
}

// read decodes the objects of a list and skips the comments between them.
func read[T any](file string) (cases []T, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var list []json.RawMessage
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	for _, raw := range list {
		if raw[0] != '{' {
			continue
		}
		var c T
		if err := json.Unmarshal(raw, &c); err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		cases = append(cases, c)
	}
	return cases, nil
}

func urls(dir string) error {
	cases, err := read[urlCase](filepath.Join(dir, "urltestdata.json"))
	if err != nil {
		return err
	}
	var table, left strings.Builder
	fmt.Fprintf(&table, header, "urltestdata.json", "input, base or -, the URL without its fragment; ! malformed; !! a URL that gofer does not request, with the reason")
	skipped := 0
	for _, c := range cases {
		base := "-"
		if c.Base != nil && isWeb(*c.Base) {
			base = strconv.Quote(*c.Base)
		}
		switch reason := notCovered(c); reason {
		case "":
			fmt.Fprintf(&table, "%s %s %s\n", strconv.Quote(c.Input), base, expected(c))
		case otherScheme:
			skipped++
		default:
			fmt.Fprintf(&left, "# %s: %s\n", reason, strconv.Quote(c.Input))
		}
	}
	fmt.Fprintf(&table, "# Not covered:\n%s# %s: %d cases\n", left.String(), otherScheme, skipped)
	return os.WriteFile("jobs/testdata/wpt-urls.txt", []byte(table.String()), 0o644)
}

const otherScheme = "neither input nor base is http or https"

func isWeb(url string) bool {
	url = strings.ToLower(strings.TrimLeft(url, "\x00\x1f \t\r\n"))
	return strings.HasPrefix(url, "http:") || strings.HasPrefix(url, "https:")
}

// notCovered says why a case says nothing about gofer.
func notCovered(c urlCase) string {
	web := c.Base != nil && isWeb(*c.Base) || c.Base == nil && isWeb(c.Input)
	switch {
	case !web && !isWeb(c.Protocol):
		return otherScheme
	case !web && c.Base != nil && !isWeb(c.Input):
		return otherScheme
	case c.Base != nil && isWeb(*c.Base) && strings.Contains(*c.Base, "@"):
		return "the base has user information"
	}
	return ""
}

// expected is what gofer has to make of a case.
func expected(c urlCase) string {
	label := func(label string) bool {
		return strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" || label == ""
	}
	labels := strings.Split(strings.TrimSuffix(c.Hostname, "."), ".")
	switch {
	case c.Failure:
		return "!"
	case !isWeb(c.Protocol):
		return "!! scheme"
	case c.Username != "" || c.Password != "":
		return "!! user"
	case c.Port == "0":
		return "!! port"
	case !strings.HasPrefix(c.Hostname, "[") && slices.ContainsFunc(labels, label):
		return "!! label"
	case len(c.Hostname) > 254:
		return "!! long"
	}
	return strconv.Quote(strings.TrimSuffix(strings.TrimSuffix(c.Href, c.Hash), "#"))
}

// tables are the hosts that newer versions of Unicode map in another way than the package golang.org/x/net/idna does.
func tables() []string {
	return []string{"look\u180eout.net", "look\u206bout.net", "\u04c0.com", "\U0002f868.com", "\u2183.com"}
}

func hosts(dir string) error {
	cases, err := read[hostCase](filepath.Join(dir, "toascii.json"))
	if err != nil {
		return err
	}
	var table, left strings.Builder
	fmt.Fprintf(&table, header, "toascii.json", "host, the host in ASCII; ! malformed; !! a host that gofer does not ask, with the reason")
	for _, c := range cases {
		if slices.Contains(tables(), c.Input) {
			fmt.Fprintf(&left, "# the tables of golang.org/x/net/idna are older: %s\n", strconv.QuoteToASCII(c.Input))
			continue
		}
		want := "!"
		if c.Output != nil {
			want = expected(urlCase{Protocol: "http:", Hostname: *c.Output, Href: *c.Output})
		}
		fmt.Fprintf(&table, "%s %s\n", strconv.QuoteToASCII(c.Input), want)
	}
	fmt.Fprintf(&table, "# Not covered:\n%s", left.String())
	return os.WriteFile("jobs/testdata/wpt-hosts.txt", []byte(table.String()), 0o644)
}
