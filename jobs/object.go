package jobs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/gofer-mq/gofer/jobs/text"
)

// notObject begins the reason of what cannot be read as an object at all; nothing is said of its fields then.
const notObject = "not a JSON object"

// decodeObject reads a JSON object into the pointers that field returns by name, and lists an unknown field, for which field
// returns nil, a field that comes twice, a wrong type and whatever a field's own decoder refuses. encoding/json stops at the
// first of these, ignores the case of names and lets the last of two win. Null is as good as absent.
func decodeObject(data []byte, field func(name string) any) []string {
	// Unknown fields are refused, because a misspelt one would silently not be applied.
	var unknown map[string]string // names, by their reasons; nil for nearly every job
	reasons := members(data, func(name string, value json.RawMessage) []string {
		target := field(name)
		if target == nil {
			if unknown == nil {
				unknown = map[string]string{}
			}
			reason := quoted(name) + ": unknown field"
			unknown[reason] = name
			return []string{reason}
		}
		if isNull(value) {
			return nil
		}
		if err := unmarshal(value, target); err != nil {
			return fieldReasons(name, err)
		}
		return nil
	})
	// A search for what was meant costs much, and a crafted payload has a hundred thousand names: only those that are listed get
	// one.
	for i, reason := range reasons[:min(len(reasons), maxReasons)] {
		if name, ok := unknown[reason]; ok {
			reasons[i] += suggestion(name, field)
		}
	}
	return reasons
}

// members reads a JSON object, has use take each of its members, and sorts what is wrong with them. use may be called twice for
// one member.
func members(data []byte, use func(name string, value json.RawMessage) []string) (reasons []string) {
	// The quick path takes nearly every job.
	if usePlain(data, use) {
		return nil
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return []string{notObject + ": " + jsonReason(err)}
	}
	if all == nil { // null, which encoding/json takes for an object without members
		return []string{notObject}
	}
	// The map has lost the repeated ones, so a difference in number tells that there are some.
	if count(data) > len(all) {
		reasons = repeated(data)
	}
	for name, value := range all {
		reasons = append(reasons, use(name, value)...)
	}
	// A map has no order, and reasons must be the same each time.
	slices.Sort(reasons)
	return reasons
}

// count is how many members a valid JSON object has, those that come twice counted twice. It costs far less than to read
// them once more.
func count(object []byte) (n int) {
	depth, text, empty := 0, false, true
	for i := 0; i < len(object); i++ {
		switch c := object[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text, empty = !text, false
		case text:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		case c == ',' && depth == 1:
			n++
		}
	}
	if empty {
		return 0
	}
	return n + 1
}

// repeated names the members that come more than once.
func repeated(object []byte) (reasons []string) {
	d := json.NewDecoder(bytes.NewReader(object))
	seen := map[string]int{}
	_, err := d.Token() // the brace
	for err == nil && d.More() {
		var name json.Token
		var value json.RawMessage
		if name, err = d.Token(); err == nil {
			err = d.Decode(&value)
		}
		if text, ok := name.(string); ok {
			if seen[text]++; seen[text] == 2 {
				reasons = append(reasons, quoted(text)+": given more than once")
			}
		}
	}
	return reasons
}

// hasLoneSurrogate reports whether a JSON text escapes one half of a surrogate pair (RFC 8259, 8.2). encoding/json would put
// U+FFFD in its place without an error.
func hasLoneSurrogate(text []byte) bool {
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		// A surrogate alone, or with anything but its partner behind it.
		if char := escapedUnit(text[i:]); utf16.IsSurrogate(char) {
			if utf16.DecodeRune(char, escapedUnit(text[i+6:])) == utf8.RuneError {
				return true
			}
			i += 6 // a pair
		}
		i++ // the escaped character may be a backslash
	}
	return false
}

// escapedUnit is the UTF-16 code unit that a \u escape at the beginning of text stands for; -1 without one.
func escapedUnit(text []byte) rune {
	if len(text) < 6 || text[1] != 'u' || text[0] != '\\' {
		return -1
	}
	unit, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(unit)
}

// isNull reports whether a value is null.
func isNull(value json.RawMessage) bool { return string(value) == "null" }

// quoted is a name for a reason: quoted, and cut to 60 bytes.
func quoted(name string) string { return clip(strconv.Quote(clip(name, 60)), 60) }

// fieldReasons are the reasons of a field's decoder, each with the name of the field in front.
func fieldReasons(name string, err error) []string {
	var invalid *InvalidError
	if !errors.As(err, &invalid) {
		return []string{name + ": " + jsonReason(err)}
	}
	out := make([]string, len(invalid.Reasons))
	for i, reason := range invalid.Reasons {
		joint := "."
		if strings.HasPrefix(reason, notObject) {
			joint = ": "
		}
		out[i] = name + joint + reason
	}
	return out
}

// jsonReason says in the words of JSON, not of Go, what was expected.
func jsonReason(err error) string {
	if kind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Sprintf("a JSON %s is not what belongs here", kind.Value)
	}
	return clip(text.Printable(err.Error()), 200)
}

// texts is an object whose values are strings.
type texts map[string]string

// UnmarshalJSON refuses a name that comes twice and a value that is no string.
func (t *texts) UnmarshalJSON(data []byte) error {
	out := texts{}
	reasons := members(data, func(name string, value json.RawMessage) []string {
		var one string
		if isNull(value) || unmarshal(value, &one) != nil {
			return []string{quoted(name) + ": not a string"}
		}
		out[name] = one
		return nil
	})
	*t = out
	return asError(reasons)
}
