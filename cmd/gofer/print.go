package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
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

// stream is standard output or standard error, and the only way to either. It is no io.Writer: strangers write ids, URLs, reasons
// and bodies, so a verb prints by methods that escape what a terminal would obey. A terminal obeys control characters: they could
// hide lines, change the title, or write into the shell's input. Any number of goroutines may use a stream.
type stream struct {
	mu  sync.Mutex // guards err, and keeps writes of a verb and of the log whole
	to  io.Writer
	err error // the first error of a write, so that no verb succeeds whose answer was lost
}

// raw writes to a stream without a change. Use it only for text that is safe, or that is not meant for a terminal. Any number of
// goroutines may write.
type raw struct{ s *stream }

// Write writes p in one piece.
func (w raw) Write(p []byte) (int, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	n, err := w.s.to.Write(p)
	// Later errors mostly follow from the first, which names the cause.
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

// failed returns the first error of a write; nil if all writes succeeded.
func (s *stream) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// line prints one line. Line breaks and control characters of the arguments are escaped, so it stays one line.
func (s *stream) line(format string, args ...any) error {
	// Strangers may have written any of the arguments. The whole line is made printable after formatting, so no argument can be
	// forgotten.
	return s.print(text.Printable(fmt.Sprintf(format, args...)) + "\n")
}

// fields prints a line of fields that tabs separate, for cut and awk. No field holds a tab, because that is escaped. It changes
// the elements of fields.
func (s *stream) fields(fields ...string) error {
	for i := range fields {
		fields[i] = text.Printable(fields[i])
	}
	return s.print(strings.Join(fields, "\t") + "\n")
}

// block prints text of several lines as it stands, but for what a terminal would obey. Line ends and tabs stay.
func (s *stream) block(lines string) error { return s.print(text.Block(lines) + "\n") }

// print writes text that the caller has made safe for a terminal.
func (s *stream) print(safe string) error {
	// One write for each line: two goroutines, or the log and a verb, never mix their lines.
	_, err := raw{s}.Write([]byte(safe))
	return err
}

// json prints one value as a line of JSON. It escapes all control characters and no HTML.
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

// errBinary is the error of a body that no terminal can show.
var errBinary = errors.New("the body is binary and is not shown on a terminal: send standard output to a file")

// body prints a response body: unchanged to a file or a pipe, and with control characters escaped on a terminal, up to a
// zero byte, which ends it with errBinary. It never holds the whole body in memory.
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
		// Text has no zero byte. Each piece is tested when it comes, so a body with a late zero byte is printed up to that piece.
		if bytes.IndexByte(piece, 0) >= 0 {
			return errBinary
		}
		cut := len(piece)
		if err == nil { // after the end nothing completes a character
			cut -= incompleteEnd(piece)
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
		// The end of the piece may be the beginning of a character: at most three bytes, which the next piece completes.
		held = copy(buf, piece[cut:])
	}
}

// incompleteEnd returns how many bytes at the end of piece may be the beginning of a character, or of a line end "\r\n".
// They are printed with the next piece.
func incompleteEnd(piece []byte) int {
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

// writer returns a writer for help, completion and the text log. It escapes what a terminal would obey.
func (s *stream) writer() io.Writer { return text.NewWriter(raw{s}) }

// jsonWriter returns a writer for the JSON log.
func (s *stream) jsonWriter() io.Writer { return text.NewJSONWriter(raw{s}) }

// width returns how many columns a person sees; zero if the stream is no terminal.
func (s *stream) width() int {
	width, _ := s.size()
	return width
}

// size returns how many columns and lines a person sees; zero if the stream is no terminal.
func (s *stream) size() (width, height int) {
	if !s.isTerminal() {
		return 0, 0
	}
	f, _ := s.to.(*os.File)
	width, height, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0, 0
	}
	return width, height
}

// isTerminal reports whether a person sees the stream. A muted stream is no terminal. Bodies, tables and colours depend on it: a
// file gets them unchanged, uncut and without colours.
func (s *stream) isTerminal() bool {
	f, isFile := s.to.(*os.File)
	return isFile && term.IsTerminal(int(f.Fd()))
}

// note prints a line to standard error, beside the answer. A line that cannot be written is lost.
func (a *app) note(format string, args ...any) { _ = a.err.line("gofer: "+format, args...) }

// printJSON prints one value as a line of JSON to standard output.
func (a *app) printJSON(v any) error { return a.out.json(v) }

// printDone prints that something was done: as a sentence, or with --json as an object with the given fields.
func (a *app) printDone(fields map[string]any, format string, args ...any) error {
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
			// Standard output stays empty, so that a script never takes a reason for a body.
			_ = a.err.line("  attempt %d  %s  %s", attempt.Attempt, attempt.Proxy, attempt.Error)
		}
		return nil
	}
	body, err := s.client.Body(ctx, r)
	// A large body is an object of its own, which may be gone while its result is still there.
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

// resultColour is green for an answer of 2xx or 3xx, yellow for another answer and for a cancelled job, and red for a
// failed job.
func resultColour(r jobs.Result) string {
	switch {
	// A cancelled job is yellow: somebody wanted that.
	case r.Outcome == jobs.Failed:
		return red
	case r.Outcome == jobs.Succeeded && r.Status < 400:
		return green
	}
	return yellow
}

// resultLine is a result in one line for people. The caller escapes it.
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
	line += fmt.Sprintf(" (attempts %d, %d bytes, %s)", r.AttemptCount, r.Bytes, shortDuration(r.Duration))
	if len(r.Omitted) > 0 {
		line += " (" + omittedText(r.Omitted) + ")"
	}
	if r.URL != "" { // a job that was cancelled before its first attempt has none
		line += " " + r.URL
	}
	if r.Detail != "" && r.Outcome == jobs.Failed {
		line += ": " + r.Detail
	}
	return line
}

// shortDuration rounds a duration as people read it: to the millisecond, and below ten milliseconds to a tenth of one. A
// duration below 50 µs becomes zero.
func shortDuration(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

// clockTime is a moment of a sentence that is about another moment, or about now: without its day if both are of one day.
func clockTime(t, about time.Time) string {
	const day = "2006-01-02T"
	if t = t.UTC(); t.Format(day) == about.UTC().Format(day) {
		return t.Format("15:04:05.000Z")
	}
	return t.Format(day + "15:04:05.000Z")
}

// milliseconds rounds a duration for tables.
func milliseconds(d jobs.Duration) time.Duration { return d.Std().Round(time.Millisecond) }

// localTime is a moment in the zone of this machine, which it names. Only sentences for people use it; columns and JSON are in
// UTC, so that outputs of two machines can be compared.
func localTime(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }

// omittedText says which parts of a result no stream could hold.
func omittedText(parts []string) string {
	return "not stored, for the limits of the streams: " + strings.Join(parts, ", ")
}
