package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const (
	// healthTimeout bounds the request. The check of a container usually ends after 30 s, so the reason is still printed.
	healthTimeout = 5 * time.Second
	// healthBytes bounds what is read of the response: any server may have the port.
	healthBytes = 16 << 10
)

// healthCommand is a health check for containers without a shell or curl. It reads GOFER_HTTP_ADDR as the worker does.
func (a *app) healthCommand() *cobra.Command {
	ready := false
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask the worker on GOFER_HTTP_ADDR whether it lives",
		Long: `Asks /livez of the worker on GOFER_HTTP_ADDR, for the health check of a container that has no other program.
With --ready it asks /readyz: whether the worker takes jobs. Do not restart a worker for not being ready.
Exit code 0 if the answer is 200, else 1 with the reason.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.health(cmd.Context(), ready) },
	}
	cmd.Flags().BoolVar(&ready, "ready", false, "ask /readyz")
	return cmd
}

// health asks a worker on this machine whether it lives, or with ready whether it takes jobs. Errors: those of
// askHealth; a *config.Error.
func (a *app) health(ctx context.Context, ready bool) error {
	// Only the address is used. A wrong configuration is reported all the same: with it no worker would start here.
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	path, word := "/livez", "alive"
	if ready {
		path, word = "/readyz?verbose", "ready"
	}
	// The request goes to this machine: GOFER_HTTP_ADDR is an address to listen on.
	reason, err := askHealth(ctx, "http://"+ownAddr(c.HTTPAddr)+path)
	// A program gets the object and the exit code. errors.Join keeps the worker's error even if the object cannot be printed.
	if a.json {
		return errors.Join(err, a.printJSON(map[string]any{"ok": err == nil, "reason": reason}))
	}
	if err != nil {
		return err
	}
	return a.out.line("%s", word)
}

// askHealth returns what the worker says. err is not nil if no worker answers or the status is not 200. It follows no
// redirect and uses no proxy of the environment, so that only the worker itself can answer.
func askHealth(ctx context.Context, url string) (reason string, err error) {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	// A transport of its own: the default one would ask a proxy that HTTP_PROXY names. No connection is kept, because the process
	// ends after one request.
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("no worker answers: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	// The bound keeps a wrong server at the address from filling the memory.
	body, err := io.ReadAll(io.LimitReader(resp.Body, healthBytes))
	reason = cmp.Or(strings.TrimSpace(string(body)), resp.Status)
	switch {
	// The status decides. An error of reading matters only if the status was good.
	case resp.StatusCode != http.StatusOK:
		return reason, fmt.Errorf("GET %s is answered with %s: %s", url, resp.Status, failedChecks(reason))
	case err != nil:
		return reason, fmt.Errorf("read the answer of %s: %w", url, err)
	}
	return reason, nil
}

// failedChecks returns the failed checks of /readyz?verbose, joined; or the whole text if it lists none.
func failedChecks(text string) string {
	var failed []string
	for line := range strings.Lines(text) {
		// The worker marks failed checks by [-] and good ones by [+].
		if check, ok := strings.CutPrefix(strings.TrimSpace(line), "[-] "); ok {
			failed = append(failed, check)
		}
	}
	return cmp.Or(strings.Join(failed, "; "), text)
}

// ownAddr returns the address at which a program of the same machine reaches a listener on addr: loopback in place of an
// unspecified address, and addr otherwise.
func ownAddr(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr // the request then fails with the reason
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case host == "", err == nil && ip == netip.IPv4Unspecified():
		// The unspecified address is no destination: Linux takes it for loopback, other systems refuse it.
		host = "127.0.0.1"
	case err == nil && ip.IsUnspecified():
		host = "::1"
	}
	return net.JoinHostPort(host, port)
}
