package text_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/gofer-mq/gofer/jobs/text"
)

// read is what Lines makes of a text: number:text, separated by blanks, and the error.
func read(r io.Reader) (string, error) {
	var out []string
	for line, err := range text.Lines(r, 100) {
		if err != nil {
			return strings.Join(out, " "), err
		}
		out = append(out, fmt.Sprintf("%d:%s", line.Number, line.Text))
	}
	return strings.Join(out, " "), nil
}

func TestLinesAreReadAsEditorsWriteThem(t *testing.T) {
	for in, want := range map[string]string{
		"":                                      "",
		"a\nb\n":                                "1:a 2:b",
		"a\r\nb\r\n":                            "1:a 2:b",
		"\ufeffa\nb":                            "1:a 2:b",
		"\ufeff# comment\r\n\r\n \t a \u00a0\n": "3:a",
		"a\n\ufeffb":                            "1:a 2:b",
		"# one\n\n#two\nlast":                   "4:last",
		"\ufeff":                                "",
		"a # b\n":                               "1:a # b",
		strings.Repeat("x", 99) + "\ny":         "1:" + strings.Repeat("x", 99) + " 2:y",
	} {
		for name, r := range map[string]io.Reader{"whole": strings.NewReader(in), "a byte at a time": iotest.OneByteReader(strings.NewReader(in))} {
			if got, err := read(r); got != want || err != nil {
				t.Errorf("%q, %s = %q, %v; want %q", in, name, got, err, want)
			}
		}
	}
}

func TestTextThatIsNoneIsNamed(t *testing.T) {
	for in, want := range map[string]string{
		"\xff\xfeh\x00t\x00":                 "line 1: the text is UTF-16: save it as UTF-8",
		"\xfe\xff\x00h":                      "line 1: the text is UTF-16: save it as UTF-8",
		"ok\nh\x00t\x00\n":                   "line 2: there are NUL bytes: the text is UTF-16, or not text; save it as UTF-8",
		"#\n" + strings.Repeat("secret", 20): "line 2: longer than 100 bytes",
	} {
		if _, err := read(strings.NewReader(in)); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", in, err, want)
		}
	}
}

func TestPartOfALineIsNoLine(t *testing.T) {
	broken := errors.New("the disk is broken")
	got, err := read(io.MultiReader(strings.NewReader("http://a.test/1\nhttp://a.te"), iotest.ErrReader(broken)))
	if got != "1:http://a.test/1" || !errors.Is(err, broken) {
		t.Errorf("read %q, %v; want the whole line and the failure", got, err)
	}
}

func TestDocumentIsUTF8WithoutItsMark(t *testing.T) {
	if got, err := text.Document([]byte("\ufeff {}\r\n")); string(got) != "{}" || err != nil {
		t.Errorf("Document = %q, %v; want {}", got, err)
	}
	for _, bad := range []string{"\xff\xfe{\x00", "{\x00}\x00", "\xe9t\xe9"} {
		if got, err := text.Document([]byte(bad)); err == nil {
			t.Errorf("Document(%q) = %q, want an error", bad, got)
		}
	}
}

func TestItemsHaveNoBlanksAroundThem(t *testing.T) {
	if got := text.Items(" a, b ,,c\t,\n"); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("Items = %q, want a, b, c", got)
	}
}

func TestNumbersAreDecimal(t *testing.T) {
	for _, bad := range []string{"", "0x10", "010", "00", "1_000", "1e3", "٣", " 1", "9223372036854775808"} {
		if n, err := text.Int(bad); err == nil {
			t.Errorf("Int(%q) = %d, want an error", bad, n)
		}
	}
	for _, bad := range []string{"", "0x1p4", "inf", "-Infinity", "NaN", "1_0", "1e400", "1,5"} {
		if n, err := text.Float(bad); err == nil {
			t.Errorf("Float(%q) = %v, want an error", bad, n)
		}
	}
	if n, err := text.Int("-42"); n != -42 || err != nil {
		t.Errorf("Int(-42) = %d, %v", n, err)
	}
	if n, err := text.Float("1.5e1"); n != 15 || err != nil {
		t.Errorf("Float(1.5e1) = %v, %v", n, err)
	}
}
