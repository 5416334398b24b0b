package main

import (
	"errors"
	"os"
	"strings"

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
	listed, err := parseProxies("GOFER_PROXIES", strings.ReplaceAll(c.Proxies, ",", "\n"))
	filed, fileErr := c.filedProxies()
	if err := errors.Join(err, fileErr); err != nil {
		return nil, &configError{reasons: strings.Split(err.Error(), "\n")}
	}
	return union(listed, filed), nil
}

func (c *config) filedProxies() ([]proxylist.Proxy, error) {
	if c.ProxiesFile == "" {
		return nil, nil
	}
	data, err := os.ReadFile(c.ProxiesFile)
	if err != nil {
		return nil, errors.New("GOFER_PROXIES_FILE: " + err.Error())
	}
	return parseProxies("GOFER_PROXIES_FILE", string(data))
}

func parseProxies(source, text string) ([]proxylist.Proxy, error) {
	list, err := proxylist.ParseList(strings.NewReader(text))
	if err == nil {
		return list, nil
	}
	lines := strings.Split(err.Error(), "\n")
	for i := range lines {
		lines[i] = source + ": " + lines[i]
	}
	return nil, errors.New(strings.Join(lines, "\n"))
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
