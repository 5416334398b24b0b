package bus

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Use says how a worker uses a stream or consumer with a setting that differs.
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

// String is the name of the use in JSON.
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

// rule says how a worker uses a stream or consumer with a setting that differs, and what repairs the setting. Its functions are
// called only for a setting that differs.
type rule[C any] struct {
	use    func(have, want *C) Use
	repair func(have, want *C) Repair
}

type (
	streamConfig   = jetstream.StreamConfig
	consumerConfig = jetstream.ConsumerConfig
)

// always returns a function for a rule that returns v for all configurations.
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

// wireName returns a setting's name in the server's JSON and in the nats command.
func wireName(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
	return name
}

// shortestAckWait is the shortest ack wait that a worker keeps to: it sends a heartbeat every third of it.
const shortestAckWait = time.Second

// ackWait returns the shortest time that the server waits for an ack: BackOff has the times of the first deliveries.
func ackWait(c *consumerConfig) time.Duration {
	// BackOff holds the waits of the first deliveries; the smallest of all decides how often a heartbeat has to
	// come.
	return slices.Min(append([]time.Duration{c.AckWait}, c.BackOff...))
}

// filters returns the subjects that a consumer delivers; none means all of the stream.
func filters(c *consumerConfig) []string {
	if c.FilterSubject != "" {
		return []string{c.FilterSubject}
	}
	return c.FilterSubjects
}

// consumerRules returns a rule for each setting of a consumer of jobs, by the setting's name in JSON. To recreate such a
// consumer does no harm: it delivers again what is not acked, and also the messages that a wrong filter or max_deliver left
// out.
func consumerRules() map[string]rule[consumerConfig] {
	fixed := func(use Use, repair Repair) rule[consumerConfig] {
		return rule[consumerConfig]{always[consumerConfig](use), always[consumerConfig](repair)}
	}
	// The rules below refer to the two configurations by these conditions.
	tooSoon := func(have, _ *consumerConfig) bool { return ackWait(have) < shortestAckWait }
	otherSubjects := func(have, want *consumerConfig) bool { return !slices.Equal(filters(have), filters(want)) }
	ackWaits := rule[consumerConfig]{when(Unusable, tooSoon, Obeyed), always[consumerConfig](ByUpdate)}
	subjects := rule[consumerConfig]{when(Unusable, otherSubjects, Harmless), when(ByRecreation, otherSubjects, OwnersChoice)}
	return map[string]rule[consumerConfig]{
		"name": fixed(Harmless, OwnersChoice), "durable_name": fixed(Harmless, OwnersChoice), "description": fixed(Harmless, OwnersChoice),
		"metadata": fixed(Harmless, OwnersChoice), "sample_freq": fixed(Harmless, OwnersChoice),
		"num_replicas": fixed(Harmless, OwnersChoice), "mem_storage": fixed(Harmless, OwnersChoice),
		// These settings belong to another deliver_policy, to a push consumer, or to pulls that name a number of bytes.
		"opt_start_seq": fixed(Harmless, OwnersChoice), "opt_start_time": fixed(Harmless, OwnersChoice),
		"rate_limit_bps": fixed(Harmless, OwnersChoice), "max_bytes": fixed(Harmless, OwnersChoice),
		"inactive_threshold": fixed(Obeyed, OwnersChoice), // workers create a deleted consumer again
		// A small batch is the owner's choice unless it makes the worker useless.
		"max_batch":       {always[consumerConfig](Obeyed), when(ByUpdate, tinyBatch, OwnersChoice)},
		"max_expires":     {always[consumerConfig](Obeyed), when(ByUpdate, tinyExpiry, OwnersChoice)},
		"max_ack_pending": fixed(Obeyed, OwnersChoice), "pause_until": fixed(Obeyed, OwnersChoice),
		"max_waiting": fixed(Obeyed, ByRecreation), "ack_wait": ackWaits, "backoff": ackWaits,
		"headers_only":   fixed(Unusable, ByUpdate),
		"filter_subject": subjects, "filter_subjects": subjects,
		"max_deliver": fixed(Unusable, ByRecreation), "deliver_policy": fixed(Unusable, ByRecreation),
		"ack_policy": fixed(Unusable, ByRecreation), "replay_policy": fixed(Unusable, ByRecreation),
		"priority_policy": fixed(Unusable, ByRecreation), "priority_groups": fixed(Unusable, ByRecreation),
		"priority_timeout": fixed(Unusable, ByRecreation),
		"deliver_subject":  fixed(Unusable, ByRecreation), "deliver_group": fixed(Unusable, ByRecreation),
		"flow_control": fixed(Unusable, ByRecreation), "idle_heartbeat": fixed(Unusable, ByRecreation),
	}
}

// tinyBatch is a condition of a rule: the consumer allows so few messages in a pull that nearly each job costs a request.
func tinyBatch(have, _ *consumerConfig) bool {
	return have.MaxRequestBatch > 0 && have.MaxRequestBatch < 8
}

// tinyExpiry is a condition of a rule: pulls end so soon that an idle worker sends many requests.
func tinyExpiry(have, _ *consumerConfig) bool {
	return have.MaxRequestExpires > 0 && have.MaxRequestExpires < 5*time.Second
}

// isWorkQueue is a condition of a rule: the stream is to be a work queue.
func isWorkQueue(_, want *streamConfig) bool { return want.Retention == jetstream.WorkQueuePolicy }

