// Command gofer runs a worker of a fetch-job queue on NATS JetStream, and everything that goes with it: submitting jobs,
// following results and events, setting up streams, finding out what is wrong.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	_ "golang.org/x/crypto/x509roots/fallback" // authorities for where the system has none, as in the container image

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/config"
)

// The exit codes, as sysexits.h has the last two.
const (
	// Scripts depend on these numbers, so none of them ever changes its meaning.
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitSomeFailed  = 3
	exitUnreachable = 69
	exitConfig      = 78
	exitSignalled   = 130 // as a shell has it
)

// A signal is handled by run, and ends the process by exit only if a verb does not end by itself.
func main() {
	// Nothing of the program uses package log.
	log.SetOutput(io.Discard) // net/http prints there, as it came, what a target sends out of turn
	// os.Exit ends the process after run has returned, so its deferred functions have run.
	os.Exit(newApp(os.Stdout, os.Stderr, os.Exit).run(context.Background(), os.Args[1:], os.Stdin))
}

// run is the program with the operating system as its arguments, within a process that goes on. Tests use it: a signal
// ends the context, and nothing ends the process.
func run(ctx context.Context, env config.Environment, args []string, in io.Reader, out, errOut io.Writer) int {
	a := newApp(out, errOut, nil)
	a.env = env
	return a.run(ctx, args, in)
}

// newApp makes the program for one run. exit ends the process with a code; nil means that nobody may end it.
// Both streams remember their first failure. The environment is that of the process until run sets another one.
func newApp(out, errOut io.Writer, exit func(code int)) *app {
	return &app{out: &stream{to: out}, err: &stream{to: errOut}, interrupts: newInterrupts(exit)}
}

// run runs one verb, until ctx ends or a signal comes, and returns the exit code. An interrupted verb that has left
// nothing undone has no error. A write to standard output that failed makes any verb fail: its answer was lost. It
// may be called once: interrupts and streams are those of one run.
func (a *app) run(ctx context.Context, args []string, in io.Reader) int {
	ctx, stop := a.interrupts.watch(ctx)
	defer stop()
	// Questions are asked only where both the answers come from a terminal and the questions go to one.
	a.in, a.interactive = reading(ctx, in), isTerminal(in) && a.err.isTerminal()
	if isTerminal(in) {
		a.keyboard, _ = in.(*os.File)
	}
	root := a.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	// Only an error becomes an interruption: a verb that had finished when the signal came has succeeded.
	if ctx.Err() != nil && err != nil {
		err = interruption(err)
	}
	// Some verbs ignore what their prints return, so a full disk or a closed pipe is found here.
	if lost := a.out.failed(); lost != nil && !errors.Is(err, lost) {
		err = &failure{code: exitFailed, err: errors.Join(err, lost)}
	}
	// cmd is the verb that was found, or gofer itself.
	return a.report(cmd.CommandPath(), err)
}

// app is what every verb gets: the three streams and the flags that all verbs have. It serves one run. Fields are
// written before the verb runs, by run and by the parsing of flags, and only read later.
type app struct {
	in          io.Reader // ends with the verb's context
	interactive bool      // a person types what in reads, and sees what err prints
	keyboard    *os.File  // the terminal that in reads; nil for another input. Nobody else may read it
	out, err    *stream
	json        bool
	server      string             // URL of NATS; empty leaves that to context and env
	context     string             // of the nats command; empty leaves that to env
	env         config.Environment // nil means that of the process
	interrupts  *interrupts
}

