package bus

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go/jetstream"
)

// ReadUntilNow reads what a consumer has now, as Follow does with UntilNow.
func (c *Client) ReadUntilNow(ctx context.Context, consumer jetstream.Consumer) error {
	r, err := c.read(ctx, consumer, 1)
	if err != nil {
		return err
	}
	defer r.close()
	for u := c.newUntilNow(r, consumer); err == nil; {
		_, err = u.next(ctx)
	}
	if errors.Is(err, errNoMore) {
		return nil
	}
	return err
}

// ConsumerRules and StreamRules are the settings that have a rule.
func ConsumerRules() (names []string) { return ruled(consumerRules()) }

func StreamRules() (names []string) { return ruled(streamRules()) }

func ruled[C any](rules map[string]rule[C]) (names []string) {
	for name := range rules {
		names = append(names, name)
	}
	return names
}
