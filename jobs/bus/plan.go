package bus

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Plan lists what gofer setup would create or change, and what it cannot change. It is Inspect without the owner's choices:
// placement, descriptions, limits on pulls.
func (c *Client) Plan(ctx context.Context, s Settings) ([]Difference, error) {
	// It is Inspect without the owner's choices, so both check the same settings.
	all, err := c.Inspect(ctx, s)
	return slices.DeleteFunc(all, func(d Difference) bool { return d.Repair == OwnersChoice }), err
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
	strays, err := c.inspectStrays(ctx, found)
	if err != nil {
		return found, err
	}
	found = append(found, strays...)
	s = s.withDefaults()
	for _, want := range s.durables(c.names) {
		if !want.readsJobs() {
			continue // InspectStreams has listed the consumers of readers
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
	found = ignoreServersLimit(found, len(s.durables(c.names)))
	return found, c.foresee(ctx, s, found)
}

// ignoreServersLimit makes a bound of pulls the owner's choice if all consumers, those of readers included, have it: then the
// server sets it, and clients can neither read nor change the server's limits.
func ignoreServersLimit(found []Difference, consumers int) []Difference {
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
	// CreatedAt is when each stream was created, by its name. Another stream under the same name counts from 1 again,
	// and takes an ack that is meant for the one before.
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
		if info != nil && want.Retention == jetstream.WorkQueuePolicy {
			// A queue that is served keeps its fresh jobs, because its own consumer wants them.
			use := Lossy
			if want.AllowMsgSchedules {
				use = Unusable
			}
			out.Differences = append(out.Differences, c.inspectCopies(ctx, info, use)...)
		}
		if want.AllowMsgSchedules && info != nil { // it is the stream of waiting jobs
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

// Apply creates what is missing and changes what differs. After a refusal by the server it continues. It returns what it did,
// and an error that names everything refused.
func (c *Client) Apply(ctx context.Context, s Settings) (done []Difference, err error) {
	// A cluster that has just lost a server elects a leader for a moment, as in the requests below.
	if err := c.retryWhileMoving(ctx, c.checkServer); err != nil {
		return nil, err
	}
	s = s.withDefaults()
	var failed []error
	// After a refusal, the other streams are still set up, so that the owner sees all errors at once.
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

// isEssential reports whether no job can end as the message contract says without the stream.
func (c *Client) isEssential(stream string) bool {
	n := c.names
	return slices.Contains([]string{n.Stream("JOBS"), n.Stream("RETRIES"), n.Stream("RESULTS"), n.Stream("DEAD"), "OBJ_" + n.Bucket("bodies")}, stream)
}

// applyStream creates the stream or changes what differs, and returns what it did. Differences that cannot be changed
// are the error; the others are changed nevertheless.
func (c *Client) applyStream(ctx context.Context, want streamConfig) (done []Difference, err error) {
	var info *jetstream.StreamInfo
	var found []Difference
	err = c.retryWhileMoving(ctx, func(ctx context.Context) (err error) {
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
		return found, nil // the stream was missing
	}
	change, failed := changes(found)
	if len(change) == 0 {
		if want.SubjectTransform != nil {
			done, err = c.inspectStrays(ctx, found)
		}
		if len(done) > 0 {
			err = c.moveStrays(ctx)
		}
		return done, errors.Join(failed, err)
	}
	err = c.retryWhileMoving(ctx, func(ctx context.Context) error {
		config, err := c.configOf(ctx, "STREAM.INFO."+want.Name)
		if err != nil {
			return err
		}
		// The owner's settings are kept: only what differs and may be changed is taken from want.
		if err := merge(config, want, change); err != nil {
			return err
		}
		return c.askAPI(ctx, "STREAM.UPDATE."+want.Name, config, &apiAnswer{})
	})
	if err != nil {
		return nil, errors.Join(failed, c.setupError("change stream "+want.Name, err, nil))
	}
	// Results that came in before may lie under the ingress subject, where no reader finds them.
	if want.SubjectTransform != nil {
		failed = errors.Join(failed, c.moveStrays(ctx))
	}
	return change, failed
}

// changes returns the differences that a change repairs. failed joins an *UnchangeableError for each of the others, the owner's
// choices excepted.
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

// ConsumerInfo asks for the state of a consumer, a push consumer included: it is in the way of a pull consumer of that name.
// Errors: jetstream.ErrConsumerNotFound, jetstream.ErrStreamNotFound.
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
	err = c.retryWhileMoving(ctx, func(ctx context.Context) (err error) {
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
	// The server demands the filter in the subject, so that permissions can bound what a user reads.
	at := want.stream + "." + want.config.Durable
	update := "CONSUMER.CREATE." + at
	if have.FilterSubject != "" && len(have.FilterSubjects) == 0 {
		update += "." + have.FilterSubject
	}
	err := c.retryWhileMoving(ctx, func(ctx context.Context) error {
		config, err := c.configOf(ctx, "CONSUMER.INFO."+at)
		if err != nil {
			return err
		}
		if err := merge(config, want.config, change); err != nil {
			return err
		}
		return c.askAPI(ctx, update, map[string]any{"stream_name": want.stream, "config": config, "action": "update"}, &apiAnswer{})
	})
	return c.setupError("change "+want.String(), err, nil)
}

// recreate deletes a consumer and creates it with the settings of want. Jobs in hand are delivered again. A worker may be faster
// and create it with the defaults.
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
