package text

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"unicode/utf8"
)

// Line is a line of a text file, without its end and without blanks around it. Text is valid until the next line is read.
type Line struct {
	// Number counts every line of the file from 1, comments and empty ones too.
	Number int
	Text   []byte
}

// errUTF16 says what to do about a file of an editor that writes UTF-16.
var errUTF16 = errors.New("the text is UTF-16: save it as UTF-8")

// Lines reads the lines of a text, one at a time. It skips empty lines, lines that begin with #, and byte order marks, and
// takes CRLF for a line end. The last line needs no end. An error comes last: r's own, or that a line is longer than longest
// bytes, is UTF-16 or has NUL bytes. Errors hold nothing of the text.
func Lines(r io.Reader, longest int) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		source := &source{r: r}
		scanner := bufio.NewScanner(source)
		scanner.Buffer(make([]byte, min(longest, 64<<10)), longest)
		scanner.Split(source.split)
		number := 0
		for scanner.Scan() {
			number++
			line, err := clean(scanner.Bytes())
			if err != nil {
				yield(Line{}, fmt.Errorf("line %d: %w", number, err))
				return
			}
			if line = bytes.TrimSpace(line); len(line) == 0 || line[0] == '#' {
				continue
			}
			if !yield(Line{number, line}, nil) {
				return
			}
		}
		switch err := scanner.Err(); {
		case errors.Is(err, bufio.ErrTooLong):
			yield(Line{}, fmt.Errorf("line %d: longer than %d bytes", number+1, longest))
		case err != nil:
			yield(Line{}, err)
		}
	}
}

// source is a reader that remembers why it ended, because a Scanner takes what stands before a failure for a line.
type source struct {
	r   io.Reader
	err error // nil at the end of the text
}

// Read reads from r.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// split is bufio.ScanLines, except that a part of a line is no line.
func (s *source) split(data []byte, atEOF bool) (advance int, line []byte, err error) {
	if atEOF && s.err != nil && bytes.IndexByte(data, '\n') < 0 {
		return 0, nil, s.err
	}
	return bufio.ScanLines(data, atEOF)
}

// Document is a text that is read as a whole, such as a policy or a password: without a byte order mark and without blanks
// around it. The error says that it is not UTF-8 text, and holds nothing of it.
func Document(data []byte) ([]byte, error) {
	data, err := clean(data)
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(data) {
		return nil, errors.New("the text is not UTF-8")
	}
	return bytes.TrimSpace(data), nil
}

// clean takes a byte order mark off, and tells what is no text of a byte a character. Files that were put together have
// their marks within.
func clean(data []byte) ([]byte, error) {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return nil, errUTF16
	}
	if bytes.IndexByte(data, 0) >= 0 {
		return nil, errors.New("there are NUL bytes: the text is UTF-16, or not text; save it as UTF-8")
	}
	return bytes.TrimPrefix(data, []byte("\ufeff")), nil
}

// Items are the items of a comma separated list, without blanks around them. Empty items are left out.
func Items(list string) (items []string) {
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}
