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
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/text"
)

// submitFlags are the flags of gofer submit. Only one of in and at may be given, and both apply to every job.
type submitFlags struct {
	jobFlags

	// Texts as given; empty means that the flag was not given.
	file, queue, id, at, output string
	in                          string
	wait, fail, print           bool
	timeout                     time.Duration

	// It is made once, before the first line is read, and shared by all.
	template jobs.Job // what jobFlags describe
}

// submitCommand publishes jobs. Its flags are those of a job, those of the submission, and those of the waiting.
// The texts of its flags are also in cmd/gofer/README.md.
func (a *app) submitCommand() *cobra.Command {
	var f submitFlags
	cmd := &cobra.Command{
		Use:   "submit [URL…|-]",
		Short: "Publish jobs, and wait for their results if asked",
		Long: `Publishes a job for each URL, or for each line of a file or of standard input ("-").
A line is a URL or a JSON job, which may carry "id" and "queue". Empty lines and lines that begin with # are skipped.

The id of each accepted job is printed as soon as the server has it and, unless there is a single URL, the number of its
line (or of the URL) and its URL, separated by tabs. With --wait it is the outcome of each instead, as it comes, or the body
of a single URL. When the waiting ends early, ten of the jobs without an outcome are named on standard error, or all of them
with --json.

With a single URL, --wait prints the body: unchanged to a file or a pipe, and on a terminal as 'gofer results' does.

--output DIR keeps each body in the file DIR/QUEUE/ID. No file there is ever replaced: if it exists, or cannot be written,
its job counts as failed.

-X, -H, -d and the other flags that stand for members of a job hold for URLs and for JSON lines. A JSON line keeps its own
members: the flags fill in those that it lacks, headers and meta name by name. --in and --at hold for every line.

Any answer of a target is a success, also a 404. With --fail the exit code is 3 if an answer is not 2xx or 3xx.`,
		Example: `  gofer submit --wait https://example.com/
  gofer submit --file urls.txt --wait --output bodies
  gofer submit -X PUT -H 'Content-Type: text/plain' -d @page.txt https://example.com/pages/1
  echo '{"url":"https://example.com/","timeout":"5s"}' | gofer submit -`,
		RunE: func(cmd *cobra.Command, urls []string) error {
			if err := f.check(cmd.Flags()); err != nil {
				return err
			}
			return a.submit(cmd.Context(), f, urls)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.file, "file", "", `file with a job a line, "-" for standard input`)
	flags.StringVar(&f.queue, "queue", "", "queue (default \"default\")")
	flags.StringVar(&f.id, "id", "", "id of the job; for a single one")
	flags.StringVar(&f.in, "in", "", "wait this long before the job runs, such as 3s")
	flags.StringVar(&f.at, "at", "", "do not run the job before this time (RFC 3339)")
	flags.BoolVar(&f.wait, "wait", false, "wait for the results and print the outcomes")
	flags.StringVar(&f.output, "output", "", "folder for the bodies, a file QUEUE/ID each, none of them replaced; implies --wait")
	flags.Var((*durationFlag)(&f.timeout), "wait-timeout", "with --wait or --output: how long to wait for the results; 0 means as long as it takes (old name: --timeout)")
	// Both names write the same variable, so the last one given wins.
	flags.Var((*durationFlag)(&f.timeout), "timeout", "old name of --wait-timeout")
	flags.Lookup("timeout").Hidden = true
	flags.BoolVar(&f.fail, "fail", false, "with --wait or --output: exit code 3 if a result is not 2xx or 3xx")
	flags.BoolVar(&f.print, "print", false, "print the jobs as JSON and publish nothing")
	f.add(flags)
	return cmd
}

// check refuses flags that would be ignored or are out of range, and notes whether --data was given. Errors are usage
// errors. What depends on the arguments is checked by submit.
func (f *submitFlags) check(given *pflag.FlagSet) error {
	// An empty --data differs from none, which the value alone cannot tell.
	f.hasData = given.Changed("data")
	// --output implies --wait; submit sets it later.
	waits := f.wait || f.output != ""
	for _, name := range []string{"wait-timeout", "timeout", "fail"} {
		if given.Changed(name) && !waits {
			hint := "; --attempt-timeout bounds an attempt"
			if name == "fail" {
				hint = ""
			}
			return usage("--%s needs --wait or --output: without them no result is waited for%s", name, hint)
		}
	}
	if f.print && waits {
		return usage("--print publishes nothing, so there is nothing to wait for: leave out --wait and --output")
	}
	// Changed, because zero is the value of a flag that was not given.
	if given.Changed("attempts") && (f.attempts < 1 || f.attempts > jobs.MaxMaxAttempts) {
		return usage("--attempts: not between 1 and %d", jobs.MaxMaxAttempts)
	}
	// An upper bound that is exceeded would refuse each job on its own; here the call is refused once.
	if given.Changed("attempt-timeout") && (f.attemptTimeout <= 0 || f.attemptTimeout > jobs.MaxAttemptTimeout) {
		return usage("--attempt-timeout: not above 0 and at most %s", jobs.MaxAttemptTimeout)
	}
	return nil
}

// submit checks everything that can be checked without a server before it connects, so that a mistake publishes no job.
func (a *app) submit(ctx context.Context, f submitFlags, urls []string) error {
	notBefore, err := f.notBefore(time.Now())
	if err != nil {
		return err
	}
	if f.template, err = f.jobFlags.template(); err != nil {
		return err
	}
	// It is opened before the connection, so that a wrong path costs no time.
	source, closeSource, err := a.lines(ctx, f.file, urls)
	if err != nil {
		return err
	}
	defer closeSource()
	// Two jobs under one id would be one job.
	if f.id != "" && (len(urls) != 1 || f.file != "" || urls[0] == "-") {
		return usage("--id needs exactly one URL")
	}
	if err := checkURLs(urls); err != nil {
		return err
	}
	// The folder is made early: a body that cannot be kept fails its job.
	if f.output != "" {
		f.wait = true
		if err := os.MkdirAll(f.output, 0o755); err != nil {
			return err
		}
	}
	todo := &submission{app: a, flags: f, notBefore: notBefore, unit: "line"}
	// Arguments are counted as URLs, lines of a file or of the input as lines.
	if f.file == "" && urls[0] != "-" {
		todo.unit, todo.single = "URL", len(urls) == 1
	}
	// Nothing below needs to be undone: --print makes no connection.
	if f.print {
		return todo.printJobs(source)
	}
	if todo.session, err = a.connect(ctx, "submit"); err != nil {
		return err
	}
	defer todo.session.close()
	return todo.run(ctx, source)
}

// checkURLs refuses arguments that would be skipped as lines of a file. As an argument an empty text comes from a shell
// variable that is not set.
func checkURLs(urls []string) error {
	for i, u := range urls {
		if u = strings.TrimSpace(u); u == "" || u[0] == '#' || strings.Contains(u, "\n") {
			return usage("URL %d: empty, a comment, or of several lines", i+1)
		}
		// A scheme that is forgotten is the commonest mistake. A text with user information is not repeated.
		if u != "-" && u[0] != '{' && !strings.Contains(u, ":/") && !strings.Contains(u, "@") {
			return usage("URL %d: %q has no scheme, did you mean http://%s or https://%[3]s?", i+1, text.Printable(u), text.Printable(u))
		}
	}
	return nil
}

// notBefore returns the time before which no job runs, by --in or --at; zero without either. Errors are usage errors.
func (f *submitFlags) notBefore(now time.Time) (time.Time, error) {
	switch {
	case f.in != "" && f.at != "":
		return time.Time{}, usage("--in and --at: only one of the two can be given")
	case f.in != "":
		d, err := jobs.ParseDuration(f.in)
		// The end of the last year that a time may have: RFC 3339 has four digits.
		longest := time.Date(jobs.MaxYear+1, 1, 1, 0, 0, 0, 0, time.UTC).Sub(now)
		switch {
		case errors.Is(err, jobs.ErrTooLong), d >= longest:
			return time.Time{}, usage("--in: too long: no job waits beyond the year %d, that is %dh at most", jobs.MaxYear, int(longest.Hours()))
		case err != nil || d < 0:
			return time.Time{}, usage("--in: not a duration such as 3s")
		}
		return now.Add(d), nil
	case f.at != "":
		return timeOf("--at", f.at)
	}
	return time.Time{}, nil
}

// lines returns where the jobs come from: the arguments, a file or standard input, one job a line. The caller calls the
// function when it has read. A file may be a pipe, so reading it ends with ctx. Errors are usage errors.
func (a *app) lines(ctx context.Context, file string, urls []string) (io.Reader, func(), error) {
	if file != "" && len(urls) > 0 {
		return nil, nil, usage("--file and URLs: only one of the two can be given")
	}
	if len(urls) == 1 && urls[0] == "-" {
		file = "-"
	}
	switch {
	case file == "-":
		return a.in, func() {}, nil
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			// Opening is not bounded by ctx: the path of a named pipe without a writer blocks here.
			return nil, nil, usage("--file: %w", err)
		}
		return reading(ctx, f), func() { _ = f.Close() }, nil // it may be a pipe
	case len(urls) == 0:
		return nil, nil, usage("submit: no URL given; name one, or --file, or - for standard input")
	}
	// Arguments become lines, so there is one way to read jobs. checkURLs refuses those that would be skipped.
	return strings.NewReader(strings.Join(urls, "\n")), func() {}, nil
}