// streamRules returns a rule for each setting of a stream, by the setting's name in JSON.
func streamRules() map[string]rule[streamConfig] {
	fixed := func(use Use, repair Repair) rule[streamConfig] {
		return rule[streamConfig]{always[streamConfig](use), always[streamConfig](repair)}
	}
	// Outside a work queue the server may drop old messages.
	inWorkQueue := func(use Use, repair Repair) rule[streamConfig] {
		return rule[streamConfig]{when(use, isWorkQueue, Harmless), always[streamConfig](repair)}
	}
	return map[string]rule[streamConfig]{
		"name": fixed(Harmless, OwnersChoice), "description": fixed(Harmless, OwnersChoice), "metadata": fixed(Harmless, OwnersChoice),
		"placement": fixed(Harmless, OwnersChoice), "compression": fixed(Harmless, OwnersChoice), "first_seq": fixed(Harmless, OwnersChoice),
		"template_owner": fixed(Harmless, OwnersChoice), "mirror_direct": fixed(Harmless, OwnersChoice), "allow_batched": fixed(Harmless, OwnersChoice),
		"sources":         fixed(Harmless, OwnersChoice), // more messages of the same kind
		"max_consumers":   fixed(Harmless, OwnersChoice), // a refused consumer is reported by itself
		"consumer_limits": fixed(Obeyed, OwnersChoice),
		"num_replicas":    fixed(Harmless, ByUpdate), "duplicate_window": fixed(Harmless, ByUpdate), "allow_atomic": fixed(Harmless, ByUpdate),
		"discard_new_per_subject": fixed(Harmless, ByUpdate), "max_msgs_per_subject": fixed(Harmless, ByUpdate),
		"max_msgs": fixed(Obeyed, ByUpdate), "max_bytes": fixed(Obeyed, ByUpdate), // full: workers take no jobs, publishers are refused
		"max_age": inWorkQueue(Lossy, ByUpdate), "discard": fixed(Lossy, ByUpdate),
		"storage": fixed(Lossy, ByOwner), "persist_mode": fixed(Lossy, ByOwner),
		"allow_rollup_hdrs": {rollupUse, always[streamConfig](ByUpdate)},
		"allow_msg_ttl":     inWorkQueue(Lossy, ByOwner), "subject_delete_marker_ttl": inWorkQueue(Lossy, ByUpdate),
		"deny_delete":  {always[streamConfig](Harmless), when(ByOwner, deniesDeletes, ByUpdate)},
		"deny_purge":   {always[streamConfig](Harmless), when(ByOwner, deniesPurges, ByUpdate)},
		"max_msg_size": {messageSizeUse, always[streamConfig](ByUpdate)},
		"subjects":     {when(Unusable, lacksSubjects, Harmless), always[streamConfig](ByUpdate)},
		"republish":    fixed(Harmless, ByUpdate), "subject_transform": fixed(Unusable, ByUpdate),
		"allow_direct": fixed(Unusable, ByUpdate), "no_ack": fixed(Unusable, ByUpdate), "mirror": fixed(Unusable, ByUpdate),
		"retention":           {always[streamConfig](Unusable), retentionRepair},
		"sealed":              fixed(Unusable, ByOwner),
		"allow_msg_counter":   fixed(Unusable, ByOwner),
		"allow_msg_schedules": {scheduleUse, when(ByOwner, hasSchedules, ByUpdate)},
	}
}

// rollupUse judges roll-ups: with them, a publisher of a job can delete other jobs. Buckets and scheduled messages need them.
func rollupUse(have, want *streamConfig) Use {
	switch {
	case want.AllowRollup:
		return Unusable
	case isWorkQueue(have, want):
		return Lossy
	}
	return Harmless
}

// hasSchedules is a condition of a rule: the server schedules messages in the stream.
func hasSchedules(have, _ *streamConfig) bool { return have.AllowMsgSchedules }

// scheduleUse judges a stream that schedules no messages although jobs have to wait in it, or the reverse.
func scheduleUse(_, want *streamConfig) Use {
	if want.AllowMsgSchedules {
		return Unusable
	}
	return Harmless
}

// deniesDeletes and deniesPurges are conditions of rules: the server never changes these two settings back.
func deniesDeletes(have, _ *streamConfig) bool { return have.DenyDelete }

func deniesPurges(have, _ *streamConfig) bool { return have.DenyPurge }

// retentionRepair returns the repair of another retention. The server changes it only between limits and interest.
func retentionRepair(have, want *streamConfig) Repair {
	if have.Retention == jetstream.WorkQueuePolicy || want.Retention == jetstream.WorkQueuePolicy {
		return ByOwner
	}
	return ByUpdate
}

// messageSizeUse judges a stream that takes only smaller messages. A result can be made smaller, a job that has to wait cannot.
func messageSizeUse(have, want *streamConfig) Use {
	switch {
	// Zero and below mean no limit.
	case have.MaxMsgSize <= 0 || want.MaxMsgSize > 0 && have.MaxMsgSize >= want.MaxMsgSize:
		return Harmless
	case want.AllowMsgSchedules:
		return Unusable
	}
	return Lossy
}

// lacksSubjects is a condition of a rule: a message of gofer would reach no stream.
func lacksSubjects(have, want *streamConfig) bool {
	return slices.ContainsFunc(want.Subjects, func(subject string) bool {
		// One filter has to cover the whole subject; no two of gofer's cover a part each.
		return !slices.ContainsFunc(have.Subjects, func(filter string) bool { return covers(filter, subject) })
	})
}
