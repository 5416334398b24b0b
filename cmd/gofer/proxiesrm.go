package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
)

// proxiesRm removes proxies from the fleet's bucket, and stops at the first one that is not there. It checks all ids first.
// Attempts through a removed proxy go on.
func (a *app) proxiesRm(ctx context.Context, s *session, ids []string) error {
	// An id that no proxy can have is a mistake in the call, so nothing is removed then.
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
		// Delete alone would succeed for any id, also for a misspelt one. Another call may remove the proxy between Get and Delete,
		// which is no error: it is gone.
		if _, err := kv.Get(ctx, id); errors.Is(err, jetstream.ErrKeyNotFound) {
			return fmt.Errorf("proxy %s is not in the fleet's bucket; one that a worker's environment or file names is removed there", id)
		} else if err != nil {
			return fmt.Errorf("proxy %s in the bucket: %w", id, err)
		}
		if err := kv.Delete(ctx, id); err != nil {
			return fmt.Errorf("remove proxy %s: %w", id, err)
		}
		// Printed at once, so an error later shows how far it came.
		if err := a.printDone(map[string]any{"id": id, "removed": true}, "%s", id); err != nil {
			return err
		}
	}
	return nil
}
