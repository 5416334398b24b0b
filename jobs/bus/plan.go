package bus

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Plan lists what gofer setup would create or change, and what it cannot change. It changes nothing. The owner's
// choices (placement, descriptions, limits on pulls) are not listed.
func (c *Client) Plan(ctx context.Context, s Settings) ([]Difference, error) {
	// It is Inspect without the owner's choices, so both check the same settings.
	all, err := c.Inspect(ctx, s)
	var out []Difference
	for _, d := range all {
		if d.Repair != OwnersChoice {
			out = append(out, d)
		}
	}
	return out, err
}

// Inspect lists all that is missing, and every setting that differs from what gofer creates, except settings on which
// nothing depends.
func (c *Client) Inspect(ctx context.Context, s Settings) (found []Difference, err error) {
	if err := c.checkServer(ctx); err != nil {
		return nil, err
	}
	streams, err := c.InspectStreams(ctx, s)
	if err != nil {
		return nil, err
	}
	found = streams.Differences
	s = s.withDefaults()
	for _, want := range s.durables(c.names) {
		if !want.readsJobs() {
			// InspectStreams has listed the consumers of readers already.
			continue // with the streams
		}
		_, differences, err := c.inspectDurable(ctx, want)
		if err != nil {
			return found, err
		}
		// Jobs of the queue come through this consumer only.
		for i := range differences {
			differences[i].Essential = true
		}
		found = append(found, differences...)
	}
	// Judged after all consumers were read: only a bound that every one of them has is the server's.
	found = leaveServersLimit(found, len(s.durables(c.names)))
	return found, c.foresee(ctx, s, found)
}

// leaveServersLimit makes a bound of pulls the owner's choice if all consumers have it: it is then a limit of the
// server, which clients can neither read nor change.
func leaveServersLimit(found []Difference, consumers int) []Difference {
	bounds := func(d Difference) bool { return d.Field == "max_batch" }
	n := 0
	for _, d := range found {
		if bounds(d) {
			n++
		}
	}
	if n < consumers {
		return found
	}
	// The number of consumers includes those of readers, so these are counted before they are dropped.
	found = slices.DeleteFunc(found, func(d Difference) bool { return bounds(d) && d.Use == Harmless }) // those of readers
	for i := range found {
		if bounds(found[i]) {
			found[i].Repair = OwnersChoice
		}
	}
	return found
}

// Streams is what InspectStreams finds.
type Streams struct {
	// Differences are those of the streams, buckets and readers' consumers, as Inspect lists them.
	Differences []Difference
	// CreatedAt is when each stream was created, by its name. Another stream under the same name counts from 1 again, and takes
	// an ack that is meant for the one before.
	CreatedAt map[string]time.Time
	// Waiting is how much of the limits of the stream of waiting jobs is used.
	Waiting Fill
}

// InspectStreams checks all streams, buckets and consumers for readers, with one request for each.
func (c *Client) InspectStreams(ctx context.Context, s Settings) (Streams, error) {
	out := Streams{CreatedAt: map[string]time.Time{}}
	s = s.withDefaults()
	for _, want := range s.streams(c.names) {
		info, differences, err := c.inspectStream(ctx, want)
		if err != nil {
			return out, err
		}
		out.Differences = append(out.Differences, differences...)
		if info != nil {
			out.CreatedAt[want.Name] = info.Created
		}
		// Only one stream schedules: that of waiting jobs.
		if want.AllowMsgSchedules && info != nil {
			out.Waiting = fillOf(info)
		}
	}
	for _, want := range s.durables(c.names) {
		if want.readsJobs() {
			continue
		}
		_, differences, err := c.inspectDurable(ctx, want)
		if err != nil {
			return out, err
		}
		out.Differences = append(out.Differences, differences...)
	}
	return out, nil
}

// Apply creates what is missing and changes what differs. It returns what it did, also if something else failed: the error
// names everything that the server refuses, as it does with a change of a stream's retention.
func (c *Client) Apply(ctx context.Context, s Settings) (done []Difference, err error) {
	if err := c.checkServer(ctx); err != nil {
		return nil, err
	}
	s = s.withDefaults()
	var failed []error
	// A refusal does not end it: the other streams are still set up, and the owner sees all errors at once.
	add := func(differences []Difference, err error) {
		if err != nil {
			failed = append(failed, err)
		}
		done = append(done, differences...)
	}
	for _, want := range s.streams(c.names) {
		add(c.applyStream(ctx, want))
	}
	for _, want := range s.durables(c.names) {
		add(c.applyDurable(ctx, want))
	}
	return done, errors.Join(failed...)
}

// inspectStream compares a stream with want. info is nil if the stream is missing, which is then the one difference.
func (c *Client) inspectStream(ctx context.Context, want streamConfig) (info *jetstream.StreamInfo, found []Difference, err error) {
	ctx, cancel := Bounded(ctx)
	defer cancel()
	name := "stream " + want.Name
	stream, err := c.js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, []Difference{{Name: name, Repair: ByCreation}}, nil
	}
	if err != nil {
		return nil, nil, c.Explain("look for "+name, err)
	}
	info = stream.CachedInfo()
	found = StreamDifferences(info.Config, want)
	for i := range found {
		found[i].Essential = c.isEssential(want.Name)
	}
	// Asked here, because it needs the state of the stream as well as its settings.
	c.refuseReplicas(info, found)
	return info, found, nil
}

