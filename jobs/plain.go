package jobs

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxPlain is how many members a plain object has at most: names are compared with one another.
const maxPlain = 32

// usePlain reads a JSON object in one pass, without reflection. It takes only objects in which nothing is escaped, no name comes
// twice and use finds nothing wrong. It reports false for any other text, valid or not: encoding/json has to decide. use checks
// each value, so that it is enough to know where a value ends if it is valid.
func usePlain(data []byte, use func(name string, value json.RawMessage) []string) bool {
	var room [16]member
	all, ok := plainMembers(data, room[:0])
	if !ok {
		return false
	}
	for _, m := range all {
		if len(use(string(m.name), m.value)) > 0 {
			return false
		}
	}
	return true
}

// member is one member of an object, the value as it is written.
type member struct{ name, value []byte }

// plainMembers cuts an object into its members.
func plainMembers(data []byte, all []member) ([]member, bool) {
	if bytes.IndexByte(data, '\\') >= 0 || !utf8.Valid(data) {
		return nil, false
	}
	rest, found := bytes.CutPrefix(skipBlanks(data), []byte("{"))
	if !found {
		return nil, false
	}
	for rest = skipBlanks(rest); ; rest = skipBlanks(rest[1:]) {
		m, behind, ok := plainMember(rest)
		if !ok || len(all) == maxPlain {
			return nil, false
		}
		for _, other := range all {
			if bytes.Equal(m.name, other.name) {
				return nil, false
			}
		}
		all = append(all, m)
		if rest = skipBlanks(behind); len(rest) == 0 {
			return nil, false
		}
		switch rest[0] {
		case ',':
		case '}':
			return all, len(skipBlanks(rest[1:])) == 0
		default:
			return nil, false
		}
	}
}

// plainMember cuts off a name, a colon and a value.
func plainMember(text []byte) (m member, behind []byte, ok bool) {
	n := plainString(text)
	if n == 0 {
		return member{}, nil, false
	}
	rest, found := bytes.CutPrefix(skipBlanks(text[n:]), []byte(":"))
	if !found {
		return member{}, nil, false
	}
	rest = skipBlanks(rest)
	size := plainValue(rest)
	return member{name: text[1 : n-1], value: rest[:size]}, rest[size:], size > 0
}

// skipBlanks cuts off the blanks of JSON at the beginning (RFC 8259, 2).
func skipBlanks(text []byte) []byte { return bytes.TrimLeft(text, " \t\r\n") }

// plainString is the length of a string at the beginning of a text, with its quotes; zero without one.
func plainString(text []byte) int {
	if len(text) == 0 || text[0] != '"' {
		return 0
	}
	for i, c := range text[1:] {
		switch {
		case c == '"':
			return i + 2
		case c < ' ':
			return 0
		}
	}
	return 0
}

// plainValue is the length of the value at the beginning of a text, if it is a valid one; zero without one.
func plainValue(text []byte) int {
	if len(text) == 0 {
		return 0
	}
	switch text[0] {
	case '"':
		return plainString(text)
	case '{', '[':
		return plainGroup(text)
	}
	return max(0, bytes.IndexAny(text, ",}] \t\r\n"))
}

// plainGroup is the length of an object or an array.
func plainGroup(text []byte) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			n := plainString(text[i:])
			if n == 0 {
				return 0
			}
			i += n - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return 0
}

// unmarshal is json.Unmarshal, and needs no reflection for the types that jobs have.
func unmarshal(value json.RawMessage, target any) error {
	switch t := target.(type) {
	case *string:
		if isPlainString(value) {
			*t = string(value[1 : len(value)-1])
			return nil
		}
	case *Headers: // these four check the whole value
		return t.UnmarshalJSON(value)
	case *texts:
		return t.UnmarshalJSON(value)
	case *ProxyChoice:
		return t.UnmarshalJSON(value)
	case **Override: // what it could read of its fields is checked, too
		*t = new(Override)
		return (*t).UnmarshalJSON(value)
	case **string:
		return unmarshalNew(value, t)
	case **Duration:
		return unmarshalNew(value, t)
	case *Duration:
		if isPlainString(value) || json.Valid(value) {
			return t.UnmarshalJSON(value)
		}
	case *time.Time:
		var written string
		if json.Unmarshal(value, &written) != nil {
			return noTime(string(value)) // never parsed: a time stands in quotes
		}
		at, err := parseTime(written)
		if err == nil {
			*t = at
		}
		return err
	case **int:
		if n, err := strconv.Atoi(string(value)); err == nil && value[0] >= '1' && value[0] <= '9' {
			*t = &n
			return nil
		}
	}
	err := json.Unmarshal(value, target)
	if kind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && strings.HasPrefix(kind.Value, "number") {
		if json.Unmarshal(plainIntegers(value), target) == nil {
			return nil
		}
	}
	return err
}

// unmarshalNew sets target only to a good value: a job is checked although some of its fields cannot be read.
func unmarshalNew[T any](value json.RawMessage, target **T) error {
	read := new(T)
	if err := unmarshal(value, any(read)); err != nil {
		return err
	}
	*target = read
	return nil
}

// isPlainString reports whether a value is a string without escapes.
func isPlainString(value json.RawMessage) bool {
	return len(value) > 0 && plainString(value) == len(value) && bytes.IndexByte(value, '\\') < 0 && utf8.Valid(value)
}
