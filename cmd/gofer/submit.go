package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/text"
)

// submitFlags are the flags of gofer submit. An empty text means that the flag was not given.
type submitFlags struct {
	jobFlags

	file, queue, id, output string
	// in is a duration and at is a time; at most one of the two is given.
	in, at            string
	wait, fail, print bool
	// timeout bounds the wait for results after the last line was read; zero means no bound.
	timeout time.Duration
	// oldName is true if timeout was given as --timeout.
	oldName bool

	// template is what jobFlags describe. It is made once, before the first line is read, and is not changed after that.
	template jobs.Job
}

// submitHelp is the long help of submit.
const submitHelp = `Publishes a job for each URL, or for each line of a file or of standard input ("-").
A line is a URL or a JSON job, which may carry "id" and "queue". Empty lines and lines that begin with # are skipped.

The id of each accepted job is printed as soon as the server has it and, unless there is a single URL, the number of its
line (or of the URL) and its URL, separated by tabs. With --wait the outcome of each job is printed instead, as it comes, or the
body of a single URL. If the waiting ends early, ten of the jobs without an outcome are named on standard error, or all of them
with --json. The exit code is 1 if --wait-timeout has ended it, and also if no job was accepted; in the second case no job is named.

If the server stops answering, gofer tries for 30 s, and says so on standard error after 3 s. Then it ends with exit code 69, and
names ten jobs that may have been accepted. An id is refused while its job is queued or running, and while its result is kept.
While its job waits, a second job with the id may be accepted. There is still one result: that of the second job if it need not
wait, else that of the first. With --id gofer warns of that; for many jobs it does not ask.

With a single URL, --wait prints the body: unchanged to a file or a pipe, and on a terminal as 'gofer results' does.

--output DIR keeps each body in the file DIR/QUEUE/ID. No file there is ever replaced: if it exists, or cannot be written,
its job counts as failed.

-X, -H, -d and the other flags that stand for members of a job apply to URLs and to JSON lines. A JSON line keeps its own
members: the flags fill in those that it lacks, headers and meta name by name. --in and --at apply to every line.

An answer of a target is a success, also a 404. An answer that is retried, such as a 503 or one that matches the job's ban, fails the
job once its attempts are used up. With --fail the exit code is 3 if an answer is not 2xx or 3xx.

Three flags are about time. --wait-timeout ends only the waiting of this command: the jobs go on. --attempt-timeout is the
member timeout of a job, and ends one attempt. --deadline is a member, too, and ends the job.`

