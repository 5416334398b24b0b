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

	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// maxImport bounds the bytes of a list, so that a wrong file does not fill the memory.
const maxImport = 64 << 20

// importFlags are the flags of gofer proxies import. onlyOK is --check; checkFlags count only with it.
type importFlags struct {
	checkFlags

	scheme string
	onlyOK bool
}

// proxiesImportCommand reads the formats in which sellers deliver lists. Flags of a check are refused without --check,
// where they would be ignored.
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
	flags.StringVar(&f.scheme, "scheme", "http", "scheme of lines without one: http, https, socks5 or socks5h")
	flags.BoolVar(&f.onlyOK, "check", false, "add only the proxies that work")
	f.add(flags)
	return cmd
}

// proxiesImport adds the lines that can be read, and counts the others. The error has exit code 3 if some were added and
// some were not. Nothing is added if the check is interrupted, because a part of a list would look like all of it.
func (a *app) proxiesImport(ctx context.Context, f importFlags, file string) error {
	if !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, f.scheme) {
		return usage("--scheme: none of http, https, socks5, socks5h")
	}
	if err := f.check(); err != nil {
		return err
	}
	list, refused, err := a.soldProxies(file, f.scheme)
	if err != nil {
		return err
	}
	failed := 0
	// The check costs time and traffic, so it comes after the flags and the list were found good.
	if f.onlyOK && len(list) > 0 {
		all := len(list)
		if list, err = a.working(ctx, f.checkFlags, list); err != nil {
			return err
		}
		failed = all - len(list)
	}
	if len(list) > 0 {
		// A check has printed a line for each proxy already.
		if err := a.addAll(ctx, list, !f.onlyOK); err != nil {
			return err
		}
	}
	// Exit code 1 if nothing was added, 3 if only some were.
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

// soldProxies reads a seller's list, and notes each line that is refused by its number. The line itself is not printed:
// it may hold a password.
func (a *app) soldProxies(file, scheme string) (list []proxylist.Proxy, refused int, err error) {
	in, name := a.in, "standard input"
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, 0, usage("proxies import: %w", err)
		}
		defer func() { _ = f.Close() }()
		// The name stands before each error, so that the user knows which list is meant.
		in, name = f, file
	}
	// One byte more than allowed shows that the list is larger.
	bounded := &io.LimitedReader{R: in, N: maxImport + 1}
	lines, err := proxylist.ParseSold(bounded, scheme)
	switch {
	case err != nil:
		return nil, 0, usage("%s: %w", name, err)
	case bounded.N == 0:
		return nil, 0, usage("%s has more than %d bytes", name, maxImport)
	}
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

// working fetches a page through each proxy, prints what became of it, and returns those that work, in the order of the
// list. A proxy that fails is no error. The result uses the memory of list.
func (a *app) working(ctx context.Context, f checkFlags, list []proxylist.Proxy) (ok []proxylist.Proxy, err error) {
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
	k.ended = func(r checked) { works[r.ID] = r.OK }
	// Exit code 3 says that some proxies failed, which is what the check is for.
	var some *failure
	if err := k.run(ctx, f.parallel); err != nil && !errors.As(err, &some) {
		return nil, err
	}
	return slices.DeleteFunc(list, func(p proxylist.Proxy) bool { return !works[p.ID] }), nil
}

// addAll stores the proxies in the fleet's bucket, up to 32 at a time. It prints the id of each that is stored if
// printIDs is set. The first error ends it; what was stored by then stays.
func (a *app) addAll(ctx context.Context, list []proxylist.Proxy, printIDs bool) error {
	s, err := a.connect(ctx, "proxies import")
	if err != nil {
		return err
	}
	defer s.close()
	kv, err := s.bucket(ctx, "proxies")
	if err != nil {
		return err
	}
	// printing keeps the lines of two proxies apart.
	var printing sync.Mutex
	// The first error ends ctx, and with it the calls that are under way.
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(32)
	for _, p := range list {
		group.Go(func() error {
			if err := a.addOne(ctx, kv, p); err != nil || !printIDs {
				return err
			}
			printing.Lock()
			defer printing.Unlock()
			return a.say(map[string]any{"id": p.ID, "added": true}, "%s", p.ID)
		})
	}
	return group.Wait()
}

// addOne stores one proxy under its id. It replaces an entry of that id.
func (a *app) addOne(ctx context.Context, kv jetstream.KeyValue, p proxylist.Proxy) error {
	if _, err := kv.PutString(ctx, p.ID, p.Line()); err != nil {
		return fmt.Errorf("add proxy %s: %w", p.ID, err)
	}
	return nil
}
