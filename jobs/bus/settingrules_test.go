package bus_test

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

func TestEverySettingOfStreamsAndConsumersHasARule(t *testing.T) {
	t.Parallel()
	for kind, c := range map[string]struct {
		config reflect.Type
		ruled  []string
	}{
		"stream":   {reflect.TypeFor[jetstream.StreamConfig](), bus.StreamRules()},
		"consumer": {reflect.TypeFor[jetstream.ConsumerConfig](), bus.ConsumerRules()},
	} {
		var settings []string
		for field := range c.config.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			settings = append(settings, name)
		}
		slices.Sort(settings)
		slices.Sort(c.ruled)
		if !slices.Equal(settings, c.ruled) {
			t.Errorf("the settings of a %s are\n%v, and rules there are for\n%v", kind, settings, c.ruled)
		}
	}
}

// streamEdits are changes of a stream that some server accepts for some stream, by the setting that they are about.
func streamEdits() map[string]func(*jetstream.StreamConfig) {
	type config = *jetstream.StreamConfig
	return map[string]func(config){
		"description":             func(c config) { c.Description = "ours" },
		"metadata":                func(c config) { c.Metadata = map[string]string{"team": "x"} },
		"placement":               func(c config) { c.Placement = &jetstream.Placement{Tags: []string{"ssd"}} },
		"compression":             func(c config) { c.Compression = jetstream.S2Compression },
		"subjects":                func(c config) { c.Subjects = []string{"elsewhere." + c.Name} },
		"retention":               func(c config) { c.Retention = jetstream.InterestPolicy },
		"max_consumers":           func(c config) { c.MaxConsumers = 1 },
		"max_msgs":                func(c config) { c.MaxMsgs = 7 },
		"max_bytes":               func(c config) { c.MaxBytes = 1 << 20 },
		"max_age":                 func(c config) { c.MaxAge = 7 * time.Hour },
		"max_msgs_per_subject":    func(c config) { c.MaxMsgsPerSubject = 7 },
		"max_msg_size":            func(c config) { c.MaxMsgSize = 1000 },
		"discard":                 flipDiscard,
		"discard_new_per_subject": func(c config) { c.DiscardNewPerSubject = !c.DiscardNewPerSubject },
		"storage":                 func(c config) { c.Storage = jetstream.MemoryStorage },
		"num_replicas":            func(c config) { c.Replicas = 3 },
		"no_ack":                  func(c config) { c.NoAck = true },
		"duplicate_window":        func(c config) { c.Duplicates = 3 * time.Second },
		"sources":                 func(c config) { c.Sources = []*jetstream.StreamSource{{Name: "OTHER"}} },
		"mirror":                  func(c config) { c.Subjects, c.Mirror = nil, &jetstream.StreamSource{Name: "OTHER"} },
		"sealed":                  func(c config) { c.Sealed = true },
		"deny_delete":             func(c config) { c.DenyDelete = !c.DenyDelete },
		"deny_purge":              func(c config) { c.DenyPurge, c.AllowRollup = true, false },
		"allow_rollup_hdrs":       func(c config) { c.AllowRollup = !c.AllowRollup },
		"allow_direct":            func(c config) { c.AllowDirect = false },
		"mirror_direct":           func(c config) { c.MirrorDirect = true },
		"subject_transform": func(c config) {
			c.SubjectTransform = &jetstream.SubjectTransformConfig{Source: ">", Destination: "x.>"}
		},
		"republish":                 func(c config) { c.RePublish = &jetstream.RePublish{Source: ">", Destination: "y.>", HeadersOnly: true} },
		"consumer_limits":           func(c config) { c.ConsumerLimits.MaxAckPending = 60_000 },
		"allow_msg_ttl":             func(c config) { c.AllowMsgTTL = true },
		"subject_delete_marker_ttl": func(c config) { c.SubjectDeleteMarkerTTL, c.AllowMsgTTL, c.AllowRollup = time.Hour, true, true },
		"allow_msg_counter":         func(c config) { c.AllowMsgCounter = !c.AllowMsgCounter },
		"allow_atomic":              func(c config) { c.AllowAtomicPublish = !c.AllowAtomicPublish },
		"allow_msg_schedules":       flipSchedules,
		"persist_mode":              func(c config) { c.PersistMode = jetstream.AsyncPersistMode },
		"allow_batched":             func(c config) { c.AllowBatchPublish = true },
		"first_seq":                 func(c config) { c.FirstSeq = 7 },
		"template_owner":            func(c config) { c.Template = "x" },
	}
}

