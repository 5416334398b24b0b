package bus

import (
	"context"
	"maps"
	"math/big"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Broken is an increment that the server stored without adding it to its counter, whose last message it is since. A
// server of one replica that stopped while it stored a batch does so with the rest of it when it starts (nats-server
// 2.15), and refuses every increment of that counter from then on.
type Broken struct {
	// Name is the counter's, Increment what is to be added to it.
	Name, Increment string
	// ID is the increment's own, wherever it is stored; Seq is where in the stream.
	ID  string
	Seq uint64
}

// brokenOf reads a message of the rollups; ok is false if it is a counter as it should be.
func (c *Client) brokenOf(subject string, header nats.Header, data []byte, seq uint64) (b Broken, ok bool) {
	b = Broken{
		Name: strings.TrimPrefix(subject, RollupSubject(c.names, "")), Increment: header.Get(headerIncrement),
		ID: header.Get(headerBatchID) + "." + header.Get(headerBatchSeq), Seq: seq,
	}
	_, number := new(big.Int).SetString(b.Increment, 10)
	return b, len(data) == 0 && number && publishable(b.mark())
}

// mark is the counter that tells that the increment was mended.
func (b Broken) mark() string { return "mended." + b.ID }

// mendAtOnce leaves a batch room for a mark with each increment: the server takes 1,000 messages.
const mendAtOnce = 499

// MendRollups deletes broken increments and adds them to their counters. Any number of workers may mend the same ones at
// once, and repeat it after any error or crash: a mark that is stored together with each increment, and stays for as
// long as the counters do, lets it count once. Those of a stream that is no longer there are left out.
//
// An increment is lost if all who know of it die after one of them deleted it and before one of them added it; it is what
// one worker counted in 5 s, as much as a killed worker loses. Where the stream keeps one message for each counter, as older
// versions made it, the sum before the increment is lost as well.
//
// Errors: ErrPermission if this user may not delete messages of the stream, ErrNoBatches, ErrNotSetUp; any other one may
// pass.
func (c *Client) MendRollups(ctx context.Context, broken []Broken) error {
	for part := range slices.Chunk(broken, mendAtOnce) {
		if err := c.mend(ctx, part); err != nil {
			return c.explain("mend rollups", err)
		}
	}
	return nil
}

// mend looks again if another worker's batch was faster than this one's.
func (c *Client) mend(ctx context.Context, broken []Broken) (err error) {
	for range 3 {
		err = c.mendOnce(ctx, broken)
		if code, _ := apiError(err); code != codeBatchesDuplicate {
			break
		}
	}
	return batchError(err)
}

func (c *Client) mendOnce(ctx context.Context, broken []Broken) error {
	open, err := c.unmended(ctx, broken)
	if err != nil {
		return err
	}
	var owed []Broken
	for _, b := range open {
		gone, err := c.dropBroken(ctx, b)
		if err != nil {
			return err
		}
		if gone {
			owed = append(owed, b)
		}
	}
	if len(owed) == 0 {
		return nil
	}
	return c.batch(ctx, repairs(owed))
}

// unmended leaves out those whose mark is stored, and those that come twice.
func (c *Client) unmended(ctx context.Context, broken []Broken) (open []Broken, err error) {
	marks := make([]string, len(broken))
	for i, b := range broken {
		marks[i] = RollupSubject(c.names, b.mark())
	}
	mended := map[string]bool{}
	err = c.lastOf(ctx, c.names.Stream("ROLLUPS"), marks, func(msg *nats.Msg) error {
		mended[msg.Header.Get(jetstream.SubjectHeader)] = true
		return nil
	})
	for i, b := range broken {
		if !mended[marks[i]] {
			mended[marks[i]] = true
			open = append(open, b)
		}
	}
	return open, err
}

// dropBroken deletes the increment's message. It is not gone if another message stands in its place: the stream was made
// anew, and nothing is owed to it.
func (c *Client) dropBroken(ctx context.Context, b Broken) (gone bool, err error) {
	stream := c.names.Stream("ROLLUPS")
	msg, err := c.direct(ctx, stream, map[string]any{"seq": b.Seq})
	if isNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if there, ok := c.brokenOf(msg.Header.Get(jetstream.SubjectHeader), msg.Header, msg.Data, b.Seq); !ok || there != b {
		return false, nil
	}
	_, err = c.deleteMessage(ctx, stream, b.Seq) // another worker may be faster
	return err == nil, err
}

// repairs are the increments, one for each counter, and their marks. Two of one counter in one batch might both end up
// broken.
func repairs(owed []Broken) []increment {
	sums := map[string]*big.Int{}
	for _, b := range owed {
		n, _ := new(big.Int).SetString(b.Increment, 10)
		if sum := sums[b.Name]; sum != nil {
			n.Add(n, sum)
		}
		sums[b.Name] = n
	}
	var out []increment
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		out = append(out, increment{name: name, count: sums[name].String()})
	}
	for _, b := range owed {
		out = append(out, increment{name: b.mark(), count: "1", id: b.mark()})
	}
	return out
}
