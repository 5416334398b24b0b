package bus

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Difference is a setting that differs from what gofer wants, or a stream, bucket or consumer that is missing.
type Difference struct {
	// Name is what differs, such as "stream GOFER_JOBS".
	Name string `json:"name"`
	// Field is the setting, named as the nats command names it; empty when the whole thing is missing.
	Field string `json:"field,omitempty"`
	Have  string `json:"have,omitempty"`
	Want  string `json:"want,omitempty"`
	// Use is how workers use the stream or consumer in spite of it; zero for what is missing.
	Use    Use    `json:"use,omitempty"`
	Repair Repair `json:"repair"`
	// Refused says why Apply does not change it, and what to do; empty if Apply changes it.
	Refused string `json:"refused,omitempty"`
	// Code is the server's, if it is the server that refuses.
	Code jetstream.ErrorCode `json:"code,omitempty"`
	// Essential says that no job can end without it. Workers go on without the others for a while.
	Essential bool `json:"-"`
}

// String is the difference in words.
func (d Difference) String() string {
	if d.Field == "" {
		if d.Refused != "" {
			return d.Name + " is missing, and " + d.Refused
		}
		return d.Name + " is missing"
	}
	text := fmt.Sprintf("%s: %s is %s, %s is wanted", d.Name, d.Field, d.Have, d.Want)
	if d.Refused != "" {
		text += ", but " + d.Refused
	}
	return text
}

// UnchangeableError is a difference that Apply does not change: the server never changes the setting, or jobs would be
// lost. It is an ErrConfig.
type UnchangeableError struct{ Difference }

// Error says what differs.
func (e *UnchangeableError) Error() string { return e.String() }

// Unwrap is ErrConfig.
func (*UnchangeableError) Unwrap() error { return ErrConfig }

// StreamDifferences judges the settings of a stream that gofer would create as want. Settings on which nothing depends
// are left out. Of a sealed stream, only that it is sealed is listed.
func StreamDifferences(have, want streamConfig) []Difference {
	found := differences("stream "+want.Name, have, want, streamRules())
	// Nothing else of a sealed stream can be changed, so the other differences would only hide this one.
	if i := slices.IndexFunc(found, func(d Difference) bool { return d.Field == "sealed" }); i >= 0 && have.Sealed {
		return found[i : i+1]
	}
	for i, d := range found {
		if keptBy(d.Field, have, want) {
			// The server accepts the setting only together with the other one, which it never changes.
			found[i].Repair = ByOwner
		}
	}
	return found
}

// keptBy reports whether a setting cannot be changed because the server ties it to another one that it never changes.
func keptBy(field string, have, want streamConfig) bool {
	switch field {
	case "discard", "discard_new_per_subject":
		return have.AllowMsgSchedules && !want.AllowMsgSchedules
	case "allow_rollup_hdrs":
		return have.AllowMsgSchedules && !want.AllowMsgSchedules || have.DenyPurge && !want.DenyPurge
	}
	return false
}

// differences judges the settings of a consumer. A consumer of readers is never created again: they would read everything
// once more.
func (d durable) differences(have consumerConfig) []Difference {
	found := differences(d.String(), have, d.config, consumerRules())
	// Consumers of jobs may be recreated: what was not acked is delivered again.
	if d.readsJobs() {
		return found
	}
	found = slices.DeleteFunc(found, func(d Difference) bool { return d.Repair == OwnersChoice })
	for i := range found {
		found[i].Use = Harmless
		if found[i].Repair == ByRecreation {
			found[i].Repair = ByOwner
		}
	}
	return found
}

// differences compares two configurations setting by setting and judges each difference by its rule. Settings on which
// nothing depends are left out.
func differences[C any](name string, have, want C, rules map[string]rule[C]) (out []Difference) {
	// Both sides go through JSON, so defaults and omitted fields compare as the server sees them.
	haveMap, wantMap := onWire(have), onWire(want)
	for _, field := range fieldNames[C]() {
		h, w := haveMap[field], wantMap[field]
		// A duplicate window that is not set is the server's default.
		if reflect.DeepEqual(h, w) || field == "duplicate_window" && w == nil {
			continue
		}
		rule, ok := rules[field]
		if !ok {
			// The test goes over all fields of nats.go's structs, so a new one needs a rule before it is
			// released.
			continue // a test fails first
		}
		d := Difference{Name: name, Field: field, Have: words(field, h), Want: words(field, w), Use: rule.use(&have, &want), Repair: rule.repair(&have, &want)}
		if d.Repair != OwnersChoice || d.Use != Harmless {
			out = append(out, d)
		}
	}
	return out
}

// fieldNames returns the names of a configuration's settings on the wire, in the order of nats.go's struct.
func fieldNames[C any]() (names []string) {
	for field := range reflect.TypeFor[C]().Fields() {
		names = append(names, wireName(field))
	}
	return names
}

// merge returns have with the settings of want for the given differences. All other settings stay, those too that nats.go
// does not know.
func merge[C any](have, want C, change []Difference) (merged C, err error) {
	haveMap, wantMap := onWire(have), onWire(want)
	// Settings that a newer server has are kept: they are in the map, though not in nats.go's struct.
	changed := maps.Clone(haveMap)
	for _, d := range change {
		if value, given := wantMap[d.Field]; given {
			changed[d.Field] = value
		} else {
			delete(changed, d.Field)
		}
	}
	data, err := json.Marshal(changed)
	if err != nil {
		return merged, err
	}
	return merged, json.Unmarshal(data, &merged)
}

// onWire returns a configuration as the map that goes over the wire: two configurations are equal if the server sees no
// difference.
func onWire(config any) (out map[string]any) {
	data, err := json.Marshal(config)
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	// The structs are fixed, so this is a mistake of the program and no input.
	if err != nil {
		panic(fmt.Sprint("a configuration of nats.go that JSON cannot hold: ", err))
	}
	return out
}

// words writes a setting for people: durations in words, and a missing value as "not set".
func words(field string, value any) string {
	number, isNumber := value.(float64)
	switch {
	case value == nil:
		return "not set"
	case isNumber && slices.Contains([]string{"max_age", "ack_wait", "duplicate_window", "max_expires", "inactive_threshold"}, field):
		return time.Duration(number).String()
	case isNumber && number == -1:
		return "unlimited"
	case isNumber:
		return fmt.Sprint(int64(number))
	}
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(data)
}