func flipDiscard(c *jetstream.StreamConfig) {
	if c.Discard = jetstream.DiscardNew - c.Discard; c.Discard == jetstream.DiscardOld {
		c.DiscardNewPerSubject = false
	}
}

func flipSchedules(c *jetstream.StreamConfig) {
	if c.AllowMsgSchedules = !c.AllowMsgSchedules; c.AllowMsgSchedules {
		c.Discard, c.DiscardNewPerSubject, c.AllowRollup = jetstream.DiscardOld, false, true
	}
}

// TestGoferSetupRepairsWhatItPromisesAndNothingElse edits each setting of each stream, or has the stream created with it, and
// compares what Inspect says with what Apply can do.
func TestGoferSetupRepairsWhatItPromisesAndNothingElse(t *testing.T) {
	testenv.Long(t)
	t.Parallel()
	in := install(t, bus.Settings{})
	_, err := in.js.CreateStream(soon(t), jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"other.>"}})
	must(t, err)
	accepted := map[string]bool{}
	for _, name := range []string{"GOFER_JOBS", "GOFER_RETRIES", "GOFER_RESULTS", "GOFER_EVENTS", "GOFER_DEAD", "GOFER_ROLLUPS", "KV_gofer-deny", "OBJ_gofer-bodies"} {
		for _, field := range slices.Sorted(maps.Keys(streamEdits())) {
			if in.edit(t, name, streamEdits()[field]) {
				accepted[field] = true
				in.repairs(t, "stream "+name, field)
			}
			if err := in.js.DeleteStream(soon(t), name); !errors.Is(err, jetstream.ErrStreamNotFound) {
				must(t, err)
			}
			must(t, in.Ensure(soon(t), bus.Settings{}))
		}
	}
	for field := range streamEdits() {
		// The server refuses these here, or drops them.
		refused := []string{"num_replicas", "first_seq", "template_owner", "mirror_direct"}
		if !accepted[field] && !slices.Contains(refused, field) {
			t.Errorf("the server accepted %s for no stream: the edit tests nothing", field)
		}
	}
}

// edit changes a stream or, if the server refuses that, creates it again with the change. It reports whether the server did
// either.
func (in *installation) edit(t *testing.T, name string, change func(*jetstream.StreamConfig)) bool {
	t.Helper()
	stream, err := in.js.Stream(soon(t), name)
	must(t, err)
	config := stream.CachedInfo().Config
	change(&config)
	if _, err := in.js.UpdateStream(soon(t), config); err == nil {
		return true
	}
	must(t, in.js.DeleteStream(soon(t), name))
	_, err = in.js.CreateStream(soon(t), config)
	return err == nil
}

// repairs checks that Inspect names a setting, if anything depends on it, and that Apply does what Inspect says.
func (in *installation) repairs(t *testing.T, name, field string) {
	t.Helper()
	found, err := in.Inspect(soon(t), bus.Settings{})
	must(t, err)
	found = slices.DeleteFunc(found, func(d bus.Difference) bool { return d.Name != name })
	byOwner := slices.ContainsFunc(found, func(d bus.Difference) bool { return d.Repair == bus.ByOwner })
	_, err = in.Apply(soon(t), bus.Settings{})
	if (err != nil) != byOwner {
		t.Errorf("%s, %s: Inspect says %s; Apply: %v", name, field, described(found), err)
	}
	left, err := in.Plan(soon(t), bus.Settings{})
	must(t, err)
	left = slices.DeleteFunc(left, func(d bus.Difference) bool { return d.Name != name || d.Repair == bus.ByOwner })
	if len(left) > 0 {
		t.Errorf("%s, %s: after Apply there is left %s", name, field, described(left))
	}
}

func described(list []bus.Difference) string {
	var out []string
	for _, d := range list {
		repair, _ := d.Repair.MarshalText()
		out = append(out, fmt.Sprintf("%s (%s, %s)", d, d.Use, repair))
	}
	return strings.Join(out, "; ")
}
