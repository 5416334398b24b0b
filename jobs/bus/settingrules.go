package bus

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Use says how a worker uses a stream or consumer in spite of a setting that differs.
type Use uint8

// The uses, from the best to the worst. The zero value is none: a setting without a rule fails a test.
const (
	// Harmless: nothing that gofer promises depends on the setting.
	Harmless Use = iota + 1
	// Obeyed: workers adapt to the setting.
	Obeyed
	// Lossy: the server may drop, refuse or delay messages by itself. Workers go on, because stopping would save
	// nothing.
	Lossy
	// Unusable: workers take no jobs, because with this setting they would end jobs wrongly or could not end them.
	Unusable
)

// String is the name of the use in JSON. min guards against a value that a newer version may have added.
func (u Use) String() string {
	return [...]string{"", "harmless", "obeyed", "lossy", "unusable"}[min(int(u), int(Unusable))]
}

// MarshalText is String.
func (u Use) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// Repair says how a difference is repaired.
type Repair uint8

// The repairs.
const (
	OwnersChoice Repair = iota + 1 // the setting is not gofer's to change
	ByCreation                     // the thing is missing; a worker or gofer setup creates it
	ByUpdate                       // gofer setup changes the setting
	ByRecreation                   // gofer setup deletes the consumer and creates it again
	ByOwner                        // the server refuses the change: the owner saves the content and creates it again
)

// MarshalText names the repair in JSON.
func (r Repair) MarshalText() ([]byte, error) {
	return []byte([...]string{"", "owner's choice", "creation", "update", "recreation", "by the owner"}[min(int(r), int(ByOwner))]), nil
}

// rule says how a worker uses a stream or consumer with a setting that differs, and what repairs the setting. Both may
// depend on the two configurations. The functions are called for settings that differ only.
type rule[C any] struct {
	use    func(have, want *C) Use
	repair func(have, want *C) Repair
}

type (
	streamConfig   = jetstream.StreamConfig
	consumerConfig = jetstream.ConsumerConfig
)

// always is a rule's function that returns v, whatever the configurations.
func always[C, V any](v V) func(have, want *C) V { return func(_, _ *C) V { return v } }

// when is a rule's function that returns v if holds does, else otherwise.
func when[C, V any](v V, holds func(have, want *C) bool, otherwise V) func(have, want *C) V {
	return func(have, want *C) V {
		if holds(have, want) {
			return v
		}
		return otherwise
	}
}

// wireName is a setting's name in the server's JSON, which the nats command uses, too.
func wireName(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
	return name
}

// shortestAckWait is the shortest ack wait that a worker keeps to: it sends a heartbeat every third of it.
const shortestAckWait = time.Second

// ackWait returns the shortest time that the server waits for an ack: its backoff may shorten some deliveries.
func ackWait(c *consumerConfig) time.Duration {
	// BackOff holds the waits of the first deliveries; the smallest of all decides how often a heartbeat has to
	// come.
	return slices.Min(append([]time.Duration{c.AckWait}, c.BackOff...))
}

// filters returns the subjects of a consumer, whichever of the two settings has them; none means all.
func filters(c *consumerConfig) []string {
	if c.FilterSubject != "" {
		return []string{c.FilterSubject}
	}
	return c.FilterSubjects
}

