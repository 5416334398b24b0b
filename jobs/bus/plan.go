package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Difference is one thing that is not as the settings want it.
type Difference struct {
	// Name is what differs, such as "stream GOFER_JOBS".
	Name string `json:"name"`
	// Field is the setting, named as the nats command names it; empty when the whole thing is missing.
	Field string `json:"field,omitempty"`
	Have  string `json:"have,omitempty"`
	Want  string `json:"want,omitempty"`
	// Refused says why Apply leaves it so and what to do about that; empty where Apply changes it.
	Refused string `json:"refused,omitempty"`
}

// String says it in words.
func (d Difference) String() string {
	if d.Field == "" {
		return d.Name + " is missing"
	}
	text := fmt.Sprintf("%s: %s is %s, %s is wanted", d.Name, d.Field, d.Have, d.Want)
	if d.Refused != "" {
		text += ", but " + d.Refused
	}
	return text
}

// Plan lists what is missing and what differs from the settings, and changes nothing. Settings that gofer does not care
// about (placement, descriptions, limits on consumers) are the owner's and never differ.
func (c *Client) Plan(ctx context.Context, s Settings) ([]Difference, error) {
	return c.compare(ctx, s, false)
}

// Apply creates what is missing and changes what differs. It returns what it did before an error, if one came: the
// server refuses some changes, such as that of a stream's retention, and Apply refuses those that would lose jobs.
func (c *Client) Apply(ctx context.Context, s Settings) (done []Difference, err error) {
	found, err := c.compare(ctx, s, true)
	for _, d := range found {
		if d.Refused != "" {
			err = errors.Join(err, errors.New(d.String()))
		} else {
			done = append(done, d)
		}
	}
	return done, err
}

func (c *Client) compare(ctx context.Context, s Settings, apply bool) (found []Difference, err error) {
	if err := c.checkServer(ctx); err != nil {
		return nil, err
	}
	s = s.withDefaults()
	for _, want := range s.streams(c.names) {
		differences, err := c.compareStream(ctx, want, apply)
		if err != nil {
			return found, err
		}
		found = append(found, differences...)
	}
	for _, want := range s.durables(c.names) {
		differences, err := c.compareDurable(ctx, want, apply)
		if err != nil {
			return found, err
		}
		found = append(found, differences...)
	}
	return found, nil
}

func (c *Client) compareStream(ctx context.Context, want jetstream.StreamConfig, apply bool) ([]Difference, error) {
	name := "stream " + want.Name
	info, err := c.lookForStream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if apply {
			err = c.ensureStream(ctx, want)
		} else {
			err = nil
		}
		return []Difference{{Name: name}}, err
	}
	if err != nil {
		return nil, c.explain("look for "+name, err)
	}
	var merged jetstream.StreamConfig
	differences, err := merge(name, info.Config, want, streamFields, &merged)
	if err != nil {
		return nil, err
	}
	c.refuseReplicas(info, differences, &merged)
	if !apply || !slices.ContainsFunc(differences, func(d Difference) bool { return d.Refused == "" }) {
		return differences, nil
	}
	err = c.repeat(ctx, func(ctx context.Context) error {
		_, err := c.js.UpdateStream(ctx, merged)
		return err
	})
	return differences, c.explain("change "+name, err)
}

func (c *Client) lookForStream(ctx context.Context, name string) (info *jetstream.StreamInfo, err error) {
	err = c.repeat(ctx, func(ctx context.Context) error {
		stream, err := c.js.Stream(ctx, name)
		if err == nil {
			info = stream.CachedInfo()
		}
		return err
	})
	return info, err
}

func (c *Client) compareDurable(ctx context.Context, want durable, apply bool) ([]Difference, error) {
	name := "consumer " + want.config.Durable + " of stream " + want.stream
	var have jetstream.ConsumerConfig
	err := c.repeat(ctx, func(ctx context.Context) error {
		consumer, err := c.js.Consumer(ctx, want.stream, want.config.Durable)
		if err == nil {
			have = consumer.CachedInfo().Config
		}
		return err
	})
	if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) && !apply {
		err = nil
		if apply {
			_, err = c.ensureDurable(ctx, want)
		}
		return []Difference{{Name: name}}, err
	}
	if err != nil {
		return nil, c.explain("look for "+name, err)
	}
	var merged jetstream.ConsumerConfig
	differences, err := merge(name, have, want.config, durableFields, &merged)
	if err != nil || len(differences) == 0 || !apply {
		return differences, err
	}
	err = c.repeat(ctx, func(ctx context.Context) error {
		_, err := c.js.UpdateConsumer(ctx, want.stream, merged)
		return err
	})
	return differences, c.explain("change "+name, err)
}

// streamFields and durableFields list, in the order in which they are told, the settings that gofer relies on. Rollups
// are not among a stream's: the server switches them on by itself where it schedules messages.
func streamFields() []string {
	return []string{
		"subjects", "retention", "discard", "discard_new_per_subject", "max_age", "max_msgs", "max_bytes",
		"max_msgs_per_subject", "max_msg_size", "duplicate_window", "num_replicas", "allow_direct", "allow_msg_schedules", "allow_msg_counter",
		"allow_atomic", "subject_transform", "republish",
	}
}

func durableFields() []string {
	return []string{"filter_subject", "ack_policy", "ack_wait", "max_deliver", "max_ack_pending", "max_waiting"}
}

// merge compares two settings by the names of their fields on the wire and writes have with want's fields to merged.
func merge(name string, have, want any, fields func() []string, merged any) ([]Difference, error) {
	haveMap, wantMap, err := bothMaps(have, want)
	if err != nil {
		return nil, err
	}
	var out []Difference
	changed := maps.Clone(haveMap)
	for _, field := range fields() {
		if _, wanted := wantMap[field]; field == "duplicate_window" && !wanted || reflect.DeepEqual(haveMap[field], wantMap[field]) {
			continue // a window that is not set is the server's default
		}
		out = append(out, Difference{Name: name, Field: field, Have: words(field, haveMap[field]), Want: words(field, wantMap[field])})
		if value, given := wantMap[field]; given {
			changed[field] = value
		} else {
			delete(changed, field)
		}
	}
	data, err := json.Marshal(changed)
	if err != nil {
		return nil, err
	}
	return out, json.Unmarshal(data, merged)
}

func bothMaps(have, want any) (h, w map[string]any, err error) {
	for value, to := range map[any]*map[string]any{&have: &h, &want: &w} {
		data, err := json.Marshal(value)
		if err != nil {
			return nil, nil, err
		}
		if err := json.Unmarshal(data, to); err != nil {
			return nil, nil, err
		}
	}
	return h, w, nil
}

// words writes a setting for people: durations as such, what is absent as "not set".
func words(field string, value any) string {
	number, isNumber := value.(float64)
	switch {
	case value == nil:
		return "not set"
	case isNumber && slices.Contains([]string{"max_age", "ack_wait", "duplicate_window"}, field):
		return time.Duration(number).String()
	case isNumber && number == -1:
		return "unlimited"
	}
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(data)
}
