package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
)

// report writes to lost.txt where each lost job is, whether its result was seen, and the state of the streams and of their
// consumers. Who looks for the cause of a loss needs them, and they are gone with the servers.
func (w *world) report(ctx context.Context, lost []string, seen map[string]int) error {
	var out strings.Builder
	for _, id := range lost {
		places, err := client.New(w.client).Find(ctx, bus.Key{Queue: jobs.DefaultQueue, ID: id})
		w.ledger.mu.Lock()
		since := w.ledger.jobs[id].since
		w.ledger.mu.Unlock()
		fmt.Fprintf(&out, "%s: could end from %s on, fetched %d times, result seen %d times, is at %v, %v\n",
			id, since.Format(time.TimeOnly+".000"), w.origin.askedFor(id), seen[id], places, err)
	}
	lines := json.NewEncoder(&out)
	streams := w.client.JetStream().ListStreams(ctx)
	for info := range streams.Info() {
		_ = lines.Encode(info) // a builder takes everything
		stream, err := w.client.JetStream().Stream(ctx, info.Config.Name)
		if err != nil {
			return err
		}
		for consumer := range stream.ListConsumers(ctx).Info() {
			_ = lines.Encode(consumer)
		}
	}
	return os.WriteFile(filepath.Join(w.dir, "lost.txt"), []byte(out.String()), 0o600)
}
