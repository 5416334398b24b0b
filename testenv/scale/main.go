// Command scale measures how gofer grows on this machine: worker processes on one server and on three, the control traffic of a
// large fleet, and what a million waiting jobs and kept results cost. Everything shares the processors of one machine, so
// each line says how busy they were.
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
	"strconv"
	"strings"
	"syscall"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/gofer-mq/gofer/testenv/servers"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

// bench is what all parts share.
type bench struct {
	servers.Programs
	dir      string
	quick    bool
	progress io.Writer
}

func run(args []string, out, progress io.Writer) error {
	flags := flag.NewFlagSet("scale", flag.ContinueOnError)
	only := flags.String("only", "workers,fleet,stored", "comma list of the parts to run")
	nodes := flags.String("nodes", "1,3", "servers of the part workers")
	slots := flags.String("slots", "16,64", "slots of each worker")
	workers := flags.String("workers", "1,2,4,8", "worker processes")
	fleets := flags.String("fleets", "100,300,1000", "workers in one process of the part fleet")
	stored := flags.Int("stored", 1_000_000, "waiting jobs, and kept results, of the part stored")
	built := flags.String("built", "", "folder that has gofer and nats-server; empty means to build them")
	quick := flags.Bool("quick", false, "a tenth of the time, for a test: the figures are worth nothing")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "gofer-scale-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	b := &bench{dir: dir, quick: *quick, progress: progress}
	if *built != "" {
		b.Programs = servers.Programs{Gofer: filepath.Join(*built, "gofer"), Server: filepath.Join(*built, "nats-server")}
	} else if b.Programs, err = servers.Build(ctx, dir); err != nil {
		return err
	}
	parts := map[string]func() (table.Writer, error){
		"workers": func() (table.Writer, error) {
			return b.workers(ctx, numbers(*nodes), numbers(*slots), numbers(*workers))
		},
		"fleet":  func() (table.Writer, error) { return b.fleets(ctx, numbers(*fleets)) },
		"stored": func() (table.Writer, error) { return b.stored(ctx, *stored) },
	}
	var failed error
	for name := range strings.SplitSeq(*only, ",") {
		part, known := parts[name]
		if !known {
			return fmt.Errorf("there is no part %q", name)
		}
		t, err := part() // the lines before an error are of use
		fmt.Fprintf(out, "%s, load average %s\n\n%s\n\n", name, loadAverage(), t.RenderMarkdown())
		failed = errors.Join(failed, err)
	}
	return failed
}

// numbers reads a comma list. What is no number counts as none.
func numbers(list string) (out []int) {
	for word := range strings.SplitSeq(list, ",") {
		if n, err := strconv.Atoi(word); err == nil && n > 0 {
			out = append(out, n)
		}
	}
	return out
}