// consumerRules is what each setting of a consumer of jobs means, by its name on the wire. Such a consumer is created again
// without harm: what it has not acked is delivered again. That is also what brings back the messages that it passed over
// while its filter or its number of deliveries was another one.
func consumerRules() map[string]rule[consumerConfig] {
	of := func(use Use, repair Repair) rule[consumerConfig] {
		return rule[consumerConfig]{always[consumerConfig](use), always[consumerConfig](repair)}
	}
	// The rules below refer to the two configurations by these conditions.
	tooSoon := func(have, _ *consumerConfig) bool { return ackWait(have) < shortestAckWait }
	otherSubjects := func(have, want *consumerConfig) bool { return !slices.Equal(filters(have), filters(want)) }
	patience := rule[consumerConfig]{when(Unusable, tooSoon, Obeyed), always[consumerConfig](ByUpdate)}
	subjects := rule[consumerConfig]{when(Unusable, otherSubjects, Harmless), when(ByRecreation, otherSubjects, OwnersChoice)}
	return map[string]rule[consumerConfig]{
		"name": of(Harmless, OwnersChoice), "durable_name": of(Harmless, OwnersChoice), "description": of(Harmless, OwnersChoice),
		"metadata": of(Harmless, OwnersChoice), "sample_freq": of(Harmless, OwnersChoice),
		"num_replicas": of(Harmless, OwnersChoice), "mem_storage": of(Harmless, OwnersChoice),
		// These settings belong to another deliver_policy, to a push consumer, or to pulls that name a number of bytes.
		"opt_start_seq": of(Harmless, OwnersChoice), "opt_start_time": of(Harmless, OwnersChoice),
		"rate_limit_bps": of(Harmless, OwnersChoice), "max_bytes": of(Harmless, OwnersChoice),
		"inactive_threshold": of(Obeyed, OwnersChoice), // workers create a deleted consumer again
		// A small batch is the owner's choice unless it makes the worker useless.
		"max_batch":       {always[consumerConfig](Obeyed), when(ByUpdate, tinyBatch, OwnersChoice)},
		"max_expires":     {always[consumerConfig](Obeyed), when(ByUpdate, tinyExpiry, OwnersChoice)},
		"max_ack_pending": of(Obeyed, OwnersChoice), "pause_until": of(Obeyed, OwnersChoice),
		"max_waiting": of(Obeyed, ByRecreation), "ack_wait": patience, "backoff": patience,
		"headers_only":   of(Unusable, ByUpdate),
		"filter_subject": subjects, "filter_subjects": subjects,
		"max_deliver": of(Unusable, ByRecreation), "deliver_policy": of(Unusable, ByRecreation),
		"ack_policy": of(Unusable, ByRecreation), "replay_policy": of(Unusable, ByRecreation),
		"priority_policy": of(Unusable, ByRecreation), "priority_groups": of(Unusable, ByRecreation),
		"priority_timeout": of(Unusable, ByRecreation),
		"deliver_subject":  of(Unusable, ByRecreation), "deliver_group": of(Unusable, ByRecreation),
		"flow_control": of(Unusable, ByRecreation), "idle_heartbeat": of(Unusable, ByRecreation),
	}
}

// tinyBatch is a condition of a rule: the consumer bounds a pull to so few messages that nearly each job costs a request.
func tinyBatch(have, _ *consumerConfig) bool {
	return have.MaxRequestBatch > 0 && have.MaxRequestBatch < 8
}

// tinyExpiry is a condition of a rule: pulls end so soon that an idle worker sends many requests.
func tinyExpiry(have, _ *consumerConfig) bool {
	return have.MaxRequestExpires > 0 && have.MaxRequestExpires < 5*time.Second
}

// isWork is a condition of a rule: the stream is to be a work queue.
func isWork(_, want *streamConfig) bool { return want.Retention == jetstream.WorkQueuePolicy }

