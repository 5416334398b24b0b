package bus

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Difference is a setting that differs from what gofer wants, or a stream, bucket or consumer that is missing.
type Difference struct {
	// Name names the stream, bucket or consumer, such as "stream GOFER_JOBS".
	Name string `json:"name"`
	// Field is the setting, named as in the nats command; empty if the stream, bucket or consumer is missing.
	Field string `json:"field,omitempty"`
	Have  string `json:"have,omitempty"`
	Want  string `json:"want,omitempty"`
	// Use says how workers use the stream or consumer with this setting; zero if it is missing.
	Use    Use    `json:"use,omitempty"`
	Repair Repair `json:"repair"`
	// Refused says why Apply does not change it, and what to do; empty if Apply changes it.
	Refused string `json:"refused,omitempty"`
	// Code is the error code of the server, if the server refuses the change.
	Code jetstream.ErrorCode `json:"code,omitempty"`
	// Essential is true if no job can end without the stream, bucket or consumer. Workers can run without the others for a while.
	Essential bool `json:"-"`
}

// String describes the difference in a sentence.
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

// Unwrap returns ErrConfig.
func (*UnchangeableError) Unwrap() error { return ErrConfig }

// StreamDifferences lists how the settings of a stream differ from want, and judges each difference. It leaves out settings on
// which nothing depends. Of a sealed stream it lists only that it is sealed, because no other setting can be changed.
func StreamDifferences(have, want streamConfig) []Difference {
	found := differences("stream "+want.Name, have, want, streamRules())
	if i := slices.IndexFunc(found, func(d Difference) bool { return d.Field == "sealed" }); i >= 0 && have.Sealed {
		return found[i : i+1]
	}
	for i, d := range found {
		if isTied(d.Field, have, want) {
			found[i].Repair = ByOwner
		}
	}
	return found
}

// isTied reports whether the server ties a setting to another one that it never changes.
func isTied(field string, have, want streamConfig) bool {
	switch field {
	case "discard", "discard_new_per_subject":
		return have.AllowMsgSchedules && !want.AllowMsgSchedules
	case "allow_rollup_hdrs":
		return have.AllowMsgSchedules && !want.AllowMsgSchedules || have.DenyPurge && !want.DenyPurge
	}
	return false
}

// differences judges the settings of a consumer. A consumer of readers is never recreated: it would deliver everything again.
func (d durable) differences(have consumerConfig) []Difference {
	found := differences(d.String(), have, d.config, consumerRules())
	if d.readsJobs() { // such a consumer may be recreated: it delivers again what is not acked
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
	// The server sees no difference between a field that is omitted and one that is not set.
	haveMap, wantMap := wireFields(have), wireFields(want)
	for _, field := range fieldNames[C]() {
		h, w := haveMap[field], wantMap[field]
		// A duplicate window that is not set is the server's default.
		if reflect.DeepEqual(h, w) || field == "duplicate_window" && w == nil {
			continue
		}
		rule, ok := rules[field]
		if !ok {
			continue // a test fails for a field of nats.go's structs without a rule
		}
		d := Difference{Name: name, Field: field, Have: settingText(field, h), Want: settingText(field, w), Use: rule.use(&have, &want), Repair: rule.repair(&have, &want)}
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

// merge gives have, the settings that configOf has read, the values of want for the given differences.
func merge[C any](have map[string]json.RawMessage, want C, change []Difference) error {
	wantMap := wireFields(want)
	for _, d := range change {
		value, given := wantMap[d.Field]
		if !given {
			delete(have, d.Field)
			continue
		}
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		have[d.Field] = text
	}
	return nil
}

// wireFields returns the settings of a configuration as the server receives them, by their names in JSON.
func wireFields(config any) (out map[string]any) {
	data, err := json.Marshal(config)
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	// No input causes this error: the structs are fixed.
	if err != nil {
		panic(fmt.Sprint("a configuration of nats.go that JSON cannot hold: ", err))
	}
	return out
}

// settingText writes a setting for people: durations with units, and a missing value as "not set".
func settingText(field string, value any) string {
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
