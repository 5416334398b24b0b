package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/text"
)

// stream is standard output or standard error, and the only way to either. It is deliberately no io.Writer: ids, URLs, reasons
// and bodies come from strangers, so what a verb prints goes through a method that lets no terminal obey it.
type stream struct {
	mu  sync.Mutex // guards err, and keeps writes of a verb and of the log whole
	to  io.Writer
	err error // the first error of a write, so that no verb succeeds whose answer was lost
}

// raw writes to a stream without a change. Use it only for text that was made safe, or that is not meant for a
// terminal. Any number of goroutines may write: the lock of the stream keeps each write whole.
type raw struct{ s *stream }

// Write writes p in one piece.
func (w raw) Write(p []byte) (int, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	n, err := w.s.to.Write(p)
	// Later errors mostly follow from the first.
	if err != nil && w.s.err == nil {
		w.s.err = err
	}
	return n, err
}

// mute discards what is printed from now on, until unmute is called. A verb that draws on the whole terminal calls it, because a
// line of the log between two drawings would spoil them. What is written meanwhile is lost, and no error.
func (s *stream) mute() (unmute func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	to := s.to
	s.to = io.Discard
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.to = to
	}
}

// failed returns the first error of a write; nil if all of them succeeded.
func (s *stream) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// line prints one line. Line breaks and control characters of the arguments are escaped, so it stays one line.
func (s *stream) line(format string, args ...any) error {
	// Arguments may come from strangers, so the whole line is made printable after formatting, not each
	// argument.
	return s.print(text.Printable(fmt.Sprintf(format, args...)) + "\n")
}

// fields prints a line of fields that tabs separate; no field holds one. It changes the elements of fields.
func (s *stream) fields(fields ...string) error {
	for i := range fields {
		fields[i] = text.Printable(fields[i])
	}
	return s.print(strings.Join(fields, "\t") + "\n")
}

// block prints text of several lines as it stands, but for what a terminal would obey. Line ends and tabs stay.
func (s *stream) block(lines string) error { return s.print(text.Block(lines) + "\n") }

// print writes text that is safe for a terminal. The caller is responsible for safe.
func (s *stream) print(safe string) error {
	// One write for each line keeps lines of several goroutines apart.
	_, err := raw{s}.Write([]byte(safe))
	return err
}

// json prints one value as a line of JSON. HTML characters are not escaped; control characters are, as JSON demands.
func (s *stream) json(v any) error {
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	// text.JSON also escapes control characters above ASCII, which JSON allows and terminals obey.
	return s.print(string(text.JSON(line.Bytes())))
}

// errBinary is the error of a body that no terminal can show; curl refuses such a body, too.
const errBinary = "the body is binary and is not shown on a terminal: send standard output to a file"

// body prints a response body. To a file or a pipe it goes unchanged. On a terminal it is printed as text, with escapes
// for control characters, and refused if it holds a zero byte. It never holds the whole body in memory. Errors:
// those of from, of the stream, and errBinary.
func (s *stream) body(from io.Reader) error {
	if !s.isTerminal() {
		_, err := io.Copy(raw{s}, from)
		return err
	}
	// The size bounds the memory and not the body.
	buf := make([]byte, 32<<10)
	held := 0 // bytes of buf that belong to the next piece
	for {
		n, err := from.Read(buf[held:])
		piece := buf[:held+n]
		// Text has no zero byte. The test is for each piece, so a body that shows one late is printed up to
		// there.
		if bytes.IndexByte(piece, 0) >= 0 {
			return fmt.Errorf("%s", errBinary)
		}
		cut := len(piece)
		// At the end nothing can follow, so a cut character is printed as it is.
		if err == nil {
			cut -= unfinished(piece)
		}
		if err := s.print(text.Block(strings.ReplaceAll(string(piece[:cut]), "\r\n", "\n"))); err != nil {
			return err
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		// At most three bytes stay behind.
		held = copy(buf, piece[cut:])
	}
}

// unfinished returns how many bytes at the end of piece may be the beginning of a character, or of a line end "\r\n".
// They are printed with the next piece.
func unfinished(piece []byte) int {
	// A character has at most utf8.UTFMax bytes, so an unfinished one has at most one less.
	for n := 1; n <= min(len(piece), utf8.UTFMax-1); n++ {
		if last := piece[len(piece)-n:]; utf8.RuneStart(last[0]) {
			if !utf8.FullRune(last) || last[0] == '\r' && n == 1 {
				return n
			}
			return 0
		}
	}
	return 0
}

// writer returns a writer for what prints by itself: help, completion and the text log. It escapes what a terminal would
// obey.
func (s *stream) writer() io.Writer { return text.NewWriter(raw{s}) }

// jsonWriter is for the JSON log.
func (s *stream) jsonWriter() io.Writer { return text.NewJSONWriter(raw{s}) }

// width returns how many columns a person sees; zero if the stream is no terminal.
func (s *stream) width() int {
	width, _ := s.size()
	return width
}

// size returns how many columns and lines a person sees; zero if the stream is no terminal.
func (s *stream) size() (width, height int) {
	f, _ := s.to.(*os.File)
	// The conversion fails for a writer that is no file, which is no terminal either.
	if !s.isTerminal() {
		return 0, 0
	}
	width, height, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0, 0
	}
	return width, height
}

