package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/fleet"
)

// denyCommand is the group of verbs about the deny list. The list is the key-value bucket "deny", which every worker
// follows. A change reaches jobs that run as well: the next redirect or attempt is refused.
func (a *app) denyCommand() *cobra.Command {
	cmd := verbGroup("deny", "Stop all fetches from a host, for the whole fleet",
		&cobra.Command{Use: "ls", Short: "List the denied hosts", Args: args(cobra.NoArgs), RunE: a.verb("deny ls", a.denyLs)},
		&cobra.Command{Use: "add HOST…|-", Short: "Deny hosts; every running worker knows within a second", Args: args(cobra.MinimumNArgs(1)), RunE: a.verb("deny add", a.denyAdd)},
		&cobra.Command{Use: "rm HOST…|-", Short: "Allow denied hosts again", Args: args(cobra.MinimumNArgs(1)), RunE: a.verb("deny rm", a.denyRm)},
	)
	cmd.Long = `Stops fetches from hosts, redirects to them included. A host is a name or an address, in any spelling; subdomains are
hosts of their own, and there are no patterns. If one of the arguments is no host, nothing is changed. With "-" add and rm read
the hosts from standard input, one a line; empty lines and lines that begin with # are skipped.`
	return cmd
}

// denyLs prints the denied hosts in alphabetical order. An empty list is no error.
func (a *app) denyLs(ctx context.Context, s *session, _ []string) error {
	kv, err := s.bucket(ctx, "deny")
	if err != nil {
		return err
	}
	// A bucket without keys is an error of the library, and an empty list here.
	keys, err := kv.Keys(ctx)
	if err != nil && !errors.Is(err, jetstream.ErrNoKeysFound) {
		return s.bus.Explain("list denied hosts", err)
	}
	hosts := make([]string, len(keys))
	for i, k := range keys {
		// Keys of a bucket allow fewer letters than host names, so they are encoded; DenyHost undoes that.
		hosts[i] = fleet.DenyHost(k)
	}
	slices.Sort(hosts)
	if a.json {
		return a.printJSON(hosts)
	}
	if len(hosts) == 0 {
		return a.err.line("No denied hosts.")
	}
	for _, h := range hosts {
		if err := a.out.line("%s", h); err != nil {
			return err
		}
	}
	return nil
}

// denyAdd denies hosts. A host that is denied already stays denied.
func (a *app) denyAdd(ctx context.Context, s *session, hosts []string) error {
	return a.denyEach(ctx, s, hosts, true)
}

// denyRm allows hosts again. A host that is not denied is an error, because it is probably misspelt.
func (a *app) denyRm(ctx context.Context, s *session, hosts []string) error {
	return a.denyEach(ctx, s, hosts, false)
}

// denyEach denies the hosts or allows them again, one after the other, so that the output shows how far it came. It checks all
// names before the first change.
func (a *app) denyEach(ctx context.Context, s *session, hosts []string, deny bool) error {
	// Half of a list would look like all of it, so one misspelt host stops the call before the first change.
	hosts, err := a.hostsToDeny(hosts)
	if err != nil {
		return asUsage(err)
	}
	kv, err := s.bucket(ctx, "deny")
	if err != nil {
		return err
	}
	for _, h := range hosts {
		if err := denyOne(ctx, kv, h, deny); err != nil {
			return fmt.Errorf("host %s: %w", h, err)
		}
		// The host is printed as it is stored, which may differ from what was written.
		if err := a.printDone(map[string]any{"host": h, "denied": deny}, "%s", h); err != nil {
			return err
		}
	}
	return nil
}

// hostsToDeny returns the hosts that the arguments name, or the lines of standard input if the argument is "-". They are
// in the spelling that workers look for. An error names the line.
func (a *app) hostsToDeny(args []string) (hosts []string, err error) {
	if len(args) == 1 && args[0] == "-" {
		err := eachLine(a.in, func(number int, line []byte) error {
			host, ok := deniedHost(string(line))
			if !ok {
				return fmt.Errorf("standard input: line %d: %q is not a host name or an address", number, line)
			}
			hosts = append(hosts, host)
			return nil
		})
		return hosts, err
	}
	for _, arg := range args {
		host, ok := deniedHost(arg)
		if !ok {
			err := fmt.Errorf("%q is not a host name or an address", arg)
			// People paste URLs. The host is only suggested, because they may mean one page and not the whole host.
			if u, parseErr := url.Parse(arg); parseErr == nil && u.Hostname() != "" {
				err = fmt.Errorf("%w, did you mean %s?", err, u.Hostname())
			}
			return nil, err
		}
		hosts = append(hosts, host)
	}
	return hosts, nil
}

// denyOne denies a host or allows it again. A host is denied if the bucket has its key. The value has no meaning, but a key needs
// one.
func denyOne(ctx context.Context, kv jetstream.KeyValue, host string, deny bool) error {
	key := fleet.DenyKey(host)
	if deny {
		_, err := kv.PutString(ctx, key, "denied")
		return err
	}
	// Get and Delete are two steps. Another user may delete the key between them, which has the same result.
	if _, err := kv.Get(ctx, key); errors.Is(err, jetstream.ErrKeyNotFound) {
		return errors.New("it is not denied")
	} else if err != nil {
		return err
	}
	return kv.Delete(ctx, key)
}

// deniedHost returns a host in the spelling that workers look for. ok is false if the text is neither a host name nor an
// address.
func deniedHost(text string) (host string, ok bool) {
	host, err := jobs.CanonicalHost(text)
	return host, err == nil
}
