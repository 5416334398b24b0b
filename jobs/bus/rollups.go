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
// ErrPermission, ErrNotSetUp; any other one may pass, that of a broken counter once MendRollups has mended it.
func (c *Client) AddRollups(ctx context.Context, inc Increments) error {
	const doing = "add up rollups"
	ctx, cancel := bounded(ctx)
	defer cancel()
	if inc.Repeated {
		stored, _, err := c.RollupMark(ctx, inc.Mark)
		if err != nil || stored == inc.ID {
			return err
		}
	}
	var all []increment
	for _, name := range slices.Sorted(maps.Keys(inc.Counts)) {
		all = append(all, increment{name: name, count: inc.Counts[name]})
	}
	err := c.batch(ctx, append(all, increment{name: inc.Mark, count: "1", id: inc.ID}))
	if code, _ := apiError(err); code == codeBatchesDuplicate {
		return nil
	}
	return c.explain(doing, batchError(err))
}

// batchError names what the server has against a batch.
func batchError(err error) error {
	if code, _ := apiError(err); code == codeBatchesOff {
		return ErrNoBatches
	}
	return err
}

// RollupMark is the ID of the last increments that were stored under a mark, empty if none were, or if the counters were
// deleted since. A broken mark tells it as well, but takes no further increments: another one has to follow it.
func (c *Client) RollupMark(ctx context.Context, mark string) (id string, broken bool, err error) {
	subject := RollupSubject(c.names, mark)
	msg, err := c.last(ctx, c.names.Stream("ROLLUPS"), subject)
	if isNotFound(err) {
		return "", false, nil
	}
	if err != nil {
		return "", false, c.explain("read a mark of the rollups", err)
	}
	_, broken = c.brokenOf(subject, msg.Header, msg.Data, 0)
	return msg.Header.Get(jetstream.MsgIDHeader), broken, nil
}

// increment is one message of a batch. Its id is empty or lets the server know a repetition.
type increment struct{ name, count, id string }

// batch publishes increments, one for each counter, and waits for the answer to the last message, which commits all. What
// the server has to say against an earlier one it says there again.
func (c *Client) batch(ctx context.Context, all []increment) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	batch := nuid.Next()
	for i, inc := range all {
		msg := &nats.Msg{Subject: RollupSubject(c.names, inc.name), Header: nats.Header{
			headerBatchID: {batch}, headerBatchSeq: {strconv.Itoa(i + 1)}, headerIncrement: {"+" + inc.count},
		}}
		if inc.id != "" {
			msg.Header.Set(jetstream.MsgIDHeader, inc.id)
		}
		if i < len(all)-1 {
			if err := c.nc.PublishMsg(msg); err != nil {
				return err
			}
			continue
		}
		msg.Header.Set(headerBatchCommit, "1")
		reply, err := c.request(ctx, msg)
		if err != nil {
			return err
		}
		return answerOf(reply)
	}
	return nil
}

// answerOf is the error that the server answers, if it does.
func answerOf(msg *nats.Msg) error {
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
// broken is called in the same way for each increment that MendRollups has to mend.
func (c *Client) Rollups(
	ctx context.Context, prefix string, since time.Time, use func(name, sum string), broken func(Broken), known func(),
) error {
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
	r, err := c.read(consumer, jetstream.DefaultMaxMessages)
	if err != nil {
		return c.explain(doing, err)
	}
	defer r.close()
	for {
		msg, err := r.next(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return c.explain(doing, err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return c.explain(doing, err)
		}
		c.tell(msg, meta.Sequence.Stream, use, broken)
		if meta.NumPending == 0 && known != nil {
			known()
			known = nil
		}
	}
}

func (c *Client) tell(msg jetstream.Msg, seq uint64, use func(name, sum string), broken func(Broken)) {
	var value struct {
		Sum string `json:"val"`
	}
	if json.Unmarshal(msg.Data(), &value) == nil {
		use(strings.TrimPrefix(msg.Subject(), RollupSubject(c.names, "")), value.Sum)
	} else if b, ok := c.brokenOf(msg.Subject(), msg.Headers(), msg.Data(), seq); ok {
		broken(b)
	}
}

// Breakers calls use for the breaker events of the whole fleet that were stored since a time, zero meaning all that are
// kept, and then for each new one, until ctx ends, whose cause comes back.
func (c *Client) Breakers(ctx context.Context, since time.Time, use func(stored time.Time, e jobs.BreakerEvent)) error {
	subjects := []string{c.names.BreakerEvent("*")}
	f := Filter{All: since.IsZero(), Since: since}
	return c.FollowStream(ctx, c.names.Stream("EVENTS"), subjects, f, func(msg jetstream.Msg) error {
		var e jobs.BreakerEvent
		meta, err := msg.Metadata()
		if err == nil && json.Unmarshal(msg.Data(), &e) == nil { // whoever may publish events may publish nonsense
			use(meta.Timestamp, e)
		}
		return nil
	})
}
