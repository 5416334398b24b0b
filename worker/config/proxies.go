package config

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/gofer-mq/gofer/jobs/text"
	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// ReadProxies reads GOFER_PROXIES and GOFER_PROXIES_FILE. The error is an *Error that names every broken line, and holds no
// line's text.
func (c *Config) ReadProxies() ([]proxylist.Proxy, error) {
	entries, err := splitProxies(c.Proxies)
	if err != nil {
		// Both are read before an error is returned, so that the mistakes of both are named.
		return nil, &Error{Reasons: linesOf("GOFER_PROXIES", err)}
	}
	listed, err := proxylist.ParseEntries(entries)
	filed, fileErr := c.filedProxies()
	if reasons := append(linesOf("GOFER_PROXIES", err), linesOf("GOFER_PROXIES_FILE", fileErr)...); len(reasons) > 0 {
		return nil, &Error{Reasons: reasons}
	}
	// The file wins, because the variable cannot be edited while a worker runs.
	return proxylist.Join(listed, filed), nil
}

// splitProxies splits GOFER_PROXIES at line ends, and at a comma only before the scheme of the next proxy: tags and passwords may
// hold commas, too.
func splitProxies(list string) (entries []string, err error) {
	// The scheme cannot be a part of what stands before the comma, since :// follows it.
	ends := regexp.MustCompile(`,\s*([A-Za-z][A-Za-z0-9+.-]*://)`)
	for line, err := range text.Lines(strings.NewReader(ends.ReplaceAllString(list, "\n$1")), maxEntry) {
		if err != nil {
			return nil, err
		}
		if entry := strings.TrimRight(string(line.Text), ", \t"); entry != "" {
			entries = append(entries, entry)
		}
	}
	return entries, nil
}

// maxEntry bounds one entry of GOFER_PROXIES, in bytes. A longer one is a mistake, such as a whole file in the
// variable.
const maxEntry = 64 << 10

// filedProxies reads the file again at each call, because it is called when the file has changed.
func (c *Config) filedProxies() ([]proxylist.Proxy, error) {
	if c.ProxiesFile == "" {
		return nil, nil
	}
	data, err := text.ReadFile(c.ProxiesFile, 0, maxProxiesFile)
	if err != nil {
		return nil, err
	}
	return proxylist.ParseList(bytes.NewReader(data))
}

// ParseProxies reads a list of proxies, one a line. Each line of the error begins with the name of the list. One
// broken line refuses the list, as everywhere, so that half a list never becomes a pool.
func ParseProxies(name string, list io.Reader) ([]proxylist.Proxy, error) {
	proxies, err := proxylist.ParseList(list)
	if err != nil {
		return nil, joined(linesOf(name, err))
	}
	return proxies, nil
}

// linesOf returns the lines of an error, each with the name of its source in front; none for nil.
func linesOf(source string, err error) (lines []string) {
	for _, line := range Lines(err) {
		lines = append(lines, fmt.Sprintf("%s: %s", source, line))
	}
	return lines
}

// JoinProxies returns the pool of a worker without the fleet's bucket. own are the proxies of environment and file. They win
// over the fetched ones, because somebody else may write that list.
func JoinProxies(own, fetched []proxylist.Proxy) []proxylist.Proxy {
	return proxylist.Join(fetched, own)
}
