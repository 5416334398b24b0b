package bus

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go/jetstream"
)

// ReadUntilNow reads what a consumer has now, as Follow does with UntilNow, and returns how many messages came.
func (c *Client) ReadUntilNow(ctx context.Context, consumer jetstream.Consumer) (n int, err error) {
	r, err := c.read(ctx, consumer, 1)
	if err != nil {
		return 0, err
	}
	defer r.close()
	for u := c.newUntilNow(r, consumer); ; n++ {
		if _, err := u.next(ctx); errors.Is(err, errNoMore) {
			return n, nil
		} else if err != nil {
			return n, err
		}
	}
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
