package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// maxImport bounds the bytes of a list, so that a wrong file does not fill the memory.
const maxImport = 64 << 20

// importFlags are the flags of gofer proxies import.
type importFlags struct {
	checkFlags // count only with onlyOK

	scheme string
	onlyOK bool // --check
}

// proxiesImportCommand adds the proxies of a list as sellers deliver them. It refuses the flags of a check without --check.
func (a *app) proxiesImportCommand() *cobra.Command {
	var f importFlags
	cmd := &cobra.Command{
		Use:   "import FILE|-",
		Short: "Add the proxies of a seller's list to the fleet's bucket",
		Long: `Adds the proxies of a file, or of standard input ("-"), to the fleet's bucket; every running worker has them within a second.
A line is a proxy as in a proxies file, or one of these:

  host:port
  host:port:user:password
  user:password@host:port

Options such as region=eu may follow. A proxy with the same id is replaced. A line that cannot be read is named by its number, and
the others are added. Exit code 3 says that some were not added.

With --check only the proxies that work are added: gofer fetches a page through each of them first, as 'gofer proxies check' does.`,
		Example: `  gofer proxies import bought.txt
  gofer proxies import --scheme socks5 --check --target http://example.com/ bought.txt`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, files []string) error {
			// The list names every flag that checkFlags.add adds.
			for _, name := range []string{"target", "timeout", "parallel", "region"} {
				if cmd.Flags().Changed(name) && !f.onlyOK {
					return usage("--%s needs --check", name)
				}
			}
			return a.proxiesImport(cmd.Context(), f, files[0])
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.scheme, "scheme", "http", "`SCHEME` of lines without one: http, https, socks5 or socks5h")
	flags.BoolVar(&f.onlyOK, "check", false, "add only the proxies that work")
	f.add(flags)
	return cmd
}

// proxiesImport adds the lines that can be read, and counts the others. The error has exit code 3 if some were added and
// some were not, and 1 if none was. An interrupted check adds nothing, because a part of a list would look like all of it.
func (a *app) proxiesImport(ctx context.Context, f importFlags, file string) error {
	if !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, f.scheme) {
		return usage("--scheme: none of http, https, socks5, socks5h")
	}
	if err := f.check(); err != nil {
		return err
	}
	list, refused, err := a.readSellersList(ctx, file, f.scheme)
	if err != nil {
		return err
	}
	failed := 0
	// The check costs time and traffic, so it comes after the flags and the list have been read without an error.
	if f.onlyOK && len(list) > 0 {
		// onlyWorking reuses the memory of list, so its length is kept.
		all := len(list)
		if list, err = a.onlyWorking(ctx, f.checkFlags, list); err != nil {
			return err
		}
		failed = all - len(list)
	}
	if len(list) > 0 {
		// With --check, a line for each proxy has been printed already, so the ids would be printed twice.
		added, err := a.addAll(ctx, list, !f.onlyOK)
		if added > 0 && errors.Is(err, bus.ErrBucketFull) {
			return &failure{code: exitSomeFailed, err: fmt.Errorf("added: %d, not added: %d: %w", added, len(list)-added, err)}
		}
		if err != nil {
			return err
		}
	}
	switch text := fmt.Sprintf("added: %d, refused: %d, not working: %d", len(list), refused, failed); {
	case len(list) == 0:
		return errors.New(text)
	case refused+failed > 0:
		return &failure{code: exitSomeFailed, err: errors.New(text)}
	default:
		a.note("%s", text)
	}
	return nil
}

// openList opens a list of proxies; "-" is standard input. name is for the errors of its lines. A read fails beyond
// maxImport, and when ctx ends, because the file may be a pipe. The caller calls done. The error is a usage error.
func (a *app) openList(ctx context.Context, verb, file string) (name string, list io.Reader, done func(), err error) {
	if file == "-" {
		return "standard input", &boundedReader{io.LimitedReader{R: a.in, N: maxImport + 1}}, func() {}, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return "", nil, nil, usage("%s: %w", verb, err)
	}
	return file, &boundedReader{io.LimitedReader{R: interruptible(ctx, f), N: maxImport + 1}}, func() { _ = f.Close() }, nil
}

