package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/config"
)

// proxiesAdd stores proxies in the fleet's bucket, one after the other, and prints the id of each that is stored. All
// lines are checked before the first is stored. Every running worker has a proxy within a second after its id was
// printed.
func (a *app) proxiesAdd(ctx context.Context, s *session, lines []string) error {
	list, err := a.proxiesToAdd(lines)
	if err != nil {
		return asUsage(inputError(ctx, err))
	}
	kv, err := s.bucket(ctx, "proxies")
	if err != nil {
		return err
	}
	for _, p := range list {
		// Put replaces any entry: the last writer wins.
		if _, err := kv.PutString(ctx, p.ID, p.Line()); err != nil {
			return fmt.Errorf("add proxy %s: %w", p.ID, err)
		}
		if err := a.say(map[string]any{"id": p.ID, "added": true}, "%s", p.ID); err != nil {
			return err
		}
	}
	return nil
}

// proxiesToAdd returns the one proxy that the arguments name together, or what standard input lists. Errors hold no
// credentials.
func (a *app) proxiesToAdd(args []string) ([]proxylist.Proxy, error) {
	if len(args) == 1 && args[0] == "-" {
		return config.ParseProxies("standard input", a.in)
	}
	// The shell has split one line into arguments; joined again they are that line.
	p, err := proxylist.ParseLine(strings.Join(args, " "))
	switch {
	case err == nil:
		return []proxylist.Proxy{p}, nil
	// Without a scheme it is probably a line of a seller's list.
	case !strings.Contains(args[0], "://"): // the text may be a secret, so it is not repeated
		return nil, fmt.Errorf("proxies add: %w; gofer proxies import - takes lines such as host:port", err)
	}
	return nil, fmt.Errorf("proxies add: %w", err)
}
