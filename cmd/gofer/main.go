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
	"github.com/gofer-mq/gofer/jobs/text"
	"github.com/gofer-mq/gofer/worker/config"
)

// The exit codes. Scripts depend on these numbers, so none of them ever changes its meaning. 69 and 78 are those of sysexits.h.
const (
	exitOK     = 0
	exitFailed = 1
	// exitUsage: the command line is wrong. Nothing was done, and the same call fails again.
	exitUsage = 2
	// exitSomeFailed: the verb did what it was asked for, and some of the jobs or proxies failed.
	exitSomeFailed = 3
	// exitUnreachable is EX_UNAVAILABLE: NATS cannot be reached. The same call may succeed later.
	exitUnreachable = 69
	// exitConfig is EX_CONFIG: the configuration is wrong. A supervisor that starts a worker again only repeats the error.
	exitConfig = 78
	// exitSignalled is 128 and the number of SIGINT, which shells use for a process that SIGINT has ended.
	exitSignalled = 130
)

// main ends the process with the exit code of the verb. A signal is handled by run. It ends the process by os.Exit only if a verb
// does not end by itself.
func main() {
	// The program itself does not use package log. net/http does, to print unescaped what a target sends out of turn.
	log.SetOutput(io.Discard)
	os.Exit(newApp(os.Stdout, os.Stderr, os.Exit).run(context.Background(), os.Args[1:], os.Stdin))
}

// run is the program for tests, with the operating system as its arguments: nothing ends the process.
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

// run runs one verb, until ctx ends or a signal comes, and returns the exit code. It may be called once.
func (a *app) run(ctx context.Context, args []string, in io.Reader) int {
	ctx, stop := a.interrupts.watch(ctx)
	defer stop()
	// Questions are asked only if a person can see them and answer: both streams are terminals.
	a.in, a.interactive = interruptible(ctx, in), isTerminal(in) && a.err.isTerminal()
	if isTerminal(in) {
		a.keyboard, _ = in.(*os.File)
	}
	root := a.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	// An error after a signal mostly follows from it, such as a call that ctx has ended. A verb without an error has finished.
	if ctx.Err() != nil && err != nil {
		err = asInterruption(err)
	}
	// Some verbs ignore the errors of their prints. A verb whose output was lost has failed nevertheless, so that a script notices a
	// full disk.
	if writeErr := a.out.failed(); writeErr != nil && !errors.Is(err, writeErr) {
		err = &failure{code: exitFailed, err: errors.Join(err, writeErr)}
	}
	// cmd is the verb that cobra has found, or gofer itself if the first argument is no verb.
	return a.report(cmd.CommandPath(), err)
}

// app is what every verb gets: the three streams and the flags of all verbs. Its fields are set before the verb runs.
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

// failure is an error with its own exit code, for exitCode.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// usage returns the error of a mistake in what the user wrote: exit code 2, and a hint at --help.
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

// report prints the error of a verb and returns the exit code. No other place prints errors.
func (a *app) report(verb string, err error) int {
	if err == nil {
		return exitOK
	}
	if errors.Is(err, syscall.EPIPE) {
		return exitFailed // without a message: the reader of a pipe, such as head, has ended on purpose
	}
	code := exitCode(err)
	// An error may repeat an argument, such as the URL of a proxy with its password. Here all errors pass, so no verb can forget it.
	for _, line := range config.Lines(err) {
		a.note("%s", text.HideUserInfo(line))
	}
	if code == exitUsage {
		_ = a.err.line("Try '%s --help'.", verb)
	}
	return code
}

// exitCode is the exit code of an error that is not nil.
func exitCode(err error) int {
	var coded *failure
	var bad *config.Error
	switch {
	// The failure comes first: a verb that chose a code knows more than the kinds of errors below.
	case errors.As(err, &coded):
		return coded.code
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
	// One word for one thing: cobra says "command".
	root.SetUsageTemplate(strings.NewReplacer("Available Commands", "Verbs", "[command]", "VERB", "about a command", "about a verb").Replace(root.UsageTemplate()))
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
	// The verbs come last, because completion goes over all verbs and needs the flags above.
	a.addVerbs(root)
	return root
}

// args turns the refusal of a number of arguments into a usage error. For a group, the first argument is a misspelt verb.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		err := check(cmd, args)
		switch {
		case err == nil:
			return nil
		case cmd.HasSubCommands(): // a group takes no arguments, so there is one
			return unknownVerb(cmd, args[0])
		case len(args) == 0:
			return usage("too few arguments: %s", cmd.UseLine())
		}
		return usage("too many arguments: %s", cmd.UseLine())
	}
}

// unknownVerb refuses a word that is no verb of group, and suggests those that are spelt alike.
func unknownVerb(group *cobra.Command, word string) error {
	group.SuggestionsMinimumDistance = 2 // edits, such as a missing letter
	if len(word) <= 2 {
		group.SuggestionsMinimumDistance = 1 // two edits turn rm into ls
	}
	refusal := fmt.Sprintf("%s has no verb %q", group.CommandPath(), word)
	near := meantBy(group, word)
	if near == nil {
		near = group.SuggestionsFor(word)
	}
	if len(near) > 0 {
		refusal += ", did you mean " + strings.Join(near, " or ") + "?"
	}
	return usage("%s", refusal)
}