// boundedReader reads at most maxImport bytes. One byte more is an error, and not the end as in a LimitedReader.
type boundedReader struct{ io.LimitedReader }

// Read reads up to the bound. Beyond it Read fails: a list that was cut without a word would look complete.
func (b *boundedReader) Read(p []byte) (int, error) {
	n, err := b.LimitedReader.Read(p)
	if b.N <= 0 {
		return 0, fmt.Errorf("more than %d bytes", maxImport)
	}
	return n, err
}

// readSellersList reads a seller's list, and notes the number of each line that is refused. It does not print the line, which may
// hold a password: a terminal or the log of a pipeline may keep what is printed.
func (a *app) readSellersList(ctx context.Context, file, scheme string) (list []proxylist.Proxy, refused int, err error) {
	name, in, done, err := a.openList(ctx, "proxies import", file)
	if err != nil {
		return nil, 0, err
	}
	defer done()
	lines, err := proxylist.ParseSold(in, scheme)
	if err != nil {
		return nil, 0, usage("%s: %w", name, err)
	}
	// A list of thousands often has a broken line, so the good ones are kept.
	for _, line := range lines {
		if line.Err != nil {
			refused++
			a.note("line %d: %v", line.Number, line.Err)
			continue
		}
		list = append(list, line.Proxy)
	}
	return list, refused, nil
}

// onlyWorking fetches a page through each proxy, prints what became of it, and returns the proxies that work, in the order
// of the list. The result uses the memory of list.
func (a *app) onlyWorking(ctx context.Context, f checkFlags, list []proxylist.Proxy) (ok []proxylist.Proxy, err error) {
	c, err := a.loadConfig()
	if err != nil {
		return nil, err
	}
	k, err := a.newCheck(ctx, &c, f.withTarget(&c), list)
	if err != nil {
		return nil, err
	}
	defer k.fetcher.Close()
	// ended is called by one goroutine at a time, so the map needs no lock.
	works := map[string]bool{}
	k.ended = func(r checkResult) { works[r.ID] = r.OK }
	// That some proxies failed is no error here: the check is there to find them.
	var someFailed *failure
	if err := k.run(ctx, f.parallel); err != nil && !errors.As(err, &someFailed) {
		return nil, err
	}
	return slices.DeleteFunc(list, func(p proxylist.Proxy) bool { return !works[p.ID] }), nil
}

// addAll stores the proxies in the fleet's bucket, up to 32 at a time. It prints the id of each that is stored if
// printIDs is set. The first error ends it; what was stored by then stays, and added counts it.
func (a *app) addAll(ctx context.Context, list []proxylist.Proxy, printIDs bool) (added int, err error) {
	s, err := a.connect(ctx, "proxies import")
	if err != nil {
		return 0, err
	}
	defer s.close()
	kv, err := s.bucket(ctx, "proxies")
	if err != nil {
		return 0, err
	}
	// printing keeps the lines of two proxies apart, and guards added.
	var printing sync.Mutex
	// A put waits for the server, so many are under way at once. The first error ends ctx, and with it the calls that are under
	// way.
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(32)
	for _, p := range list {
		group.Go(func() error {
			if err := addProxy(ctx, kv, p); err != nil {
				return err
			}
			printing.Lock()
			defer printing.Unlock()
			added++
			if !printIDs {
				return nil
			}
			return a.printDone(map[string]any{"id": p.ID, "added": true}, "%s", p.ID)
		})
	}
	err = group.Wait()
	return added, err
}

// addProxy stores a proxy under its id, and replaces an entry of that id. Workers watch the bucket, so they have the proxy within
// a second.
func addProxy(ctx context.Context, kv jetstream.KeyValue, p proxylist.Proxy) error {
	if _, err := kv.PutString(ctx, p.ID, p.Line()); err != nil {
		return fmt.Errorf("add proxy %s: %w", p.ID, err)
	}
	return nil
}