// streamRules is what each setting of a stream means, by its name on the wire.
func streamRules() map[string]rule[streamConfig] {
	// inWork is for settings that matter only where jobs lie: elsewhere old messages may be dropped.
	of := func(use Use, repair Repair) rule[streamConfig] {
		return rule[streamConfig]{always[streamConfig](use), always[streamConfig](repair)}
	}
	inWork := func(use Use, repair Repair) rule[streamConfig] {
		return rule[streamConfig]{when(use, isWork, Harmless), always[streamConfig](repair)}
	}
	return map[string]rule[streamConfig]{
		"name": of(Harmless, OwnersChoice), "description": of(Harmless, OwnersChoice), "metadata": of(Harmless, OwnersChoice),
		"placement": of(Harmless, OwnersChoice), "compression": of(Harmless, OwnersChoice), "first_seq": of(Harmless, OwnersChoice),
		"template_owner": of(Harmless, OwnersChoice), "mirror_direct": of(Harmless, OwnersChoice), "allow_batched": of(Harmless, OwnersChoice),
		"sources":         of(Harmless, OwnersChoice), // more messages of the same kind
		"max_consumers":   of(Harmless, OwnersChoice), // a refused consumer is reported by itself
		"consumer_limits": of(Obeyed, OwnersChoice),
		"num_replicas":    of(Harmless, ByUpdate), "duplicate_window": of(Harmless, ByUpdate), "allow_atomic": of(Harmless, ByUpdate),
		"discard_new_per_subject": of(Harmless, ByUpdate), "max_msgs_per_subject": of(Harmless, ByUpdate),
		"max_msgs": of(Obeyed, ByUpdate), "max_bytes": of(Obeyed, ByUpdate), // full: workers take no jobs, publishers are refused
		"max_age": inWork(Lossy, ByUpdate), "discard": of(Lossy, ByUpdate),
		"storage": of(Lossy, ByOwner), "persist_mode": of(Lossy, ByOwner),
		"allow_rollup_hdrs": {rollups, always[streamConfig](ByUpdate)},
		"allow_msg_ttl":     inWork(Lossy, ByOwner), "subject_delete_marker_ttl": inWork(Lossy, ByUpdate),
		"deny_delete":  {always[streamConfig](Harmless), when(ByOwner, deniesDeletes, ByUpdate)},
		"deny_purge":   {always[streamConfig](Harmless), when(ByOwner, deniesPurges, ByUpdate)},
		"max_msg_size": {narrower, always[streamConfig](ByUpdate)},
		"subjects":     {when(Unusable, lacksSubjects, Harmless), always[streamConfig](ByUpdate)},
		"republish":    of(Harmless, ByUpdate), "subject_transform": of(Unusable, ByUpdate),
		"allow_direct": of(Unusable, ByUpdate), "no_ack": of(Unusable, ByUpdate), "mirror": of(Unusable, ByUpdate),
		"retention":           {always[streamConfig](Unusable), retention},
		"sealed":              of(Unusable, ByOwner),
		"allow_msg_counter":   of(Unusable, ByOwner),
		"allow_msg_schedules": {schedules, when(ByOwner, hasSchedules, ByUpdate)},
	}
}

// rollups judges roll-ups: with them, a publisher of a job can delete others. Buckets and scheduled messages need them.
func rollups(have, want *streamConfig) Use {
	switch {
	case want.AllowRollup:
		return Unusable
	case isWork(have, want):
		return Lossy
	}
	return Harmless
}

// hasSchedules is a condition of a rule: the server schedules messages in the stream.
func hasSchedules(have, _ *streamConfig) bool { return have.AllowMsgSchedules }

// schedules judges a stream that schedules no messages although jobs have to wait in it, or the reverse.
func schedules(_, want *streamConfig) Use {
	if want.AllowMsgSchedules {
		return Unusable
	}
	return Harmless
}

// deniesDeletes and deniesPurges are conditions of rules: the server never changes these two settings back.
func deniesDeletes(have, _ *streamConfig) bool { return have.DenyDelete }

func deniesPurges(have, _ *streamConfig) bool { return have.DenyPurge }

// retention is the repair of another retention. The server changes it between limits and interest only.
func retention(have, want *streamConfig) Repair {
	// Changing between a work queue and anything else would drop or repeat jobs.
	if have.Retention == jetstream.WorkQueuePolicy || want.Retention == jetstream.WorkQueuePolicy {
		return ByOwner
	}
	return ByUpdate
}

// narrower judges a stream that takes smaller messages only. A result is made smaller then, but a job that has to wait cannot be.
func narrower(have, want *streamConfig) Use {
	switch {
	// Zero and below mean no limit.
	case have.MaxMsgSize <= 0 || want.MaxMsgSize > 0 && have.MaxMsgSize >= want.MaxMsgSize:
		return Harmless
	case want.AllowMsgSchedules:
		return Unusable
	}
	return Lossy
}

// lacksSubjects is a condition of a rule: a message of gofer's would reach no stream.
func lacksSubjects(have, want *streamConfig) bool {
	return slices.ContainsFunc(want.Subjects, func(subject string) bool {
		// One filter of the stream has to cover the whole subject: two that cover a half each do not occur
		// here.
		return !slices.ContainsFunc(have.Subjects, func(filter string) bool { return covers(filter, subject) })
	})
}