// parseLine reads a line: a bare URL, or a JSON job that may carry id and queue. The line is not empty. Flags fill in
// what the line lacks. The error does not name the line's number, which the caller knows.
func parseLine(line []byte, f *submitFlags, notBefore time.Time) (jobs.Job, error) {
	// encoding/json would replace invalid bytes silently.
	if !utf8.Valid(line) {
		return jobs.Job{}, errors.New("not UTF-8 text")
	}
	job := jobs.Job{URL: string(line)}
	// No URL begins with a brace.
	if line[0] == '{' {
		var err error
		if job, err = parseJSONLine(line); err != nil {
			return jobs.Job{}, err
		}
	}
	if job.Queue == "" {
		job.Queue = f.queue
	}
	if job.ID == "" {
		job.ID = f.id
	}
	// --in and --at are for every line, and win over the line's own time.
	if !notBefore.IsZero() {
		job.NotBefore = notBefore
	}
	f.fill(&job)
	return job, nil
}

// membersOf returns the members of a JSON object. A member that is given twice is an error: encoding/json would silently
// drop one of them. The order of the members is lost, which means nothing in JSON.
func membersOf(line []byte) (map[string]json.RawMessage, error) {
	// The first pass checks the syntax, so the second one need not.
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(line, &fields); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	clear(fields)
	dec := json.NewDecoder(bytes.NewReader(line))
	_, _ = dec.Token() // the line was read once already
	for dec.More() {
		name, _ := dec.Token()
		var value json.RawMessage
		_ = dec.Decode(&value)
		// RawMessage of null is not nil, so a member that is null counts as given.
		if fields[name.(string)] != nil {
			return nil, fmt.Errorf("%q: given more than once", name)
		}
		fields[name.(string)] = value
	}
	return fields, nil
}

// parseJSONLine reads a JSON job. id and queue are no members of a job as published, where the subject names them, so
// they are read apart.
func parseJSONLine(line []byte) (job jobs.Job, err error) {
	fields, err := membersOf(line)
	if err != nil {
		return job, err
	}
	var name struct{ ID, Queue string }
	// They are taken out before the job is decoded, which refuses unknown members.
	for _, member := range []struct {
		name string
		to   *string
	}{{"id", &name.ID}, {"queue", &name.Queue}} {
		raw, given := fields[member.name]
		if !given {
			continue
		}
		if err := json.Unmarshal(raw, member.to); err != nil {
			return job, fmt.Errorf("%s: not a string", member.name)
		}
		delete(fields, member.name)
	}
	rest, err := json.Marshal(fields)
	if err != nil {
		return job, err
	}
	// Unmarshal of a job applies its own rules, such as durations as strings.
	if err := json.Unmarshal(rest, &job); err != nil {
		return job, err
	}
	job.ID, job.Queue = name.ID, name.Queue
	return job, nil
}