// failure is an error with its own exit code. exitCode finds it anywhere in a chain. The error keeps its chain,
// so errors.Is and errors.As look through it.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// usage returns an error in what the user wrote: exit code 2, and a hint at --help.
func usage(format string, args ...any) error {
	return &failure{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// asUsage marks err as a mistake in what the user wrote. It returns nil for nil.
func asUsage(err error) error {
	if err == nil {
		return nil
	}
	return &failure{code: exitUsage, err: err}
}

// report prints what came of a verb and returns the exit code. It is the one place that prints errors. A pipe whose
// reader has gone is no reason for a message. A closed pipe is a failure without a message: the reader, such as
// head, has ended on purpose.
func (a *app) report(verb string, err error) int {
	if err == nil {
		return exitOK
	}
	if errors.Is(err, syscall.EPIPE) {
		return exitFailed // the reader has ended
	}
	code := exitCode(err)
	// Lines takes joined errors apart and puts the remedy behind each.
	for _, line := range config.Lines(err) {
		a.note("%s", line)
	}
	if code == exitUsage {
		_ = a.err.line("Try '%s --help'.", verb)
	}
	return code
}

// exitCode is the exit code of an error that is not nil. The numbers 69 and 78 are those of sysexits.h.
func exitCode(err error) int {
	var coded *failure
	var bad *config.Error
	switch {
	// The failure comes first: a verb that chose a code has a reason.
	case errors.As(err, &coded):
		return coded.code
	// sysexits.h calls it EX_CONFIG, and the other one EX_UNAVAILABLE.
	case errors.As(err, &bad), errors.Is(err, bus.ErrConfig):
		return exitConfig
	case errors.Is(err, bus.ErrUnreachable):
		return exitUnreachable
	}
	return exitFailed
}

// root builds all verbs. cobra parses the flags and prints nothing by itself, so that every text goes through the streams
// of app.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "gofer",
		Short: "Fetch jobs from NATS JetStream through rotating proxies",
		Long: `gofer takes fetch jobs from NATS JetStream, runs them through a rotating pool of
forward proxies, and publishes exactly one result a job.

Which server: --server URL, else --context NAME, else GOFER_NATS_URL, else the context that NATS_CONTEXT names. Contexts are
those of the nats command. With --server and --context, the credentials are those of the context.

The environment configures it: 'gofer config usage' lists the variables. 'gofer help job' lists
the fields of a job; a worker serves their JSON Schema under /api/v1/schemas/.
Exit codes: 0 ok, 1 failed, 2 usage, 3 some jobs failed, 69 NATS unreachable, 78 bad configuration,
130 interrupted (a worker: by a second signal).`,
		// Both are silenced: report is the one place that prints an error.
		SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.Version = buildVersion()
	root.SetVersionTemplate("gofer {{.Version}}\n")
	root.Args = args(cobra.NoArgs)
	root.SetIn(a.in)
	root.SetOut(a.out.writer())
	root.SetErr(a.err.writer())
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON")
	root.PersistentFlags().StringVar(&a.server, "server", "", "`URL` of NATS, instead of GOFER_NATS_URL")
	root.PersistentFlags().StringVar(&a.context, "context", "", "`NAME` of a context of the nats command, instead of all GOFER_NATS_… variables")
	// cobra runs it after parsing and before the verb, for every verb that has none of its own.
	root.PersistentPreRunE = checkFlagTexts
	root.SetHelpCommand(helpCommand())
	// cobra's own errors know nothing of exit code 2.
	root.SetFlagErrorFunc(flagError)
	// Last, because completion goes over all verbs.
	a.addVerbs(root)
	return root
}

// args turns cobra's refusal of arguments into a usage error. A verb that only groups other verbs takes the first
// argument for a misspelt verb, and suggests those that are spelt alike. check decides about the number only; what
// the arguments say is checked by the verb.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		err := check(cmd, args)
		switch {
		case err == nil:
			return nil
		// Groups take no arguments, so there is at least one here.
		case cmd.HasSubCommands():
			// Two edits find a missing or a swapped letter.
			cmd.SuggestionsMinimumDistance = 2
			text := fmt.Sprintf("%s has no verb %q", cmd.CommandPath(), args[0])
			// SuggestFor of a verb counts here as well: see suggest.
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				text += ", did you mean " + strings.Join(near, " or ") + "?"
			}
			return usage("%s", text)
		case len(args) == 0:
			return usage("too few arguments: %s", cmd.UseLine())
		}
		return usage("too many arguments: %s", cmd.UseLine())
	}
}
