package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/gofer-mq/gofer/jobs/text"
	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// loadWorkerConfig also reads the proxies. The *configError names what is wrong with either, so that all of it can be
// mended in one go.
func loadWorkerConfig() (config, []proxylist.Proxy, error) {
	c, err := loadConfig()
	proxies, proxiesErr := c.proxies()
	var reasons []string
	for _, err := range []error{err, proxiesErr} {
		if bad, ok := errors.AsType[*configError](err); ok {
			reasons = append(reasons, bad.reasons...)
		}
	}
	if len(reasons) > 0 {
		return c, nil, &configError{reasons: reasons}
	}
	return c, proxies, nil
}

// proxies reads GOFER_PROXIES and GOFER_PROXIES_FILE. The error is a *configError that names every broken line, and
// holds no line's text.
func (c *config) proxies() ([]proxylist.Proxy, error) {
	entries, err := splitProxies(c.Proxies)
	if err != nil {
		return nil, &configError{reasons: errorLines(named("GOFER_PROXIES", err))}
	}
	listed, err := proxylist.ParseEntries(entries)
	filed, fileErr := c.filedProxies()
	reasons := append(errorLines(named("GOFER_PROXIES", err)), errorLines(named("GOFER_PROXIES_FILE", fileErr))...)
	if len(reasons) > 0 {
		return nil, &configError{reasons: reasons}
	}
	return union(listed, filed), nil
}

// splitProxies takes a list of proxies apart: at line ends, and at commas before the scheme of the next one, because tags and
// passwords may hold commas.
func splitProxies(list string) (entries []string, err error) {
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

// maxEntry bounds one entry of GOFER_PROXIES, in bytes.
const maxEntry = 64 << 10

func (c *config) filedProxies() ([]proxylist.Proxy, error) {
	if c.ProxiesFile == "" {
		return nil, nil
	}
	data, err := os.ReadFile(c.ProxiesFile)
	if err != nil {
		return nil, err
	}
	return proxylist.ParseList(bytes.NewReader(data))
}

// named is err with the name of a source before each of its lines.
func named(source string, err error) error {
	var errs []error
	for _, line := range errorLines(err) {
		errs = append(errs, fmt.Errorf("%s: %s", source, line))
	}
	return errors.Join(errs...)
}

// union is a followed by what b adds; where both name a proxy, b wins.
func union(a, b []proxylist.Proxy) []proxylist.Proxy {
	out := make([]proxylist.Proxy, 0, len(a)+len(b))
	at := make(map[string]int, len(a)+len(b))
	for _, list := range [][]proxylist.Proxy{a, b} {
		for _, p := range list {
			if i, known := at[p.ID]; known {
				out[i] = p
				continue
			}
			at[p.ID] = len(out)
			out = append(out, p)
		}
	}
	return out
}
