package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/gofer-mq/gofer/jobs"
)

// The headers of a batch that is stored whole or not at all (NATS ADR-50), and of an increment (ADR-49).
const (
	headerBatchID     = "Nats-Batch-Id"
	headerBatchSeq    = "Nats-Batch-Sequence"
	headerBatchCommit = "Nats-Batch-Commit"
	headerIncrement   = "Nats-Incr"
)

const (
	codeBatchesOff       jetstream.ErrorCode = 10174
	codeBatchesDuplicate jetstream.ErrorCode = 10201
)

// ErrNoBatches says that the stream of the rollups was made by an older version and takes no batches.
var ErrNoBatches = errors.New("the stream takes no batches: run gofer setup")

// Increments are added to the fleet's counters, all of them or none.
type Increments struct {
	// ID names them, the same at every repetition. Mark names a counter that nobody else increments: the ID that is
	// stored with it is that of the last increments which were stored.
	ID, Mark string
	// Counts are whole decimal numbers by the name of their counter, at most 999; without any, the mark alone is stored.
	Counts map[string]string
	// Repeated says that they may be stored already: a try before this one got no answer, or an error.
	Repeated bool
}

// AddRollups stores increments. They count once, however often they are repeated, if those of one mark are stored one
// after the other: a repetition first looks at the mark, which outlasts restarts and any time of silence; and if the
// first try is still under way then, the server knows the second one by its id.
//
// One call costs the server about 4 ms of its processor and two syncs of a disk; with the rows of 1,000 proxies, which take
// two calls, it is four times that (BenchmarkFlush). After an error they may be stored or not. Errors: ErrNoBatches,
// ErrPermission, ErrNotSetUp; any other one may pass.
func (c *Client) AddRollups(ctx context.Context, inc Increments) error {
	const doing = "add up rollups"
	ctx, cancel := bounded(ctx)
	defer cancel()
	if inc.Repeated {
		stored, err := c.RollupMark(ctx, inc.Mark)
		if err != nil || stored == inc.ID {
			return err
		}
	}
	err := c.batch(ctx, inc)
	switch code, _ := apiError(err); code {
	case codeBatchesDuplicate:
		return nil
	case codeBatchesOff:
		return fmt.Errorf("%s: %w", doing, ErrNoBatches)
	}
	return c.explain(doing, err)
}

// RollupMark is the ID of the last increments that were stored under a mark, empty if none were, or if the counters were
// deleted since.
func (c *Client) RollupMark(ctx context.Context, mark string) (id string, err error) {
	msg, err := c.last(ctx, c.names.Stream("ROLLUPS"), RollupSubject(c.names, mark))
	if isNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", c.explain("read a mark of the rollups", err)
	}
	return msg.Header.Get(jetstream.MsgIDHeader), nil
}

// batch publishes the increments and waits for the answer to the last message, the mark's, which commits all. What the
// server has to say against an earlier one it says there again.
func (c *Client) batch(ctx context.Context, inc Increments) error {
	id := nuid.Next()
	at := 0
	message := func(name, count string) *nats.Msg {
		at++
		return &nats.Msg{Subject: RollupSubject(c.names, name), Header: nats.Header{
			headerBatchID: {id}, headerBatchSeq: {strconv.Itoa(at)}, headerIncrement: {"+" + count},
		}}
	}
	for _, name := range slices.Sorted(maps.Keys(inc.Counts)) {
		if err := c.nc.PublishMsg(message(name, inc.Counts[name])); err != nil {
			return err
		}
	}
	last := message(inc.Mark, "1")
	last.Header[headerBatchCommit] = []string{"1"}
	last.Header[jetstream.MsgIDHeader] = []string{inc.ID}
	msg, err := c.nc.RequestMsgWithContext(ctx, last)
	if err != nil {
		return err
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(msg.Data, &answer); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	if answer.Error != nil {
		return answer.Error
	}
	return nil
}

// Rollups calls use for the sum of every counter whose name begins with prefix and a dot, and was changed since a time,
// zero meaning all; known once all that were stored at the beginning have been used; then use for each change as it
// comes, until ctx ends, whose cause comes back. A sum may come twice, and an older one before a newer one, never after.
func (c *Client) Rollups(ctx context.Context, prefix string, since time.Time, use func(name, sum string), known func()) error {
	const doing = "read rollups"
	f := Filter{All: since.IsZero(), Since: since}
	subject := RollupSubject(c.names, prefix+".>")
	consumer, err := c.follower(ctx, c.names.Stream("ROLLUPS"), []string{subject}, f)
	if err != nil {
		return c.explain(doing, err)
	}
	if consumer.CachedInfo().NumPending == 0 {
		known()
		known = nil
	}
	messages, err := consumer.Messages(jetstream.WithMessagesErrOnMissingHeartbeat(false))
	if err != nil {
		return c.explain(doing, err)
	}
	defer messages.Stop()
	for {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return c.explain(doing, err)
		}
		var value struct {
			Sum string `json:"val"`
		}
		if err := json.Unmarshal(msg.Data(), &value); err == nil {
			use(strings.TrimPrefix(msg.Subject(), RollupSubject(c.names, "")), value.Sum)
		}
		if meta, err := msg.Metadata(); err == nil && meta.NumPending == 0 && known != nil {
			known()
			known = nil
		}
	}
}

// Breakers calls use for the breaker events of the whole fleet that were stored since a time, zero meaning all that are
// kept, and then for each new one, until ctx ends, whose cause comes back.
func (c *Client) Breakers(ctx context.Context, since time.Time, use func(stored time.Time, e jobs.BreakerEvent)) error {
	subjects := []string{c.names.BreakerEvent("*")}
	f := Filter{All: since.IsZero(), Since: since}
	return c.follow(ctx, c.names.Stream("EVENTS"), subjects, f, func(msg jetstream.Msg) error {
		var e jobs.BreakerEvent
		meta, err := msg.Metadata()
		if err == nil && json.Unmarshal(msg.Data(), &e) == nil { // whoever may publish events may publish nonsense
			use(meta.Timestamp, e)
		}
		return nil
	})
}
