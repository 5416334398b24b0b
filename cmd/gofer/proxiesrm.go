package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
)

// proxiesRm removes proxies from the fleet's bucket. It stops at the first one that is not there, since a proxy of an
// environment or a file cannot be removed here. Attempts through a removed proxy go on to their end; no new one
// begins.
func (a *app) proxiesRm(ctx context.Context, s *session, ids []string) error {
	// All ids are checked before the first is removed.
	for _, id := range ids {
		if !jobs.ValidProxyID(id) {
			return usage("%q is not the id of a proxy", id)
		}
	}
	kv, err := s.bucket(ctx, "proxies")
	if err != nil {
		return err
	}
	for _, id := range ids {
		// Delete alone would succeed for any id, also for a misspelt one.
		if _, err := kv.Get(ctx, id); errors.Is(err, jetstream.ErrKeyNotFound) {
			return fmt.Errorf("proxy %s is not in the fleet's bucket; one that a worker's environment or file names is removed there", id)
		} else if err != nil {
			return fmt.Errorf("proxy %s in the bucket: %w", id, err)
		}
		if err := kv.Delete(ctx, id); err != nil {
			return fmt.Errorf("remove proxy %s: %w", id, err)
		}
		// Printed at once, so an error later shows how far it came.
		if err := a.say(map[string]any{"id": id, "removed": true}, "%s", id); err != nil {
			return err
		}
	}
	return nil
}
