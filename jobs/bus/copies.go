package bus

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// copiesValid is how long it is believed who copies a stream, unless the number of its consumers changes.
const copiesValid = time.Minute

// copies is what a client knows of the streams that mirror or source the work queues. The zero value knows nothing.
type copies struct {
	mu   sync.Mutex // guards seen; not held during a request
	seen map[string]seenCopies
}

// seenCopies is who copied a stream when its consumers were listed.
type seenCopies struct {
	created   time.Time // of the stream
	consumers int       // of the stream
	at        time.Time
	found     []Difference
}

// inspectCopies reports the streams that mirror or source a work queue. The server counts a message as consumed once such a stream
// has it, and removes it unless another consumer wants it: a waiting job has no other one, and would be lost before its time. A
// job in a queue that nobody has served has none either.
//
// The server reads for such a stream by a consumer, so the consumers are listed when their number changes, else once a minute. A
// user who may not list them is not told, and a server that does not answer changes nothing.
func (c *Client) inspectCopies(ctx context.Context, info *jetstream.StreamInfo, use Use) []Difference {
	name := info.Config.Name
	c.copies.mu.Lock()
	seen := c.copies.seen[name]
	c.copies.mu.Unlock()
	if seen.created.Equal(info.Created) && seen.consumers == info.State.Consumers && time.Since(seen.at) < copiesValid {
		return slices.Clone(seen.found)
	}
	var readers []string
	err := c.Consumers(Optional(ctx), name, func(reader *jetstream.ConsumerInfo) {
		if stream := copyingStream(reader); stream != "" {
			readers = append(readers, stream)
		}
	})
	if err != nil && !errors.Is(c.Explain("list consumers", err), ErrPermission) {
		return slices.Clone(seen.found)
	}
	seen = seenCopies{created: info.Created, consumers: info.State.Consumers, at: time.Now()}
	if len(readers) > 0 {
		slices.Sort(readers)
		seen.found = []Difference{{
			Name: "stream " + name, Field: "mirrored or sourced by", Have: "stream " + strings.Join(readers, " and stream "), Want: "no stream",
			Use: use, Repair: OwnersChoice, Essential: true,
		}}
	}
	c.copies.mu.Lock()
	defer c.copies.mu.Unlock()
	if c.copies.seen == nil {
		c.copies.seen = map[string]seenCopies{}
	}
	c.copies.seen[name] = seen
	return slices.Clone(seen.found)
}

// copyingStream names the stream for which the server made a consumer, quoted; empty for any other consumer. Servers before 2.14
// list no such consumers.
func copyingStream(reader *jetstream.ConsumerInfo) string {
	if !strings.HasPrefix(reader.Name, "JS_MIRROR_") && !strings.HasPrefix(reader.Name, "JS_SRC_") {
		return ""
	}
	// The owner may have created the consumer, which then names no stream.
	about := reader.Config.Metadata
	return strconv.Quote(cmp.Or(about["_nats.mirror.stream"], about["_nats.src.stream"], "of consumer "+reader.Name))
}
