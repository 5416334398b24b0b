package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// RollupSums are the sums of those of at most 512 counters that there are, by name, in one request. Any replica answers, which
// may be a moment behind its leader.
//
// Errors: ErrNotSetUp, ErrPermission; any other one may pass, that of a broken counter once MendRollups has mended it.
func (c *Client) RollupSums(ctx context.Context, names []string) (map[string]string, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	subjects := make([]string, len(names))
	for i, name := range names {
		subjects[i] = RollupSubject(c.names, name)
	}
	sums := map[string]string{}
	err := c.lastOf(ctx, c.names.Stream("ROLLUPS"), subjects, func(msg *nats.Msg) error {
		var value struct {
			Sum string `json:"val"`
		}
		name := strings.TrimPrefix(msg.Header.Get(jetstream.SubjectHeader), RollupSubject(c.names, ""))
		if err := json.Unmarshal(msg.Data, &value); err != nil {
			return fmt.Errorf("the counter %s is broken: %w", name, err)
		}
		sums[name] = value.Sum
		return nil
	})
	return sums, c.explain("look for rollups", err)
}

// EventsMade is when the stream of the events was made. Another one under its name counts from 1 again: who follows the one before
// waits there for what comes next in it.
//
// Errors: ErrNotSetUp, ErrPermission; any other one may pass.
func (c *Client) EventsMade(ctx context.Context) (time.Time, error) {
	return c.made(ctx, c.names.Stream("EVENTS"))
}

func (c *Client) made(ctx context.Context, name string) (time.Time, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	stream, err := c.js.Stream(ctx, name)
	if err != nil {
		return time.Time{}, c.explain("look for stream "+name, err)
	}
	return stream.CachedInfo().Created, nil
}
