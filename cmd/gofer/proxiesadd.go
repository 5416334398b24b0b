package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/config"
)

// proxiesAdd stores proxies in the fleet's bucket, one after the other, and prints the id of each that is stored. All lines are
// checked before the first is stored.
func (a *app) proxiesAdd(ctx context.Context, s *session, lines []string) error {
	list, err := a.proxiesToAdd(ctx, lines)
	if err != nil {
		// A wrong line is a mistake of the user. If the input was interrupted, inputError returns that, and app.run sets the exit code.
		return asUsage(inputError(ctx, err))
	}
	kv, err := s.bucket(ctx, "proxies")
	if err != nil {
		return err
	}
	// Each id is printed when its proxy is stored, so after an error the output says which ones the fleet has already.
	for _, p := range list {
		if err := addProxy(ctx, kv, p); err != nil {
			return err
		}
		if err := a.printDone(map[string]any{"id": p.ID, "added": true}, "%s", p.ID); err != nil {
			return err
		}
	}
	return nil
}

// proxiesToAdd returns the one proxy that the arguments name together, or what standard input lists. Errors hold no
// credentials.
func (a *app) proxiesToAdd(ctx context.Context, args []string) ([]proxylist.Proxy, error) {
	if len(args) == 1 && args[0] == "-" {
		name, in, done, err := a.openList(ctx, "proxies add", "-")
		if err != nil {
			return nil, err
		}
		defer done()
		return config.ParseProxies(name, in)
	}
	// The shell has split one line into arguments; joined again they are that line.
	p, err := proxylist.ParseLine(strings.Join(args, " "))
	switch {
	case err == nil:
		return []proxylist.Proxy{p}, nil
	// Probably the user has pasted a line of a seller's list, for which there is another verb.
	case !strings.Contains(args[0], "://"):
		return nil, fmt.Errorf("proxies add: %w; gofer proxies import - takes lines such as host:port", err)
	}
	return nil, fmt.Errorf("proxies add: %w", err)
}
