package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/worker/fleet"
)

// proxiesStrategy shows, sets or resets the strategy, which a key of the bucket of policies holds.
func (a *app) proxiesStrategy(ctx context.Context, s *session, args []string) error {
	// The name is checked before the connection is used, so a misspelt one changes nothing.
	if len(args) == 1 && args[0] != "reset" {
		if _, err := rotation.ParseStrategy(args[0]); err != nil {
			return usage("proxies strategy: %w", err)
		}
	}
	kv, err := s.bucket(ctx, "policy")
	if err != nil {
		return err
	}
	switch {
	// Without a strategy in the bucket that of this environment is shown. A worker with another environment uses its own.
	case len(args) == 0:
		name, source, err := strategyOf(ctx, kv, s.config.Strategy)
		if err != nil {
			return err
		}
		return a.printDone(map[string]any{"strategy": name, "source": source}, "%s (%s)", name, source)
	// Delete of a key that does not exist succeeds.
	case args[0] == "reset":
		if err := kv.Delete(ctx, fleet.StrategyKey); err != nil {
			return fmt.Errorf("reset strategy: %w", err)
		}
		return a.printDone(map[string]any{"source": "environment"}, "The workers' environment applies.")
	}
	// One key holds one name, so the last writer wins.
	if _, err := kv.PutString(ctx, fleet.StrategyKey, args[0]); err != nil {
		return fmt.Errorf("set strategy: %w", err)
	}
	return a.printDone(map[string]any{"strategy": args[0], "source": "bucket"}, "%s is the fleet's strategy.", args[0])
}

// errBadStrategy means that no strategy has the name in the bucket, which any user with the right to write may have put there.
var errBadStrategy = errors.New("the strategy in the bucket is not valid, and workers keep the last good one")

// strategyOf returns the strategy in the bucket and "bucket", or own and "environment" if the bucket has none. own is that of the
// caller's environment. A name that is no strategy is an errBadStrategy, which doctor reports; it does not report the errors of
// the bucket.
func strategyOf(ctx context.Context, kv jetstream.KeyValue, own string) (name, source string, err error) {
	entry, err := kv.Get(ctx, fleet.StrategyKey)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return own, "environment", nil
	case err != nil:
		return "", "", err
	}
	strategy, err := fleet.ParseStrategy(entry.Value())
	if err != nil {
		return "", "", fmt.Errorf("%w: %w", errBadStrategy, err)
	}
	return string(strategy), "bucket", nil
}