// isTerminal reports whether a person looks. A muted stream is none.
func (s *stream) isTerminal() bool {
	f, isFile := s.to.(*os.File)
	return isFile && term.IsTerminal(int(f.Fd()))
}

// note prints a line to standard error, beside the answer. A line that cannot be written is lost.
func (a *app) note(format string, args ...any) { _ = a.err.line("gofer: "+format, args...) }

// printJSON prints one value as a line of JSON to standard output.
func (a *app) printJSON(v any) error { return a.out.json(v) }

// say prints that something was done: as a sentence, or with --json as an object with the given fields.
func (a *app) say(fields map[string]any, format string, args ...any) error {
	if a.json {
		return a.printJSON(fields)
	}
	return a.out.line(format, args...)
}

// printBody writes the body of a result to standard output. For a job that did not succeed it writes each attempt to
// standard error instead.
func (a *app) printBody(ctx context.Context, s *session, r jobs.Result) error {
	if r.Outcome != jobs.Succeeded {
		for _, attempt := range r.Attempts {
			_ = a.err.line("  attempt %d  %s  %s", attempt.Attempt, attempt.Proxy, attempt.Error)
		}
		return nil
	}
	body, err := s.client.Body(ctx, r)
	// A body that was stored apart may be gone while the result is still there.
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	return a.out.body(body)
}

// printResult writes one line about a result.
func (a *app) printResult(r jobs.Result) error {
	if a.json {
		return a.printJSON(r.Summary())
	}
	return a.out.colouredLine(resultColour(r), resultLine(r))
}

// resultColour is green for an answer of 2xx or 3xx, yellow for another answer, red for a job that failed. It is a
// hint for people; the words of the line say the same.
func resultColour(r jobs.Result) string {
	switch {
	// Cancelled jobs are yellow, because that was intended.
	case r.Outcome == jobs.Failed:
		return red
	case r.Outcome == jobs.Succeeded && r.Status < 400:
		return green
	}
	return yellow
}

// resultLine is a result in one line for people. It is not printable by itself: a URL and a detail come from
// strangers.
func resultLine(r jobs.Result) string {
	line := fmt.Sprintf("%s/%s %s", r.Queue, r.ID, r.Outcome)
	// The parts follow the order in which people ask: which job, how it ended, through what, at what cost.
	if r.Error != "" && r.Error != r.Outcome {
		line += " " + r.Error
	}
	if r.Status != 0 {
		line += fmt.Sprintf(" %d", r.Status)
	}
	if r.Proxy != "" {
		line += " via " + r.Proxy
	}
	line += fmt.Sprintf(" (attempts %d, %d bytes, %s)", r.AttemptCount, r.Bytes, brief(r.Duration))
	if r.URL != "" { // a job that was cancelled before its first attempt has none
		line += " " + r.URL
	}
	if r.Detail != "" && r.Outcome == jobs.Failed {
		line += ": " + r.Detail
	}
	return line
}

// brief rounds a duration as people read it: to the millisecond, and below ten milliseconds to a tenth of one. A
// duration below 50 µs becomes zero.
func brief(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

// milliseconds rounds a duration for tables.
func milliseconds(d jobs.Duration) time.Duration { return d.Std().Round(time.Millisecond) }
