package text_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/jobs/text"
)

func TestPrintableShowsWhatATerminalWouldObey(t *testing.T) {
	for in, want := range map[string]string{
		"plain ümläut 日本 🚀":      "plain ümläut 日本 🚀",
		"\x1b]0;t\x07\x1b[31m":   `\x1b]0;t\a\x1b[31m`,
		"a\nb\tc\rd":             `a\nb\tc\rd`,
		"\u009b31m\u0085\x7f":    `\u009b31m\u0085\x7f`,
		"\u202eevil\u2066\u200f": `\u202eevil\u2066\u200f`,
		"\u2028\u2029\ufeff":     `\u2028\u2029\ufeff`,
		"\U000e0041":             `\U000e0041`,
		"\xff\x9b\xc2":           `\xff\x9b\xc2`,
		"\ufffd":                 "\ufffd",
		"می\u200cخواهم":          "می\u200cخواهم",
	} {
		if got := text.Printable(in); got != want {
			t.Errorf("Printable(%q) = %s, want %s", in, got, want)
		}
	}
	if got := text.Block("a\n\tb\x1b\r"); got != "a\n\tb\\x1b\\r" {
		t.Errorf("Block keeps line feeds and tabs only; got %q", got)
	}
}

// hostile is text of all kinds, with much of what terminals obey.
func hostile() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		part := rapid.OneOf(
			rapid.String(), rapid.SampledFrom([]string{"\x1b[2J", "\u009b", "\u202e", "\xff", "\xc2", "\u2028", "\n", "\x7f", `\`, `"`, "\U000e0001"}),
			rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 4), func(b []byte) string { return string(b) }),
		)
		return strings.Join(rapid.SliceOfN(part, 0, 8).Draw(t, "parts"), "")
	})
}

// obeyed reports whether a terminal may obey something in s, by a rule of its own.
func obeyed(s string) bool {
	return !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool {
		return r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x61c || r == 0x200e || r == 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069
	})
}

func TestPrintableHoldsNoControlAndIsStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := hostile().Draw(t, "text")
		got := text.Printable(in)
		if obeyed(got) {
			t.Errorf("Printable(%q) = %q, which a terminal obeys", in, got)
		}
		if again := text.Printable(got); again != got {
			t.Errorf("Printable(%q) = %q, want it unchanged", got, again)
		}
	})
}

func TestJSONIsSafeAndMeansTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := hostile().Draw(t, "text")
		var buf bytes.Buffer
		enc := json.NewEncoder(&buf)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(map[string]any{in: in}); err != nil {
			t.Fatal(err)
		}
		got := text.JSON(buf.Bytes())
		if obeyed(strings.TrimSuffix(string(got), "\n")) {
			t.Errorf("JSON holds a raw control: %q", got)
		}
		var before, after map[string]string
		if err := json.Unmarshal(buf.Bytes(), &before); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(got, &after); err != nil {
			t.Fatalf("no JSON: %v: %q", err, got)
		}
		for key, value := range before {
			if after[key] != value {
				t.Errorf("%q became %q", before, after)
			}
		}
	})
}

func TestJSONTakesForeignBytesThatEncodingJSONPassesOn(t *testing.T) {
	raw, err := json.Marshal(struct{ Payload json.RawMessage }{json.RawMessage("\"\xff\u009b\"")})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(text.JSON(raw)), `{"Payload":"\ufffd\u009b"}`; got != want {
		t.Errorf("JSON = %q, want %q", got, want)
	}
}

func TestWriterReportsWhatItWasGiven(t *testing.T) {
	var buf bytes.Buffer
	if n, err := text.NewWriter(&buf).Write([]byte("\x1bx\n")); n != 3 || err != nil || buf.String() != "\\x1bx\n" {
		t.Errorf("wrote %d, %v, %q; want all 3 bytes, escaped", n, err, buf.String())
	}
}
