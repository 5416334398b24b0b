// Command chaos kills things under load and counts what came of the jobs: it runs the built gofer and nats-server as
// processes of their own, breaks them as each scenario says, and prints one line a scenario. It exits with 1 when a job was lost
// or a result was seen twice.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func run(args []string, out, progress io.Writer) error {
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	jobs := flags.Int("jobs", 20_000, "jobs a scenario")
	seed := flags.Uint64("seed", 1, "of the choice of victims")
	only := flags.String("only", "", "comma list of the scenarios to run; empty means all")
	quick := flags.Bool("quick", false, "the short faults of the tests")
	keep := flags.String("logs", "", "folder that keeps the logs of all processes; empty means a temporary one, kept only after a failure")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := workDir(*keep)
	if err != nil {
		return err
	}
	tools, err := build(ctx, dir)
	if err != nil {
		return err
	}
	set := setting{tools: tools, dir: dir, jobs: *jobs, seed: *seed, pace: map[bool]pace{false: full(), true: short()}[*quick], progress: progress}
	outcomes, broken := playChosen(ctx, *only, set)
	fmt.Fprintln(out, render(outcomes))
	if broken != nil {
		return fmt.Errorf("%w (logs in %s)", broken, dir)
	}
	if *keep == "" {
		return os.RemoveAll(dir)
	}
	return nil
}

// playChosen plays the scenarios of a comma list, or all for an empty one. After an error it goes on, because the figures of the
// other scenarios are of use.
func playChosen(ctx context.Context, only string, set setting) (outcomes []outcome, broken error) {
	dir := set.dir
	for _, s := range scenarios() {
		if ctx.Err() != nil || only != "" && !strings.Contains(","+only+",", ","+s.name+",") {
			continue
		}
		fmt.Fprintf(set.progress, "%s …\n", s.name)
		set.dir = filepath.Join(dir, s.name)
		o, err := s.playFrom(ctx, set, dir)
		if errors.Is(err, errNoOldVersion) {
			fmt.Fprintf(set.progress, "  left out: %v\n", err)
			continue
		}
		if err != nil {
			broken = errors.Join(broken, fmt.Errorf("%s: %w", s.name, err))
			continue
		}
		if s.hostile {
			fmt.Fprintf(set.progress, "  %d jobs refused, %d were in a stream that was deleted\n", o.refused, o.given)
		}
		outcomes = append(outcomes, o)
		broken = errors.Join(broken, o.broken())
	}
	return outcomes, broken
}

// playFrom builds the versions that the scenario needs in dir, and plays it.
func (s scenario) playFrom(ctx context.Context, set setting, dir string) (o outcome, err error) {
	if set.tools, err = set.tools.versions(ctx, s, dir); err != nil {
		return o, err
	}
	return s.play(ctx, set)
}

func workDir(keep string) (string, error) {
	if keep == "" {
		return os.MkdirTemp("", "gofer-chaos-")
	}
	return filepath.Abs(keep)
}

// mebibytes is a size in words, or nothing for one that was not measured.
func mebibytes(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// render is the table of the README.
func render(outcomes []outcome) string {
	t := table.NewWriter()
	t.AppendHeader(table.Row{"scenario", "what was done", "jobs", "results", "lost", "second results seen", "fetched more than once", "longest recovery", "largest worker"})
	for _, o := range outcomes {
		t.AppendRow(table.Row{o.name, o.done, o.jobs, o.results, o.lost, o.seconds, o.refetched, o.recovery.Round(100 * time.Millisecond), mebibytes(o.largest)})
	}
	return t.RenderMarkdown()
}
