package jobs

import (
	"encoding/json"
	"fmt"
	"strings"
)

// AutoDuration is a duration above zero, Auto or Off. The zero value is none of them: it was not given. It is read as the words
// "auto" and "off" or as a Duration, and written as one of the words or as a number of seconds.
type AutoDuration int64

// The words of an AutoDuration.
const (
	// They are below zero, so that no duration can be equal to one of them.
	Auto AutoDuration = -1 // gofer finds the duration itself
	Off  AutoDuration = -2
)

// Std is the duration; zero for Auto, Off and the zero value.
func (d AutoDuration) Std() Duration { return Duration(max(0, d)) }

// Or is d, or another one if d was not given.
func (d AutoDuration) Or(other AutoDuration) AutoDuration {
	if d == 0 {
		return other
	}
	return d
}

// String is the word, or the Go notation of the duration. The zero value is written as nothing.
func (d AutoDuration) String() string {
	switch d {
	case 0:
		return ""
	case Auto:
		return "auto"
	case Off:
		return "off"
	}
	return d.Std().String()
}

// MarshalJSON writes a word or a number of seconds. The zero value is null. Only the two words and nothing are
// below or at zero, so the default case writes a word.
func (d AutoDuration) MarshalJSON() ([]byte, error) {
	switch {
	case d > 0:
		return d.Std().MarshalJSON()
	case d == 0:
		return []byte("null"), nil
	}
	return json.Marshal(d.String())
}

// UnmarshalJSON reads a word, a Go duration string or a number of seconds.
func (d *AutoDuration) UnmarshalJSON(data []byte) error {
	// A number is passed on as it is written: ParseDuration reads it as seconds.
	written := string(data)
	if len(data) > 0 && data[0] == '"' {
		if err := json.Unmarshal(data, &written); err != nil {
			return err
		}
	}
	return d.UnmarshalText([]byte(written))
}

// UnmarshalText reads a word, a Go duration string or a number of seconds.
func (d *AutoDuration) UnmarshalText(written []byte) error {
	switch word := strings.TrimSpace(string(written)); word {
	case "auto":
		*d = Auto
	case "off":
		*d = Off
	default:
		v, err := ParseDuration(word)
		if err != nil {
			return fmt.Errorf(`%w, or "auto" or "off"`, err)
		}
		// Zero would mean "not given" as soon as it is stored.
		if v <= 0 {
			return fmt.Errorf(`%q is not above zero: write "off" for none`, clip(word, 40))
		}
		*d = AutoDuration(v)
	}
	return nil
}
