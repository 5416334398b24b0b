// Package text reads text that people write, and prints text that strangers wrote.
//
// Job ids, URLs, headers, reasons and bodies come from publishers, targets and proxies. A terminal obeys the escape sequences
// in them, and bidirectional controls make a line read as another one. Printable, Block and JSON are the only ways by which
// such text reaches a terminal, a log or an HTTP client.
package text

import (
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable is s in one line that a terminal shows and does not obey. Control characters (C0, DEL, C1), line separators,
// bidirectional and other invisible controls, unassigned code points and bytes that are not UTF-8 are written as Go writes
// them in a string: \x1b, \a, \n, \u202e, \xff.
func Printable(s string) string { return escape(s, "", goEscape) }

// Block is Printable for text of several lines: line feeds and tabs stay.
func Block(s string) string { return escape(s, "\n\t", goEscape) }

// JSON is a JSON document in which no string holds a raw control character: those that encoding/json leaves as they are
// (DEL, C1, bidirectional controls) become \u escapes, which mean the same. A byte that is not UTF-8 becomes \ufffd, which is
// what a reader makes of it.
func JSON(data []byte) []byte { return []byte(escape(string(data), "\n\t\r", jsonEscape)) }

// NewWriter returns a writer that writes the Block of each text to w. A call of Write has to bring whole characters.
func NewWriter(w io.Writer) io.Writer {
	return &writer{w, func(p []byte) []byte { return []byte(Block(string(p))) }}
}

// NewJSONWriter returns a writer that writes each JSON document to w as JSON makes it. A call of Write has to bring whole
// characters.
func NewJSONWriter(w io.Writer) io.Writer { return &writer{w, JSON} }

type writer struct {
	to     io.Writer
	filter func([]byte) []byte
}

// Write reports all of p as written once what became of it is.
func (w *writer) Write(p []byte) (int, error) {
	if _, err := w.to.Write(w.filter(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// escape replaces what is not safe and not in keep. Most text is safe, and is returned as it is.
func escape(s, keep string, replace func(out []byte, r rune, invalid byte) []byte) string {
	var out []byte
	done := 0 // how much of s is in out
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		valid := r != utf8.RuneError || size > 1
		if valid && (isSafe(r) || strings.ContainsRune(keep, r)) {
			i += size
			continue
		}
		if valid {
			out = replace(append(out, s[done:i]...), r, 0)
		} else {
			out = replace(append(out, s[done:i]...), utf8.RuneError, s[i])
		}
		i += size
		done = i
	}
	if done == 0 {
		return s
	}
	return string(append(out, s[done:]...))
}

// isSafe reports whether r is shown as itself wherever it stands. The two joiners are invisible but belong to the spelling
// of Persian and of emoji, and move nothing.
func isSafe(r rune) bool {
	const nonJoiner, joiner = '\u200c', '\u200d'
	if r < utf8.RuneSelf {
		return r >= ' ' && r != 0x7f
	}
	return unicode.IsGraphic(r) || r == nonJoiner || r == joiner
}

// goEscape writes a character as Go does within a string: \n, \x1b or \u202e. invalid is the byte if r is none.
func goEscape(out []byte, r rune, invalid byte) []byte {
	if r == utf8.RuneError {
		const digits = "0123456789abcdef"
		return append(out, '\\', 'x', digits[invalid>>4], digits[invalid&0xf])
	}
	quoted := strconv.QuoteRuneToASCII(r)
	return append(out, quoted[1:len(quoted)-1]...)
}

// jsonEscape writes a character as JSON does, those above 0xffff as two surrogates.
func jsonEscape(out []byte, r rune, _ byte) []byte {
	if r > 0xffff {
		high, low := surrogates(r)
		return hex4(hex4(out, high), low)
	}
	return hex4(out, r)
}

func surrogates(r rune) (high, low rune) {
	r -= 0x10000
	return 0xd800 + r>>10, 0xdc00 + r&0x3ff
}

// hex4 appends \u and the four digits of a code unit.
func hex4(out []byte, unit rune) []byte {
	const digits = "0123456789abcdef"
	return append(out, '\\', 'u', digits[unit>>12&0xf], digits[unit>>8&0xf], digits[unit>>4&0xf], digits[unit&0xf])
}