// isEssential reports whether jobs are taken from the stream, or end in it. Without such a stream no job can end as the
// message contract says.
func (c *Client) isEssential(stream string) bool {
	n := c.names
	return slices.Contains([]string{n.Stream("JOBS"), n.Stream("RETRIES"), n.Stream("RESULTS"), n.Stream("DEAD"), "OBJ_" + n.Bucket("bodies")}, stream)
}

// applyStream creates the stream or changes what differs, and returns what it did. Differences that cannot be changed
// are the error; the others are changed nevertheless.
func (c *Client) applyStream(ctx context.Context, want streamConfig) (done []Difference, err error) {
	var info *jetstream.StreamInfo
	var found []Difference
	// Each step is repeated by itself, since a cluster answers nothing while it moves a stream.
	err = c.repeat(ctx, func(ctx context.Context) (err error) {
		info, found, err = c.inspectStream(ctx, want)
		return err
	})
	if err != nil {
		return nil, err
	}
	if info == nil {
		if err := c.ensureStream(ctx, want); err != nil {
			return nil, err
		}
		// A missing stream is the one difference, which is now repaired.
		return found, nil
	}
	change, failed := changes(found)
	if len(change) == 0 {
		return nil, failed
	}
	// Settings of the owner's are kept: only what differs and may be changed is taken from want.
	merged, err := merge(info.Config, want, change)
	if err != nil {
		return nil, err
	}
	err = c.repeat(ctx, func(ctx context.Context) error {
		_, err := c.js.UpdateStream(ctx, merged)
		return err
	})
	if err != nil {
		return nil, errors.Join(failed, c.setupError("change stream "+want.Name, err, nil))
	}
	// Results that came in before lie under the ingress subject, where no reader finds them.
	if want.SubjectTransform != nil && slices.ContainsFunc(change, func(d Difference) bool { return d.Field == "subject_transform" }) {
		failed = errors.Join(failed, c.bringStrays(ctx))
	}
	return change, failed
}

// changes returns the differences that a change repairs. failed joins an *UnchangeableError for each other difference
// that is not the owner's choice.
func changes(found []Difference) (change []Difference, failed error) {
	for _, d := range found {
		switch {
		case d.Repair == OwnersChoice:
		// The error names what remains, even though other differences are repaired.
		case d.Repair == ByOwner || d.Refused != "":
			failed = errors.Join(failed, &UnchangeableError{d})
		default:
			change = append(change, d)
		}
	}
	return change, failed
}

// ConsumerInfo looks for a consumer of any kind; ErrConsumerNotFound or ErrStreamNotFound. A push consumer of
// the name is found as well: it has to be shown before it can be replaced.
func (c *Client) ConsumerInfo(ctx context.Context, stream, name string) (*jetstream.ConsumerInfo, error) {
	consumer, err := c.js.Consumer(ctx, stream, name)
	if err == nil {
		return consumer.CachedInfo(), nil
	}
	if !errors.Is(err, jetstream.ErrNotPullConsumer) {
		return nil, err
	}
	push, err := c.js.PushConsumer(ctx, stream, name)
	if err != nil {
		return nil, err
	}
	return push.CachedInfo(), nil
}

// inspectDurable compares a consumer with want. have is nil if the consumer or its stream is missing.
func (c *Client) inspectDurable(ctx context.Context, want durable) (have *consumerConfig, found []Difference, err error) {
	ctx, cancel := Bounded(ctx)
	defer cancel()
	name := want.String()
	info, err := c.ConsumerInfo(ctx, want.stream, want.config.Durable)
	if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, []Difference{{Name: name, Repair: ByCreation}}, nil
	}
	if err != nil {
		return nil, nil, c.Explain("look for "+name, err)
	}
	return &info.Config, want.differences(info.Config), nil
}

// applyDurable creates the consumer or changes what differs, and returns what it did.
func (c *Client) applyDurable(ctx context.Context, want durable) (done []Difference, err error) {
	var have *consumerConfig
	var found []Difference
	err = c.repeat(ctx, func(ctx context.Context) (err error) {
		have, found, err = c.inspectDurable(ctx, want)
		return err
	})
	if err != nil {
		return nil, err
	}
	if have == nil {
		if _, err := c.ensureDurable(ctx, want); err != nil {
			return nil, err
		}
		return found, nil
	}
	change, failed := changes(found)
	if len(change) == 0 {
		return nil, failed
	}
	if err := c.changeDurable(ctx, want, *have, change); err != nil {
		return nil, errors.Join(failed, err)
	}
	return change, failed
}

// changeDurable changes a consumer, or creates it again if one of the differences needs that.
func (c *Client) changeDurable(ctx context.Context, want durable, have consumerConfig, change []Difference) error {
	// One recreation repairs all differences together.
	if slices.ContainsFunc(change, func(d Difference) bool { return d.Repair == ByRecreation }) {
		return c.recreate(ctx, want)
	}
	merged, err := merge(have, want.config, change)
	if err != nil {
		return err
	}
	err = c.repeat(ctx, func(ctx context.Context) error {
		_, err := c.js.UpdateConsumer(ctx, want.stream, merged)
		return err
	})
	return c.setupError("change "+want.String(), err, nil)
}

// recreate deletes a consumer and creates it as it is wanted. Jobs that it had delivered are delivered again. A worker
// may be faster and create it with the defaults.
func (c *Client) recreate(ctx context.Context, want durable) error {
	deleting, cancel := Bounded(ctx)
	defer cancel()
	// It may be gone already; then only the creation is left.
	if err := c.js.DeleteConsumer(deleting, want.stream, want.config.Durable); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return c.setupError("delete "+want.String(), err, nil)
	}
	_, err := c.ensureDurable(ctx, want)
	return err
}