// submitCommand publishes jobs, and waits for their results if asked.
func (a *app) submitCommand() *cobra.Command {
	var f submitFlags
	cmd := &cobra.Command{
		Use:   "submit [URL…|-]",
		Short: "Publish jobs, and wait for their results if asked",
		Long:  submitHelp,
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
	flags.StringVar(&f.file, "file", "", "`FILE` with a job a line, - for standard input")
	flags.StringVar(&f.queue, "queue", "", "`QUEUE` of the jobs (default \"default\")")
	flags.StringVar(&f.id, "id", "", "`ID` of the job; for a single one")
	flags.BoolVar(&f.wait, "wait", false, "wait for the results and print the outcomes")
	flags.StringVar(&f.output, "output", "", "`DIR` for the bodies, a file QUEUE/ID each, none of them replaced; implies --wait")
	f.addTimes(flags)
	flags.BoolVar(&f.fail, "fail", false, "with --wait or --output: exit code 3 if a result is not 2xx or 3xx")
	flags.BoolVar(&f.print, "print", false, "print the jobs as JSON and publish nothing")
	f.add(flags)
	return cmd
}

// addTimes adds the flags about when jobs run and how long the command waits.
func (f *submitFlags) addTimes(flags *pflag.FlagSet) {
	flags.StringVar(&f.in, "in", "", "let the job run after this `DURATION`, such as 3s; a number alone is seconds")
	flags.StringVar(&f.at, "at", "", "do not run the job before this `TIME` (RFC 3339, or \"2026-01-02 15:04\" of this machine's zone)")
	flags.Var((*durationFlag)(&f.timeout), "wait-timeout", "with --wait or --output: how long this command waits for results, while the jobs go on; 0 means as long as it takes (old name: --timeout)")
	// Both names write the same variable, so the last one given wins.
	flags.Var((*durationFlag)(&f.timeout), "timeout", "old name of --wait-timeout")
	flags.Lookup("timeout").Hidden = true
}

// check refuses flags that would be ignored or are out of range, and notes whether --data was given. Errors are usage errors. A
// flag that is ignored in silence is worse than an error: the caller believes in it. What depends on the arguments is checked by
// submit.
func (f *submitFlags) check(given *pflag.FlagSet) error {
	// An empty --data is a body of no bytes, and no --data is no body. The value is empty in both cases.
	f.hasData, f.oldName = given.Changed("data"), given.Changed("timeout")
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
	// Changed is asked, because the flag has the value zero also if it was not given.
	if given.Changed("attempts") && (f.attempts < 1 || f.attempts > jobs.MaxMaxAttempts) {
		return usage("--attempts: not between 1 and %d", jobs.MaxMaxAttempts)
	}
	// Without this test each job would be refused by itself. Here the call is refused once.
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
	a.warnOfTimeout(&f, notBefore)
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
	// The folder is made before the first job is published: later, a folder that cannot be made would fail every job.
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
	// --print needs no server, so that jobs can be looked at before there is one.
	if f.print {
		return todo.printJobs(source)
	}
	if todo.session, err = a.connect(ctx, "submit"); err != nil {
		return err
	}
	defer todo.session.close()
	return todo.session.addRemedy(todo.run(ctx, source))
}

// warnOfTimeout warns of a --wait-timeout that was probably meant for attempts, or within which no result can come.
func (a *app) warnOfTimeout(f *submitFlags, notBefore time.Time) {
	if f.oldName {
		a.note("--timeout is the old name of --wait-timeout: it ends the waiting of this command and no attempt; --attempt-timeout ends an attempt")
	}
	if delay := time.Until(notBefore); f.timeout > 0 && delay >= f.timeout {
		a.note("no result can come within --wait-timeout %s: the jobs run in %s at the earliest", f.timeout, delay.Round(time.Second))
	}
}

// checkURLs refuses URLs without a scheme, and arguments that would be skipped as lines, such as that of a shell variable
// that is not set.
func checkURLs(urls []string) error {
	for i, u := range urls {
		if u = strings.TrimSpace(u); u == "" || u[0] == '#' || strings.Contains(u, "\n") {
			return usage("URL %d: empty, a comment, or of several lines", i+1)
		}
		// The error repeats the text, so a text with "@", which may hold a password, is left to the parser of URLs.
		if u == "-" || u[0] == '{' || strings.Contains(u, "@") {
			continue
		}
		if near := jobs.NearURL(u); near != "" {
			return usage("URL %d: %q is no URL, did you mean %s?", i+1, text.Printable(u), text.Printable(near))
		}
		if !strings.Contains(u, ":/") {
			host := text.Printable(strings.TrimLeft(u, "/"))
			return usage("URL %d: %q has no scheme, did you mean http://%s or https://%[3]s?", i+1, text.Printable(u), host)
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
		// A time in RFC 3339 has a year of four digits, so the end of the last such year is the latest time of a job.
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

// lines returns a reader of the jobs, one a line: the arguments, a file or standard input. A file may be a pipe, so its
// reads end with ctx; to open a named pipe without a writer blocks nevertheless. The caller calls done. Errors are usage
// errors.
func (a *app) lines(ctx context.Context, file string, urls []string) (source io.Reader, done func(), err error) {
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
			return nil, nil, usage("--file: %w", err)
		}
		return interruptible(ctx, f), func() { _ = f.Close() }, nil
	case len(urls) == 0:
		return nil, nil, usage("submit: no URL given; name one, or --file, or - for standard input")
	}
	// Arguments become lines, so there is one way to read jobs. checkURLs refuses those that would be skipped.
	return strings.NewReader(strings.Join(urls, "\n")), func() {}, nil
}

// parseLine reads a line that is not empty: a bare URL, or a JSON job that may carry id and queue. It takes from the flags
// what the line lacks, and the time of --in or --at (notBefore) in any case. Its errors are those of a worker.
func parseLine(line []byte, f *submitFlags, notBefore time.Time) (jobs.Job, error) {
	return jobs.DecodeLine(line, func(job *jobs.Job) {
		setIfZero(&job.Queue, f.queue)
		setIfZero(&job.ID, f.id)
		// The flag wins over the line: --in 1h is said about this call, and the line may be of an old file.
		if !notBefore.IsZero() {
			job.NotBefore = notBefore
		}
		f.fill(job)
	})
}
