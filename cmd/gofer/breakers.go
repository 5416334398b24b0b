package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/admin"
	"github.com/gofer-mq/gofer/worker/control"
)

// breakersCommand is the group of verbs about circuit breakers.
func (a *app) breakersCommand() *cobra.Command {
	return verbGroup("breakers", "List and reset the circuit breakers of the fleet",
		&cobra.Command{
			Use: "ls", Short: "List each proxy's breaker, and in how many workers it is in which state",
			Long: `Lists each proxy's breaker, and in how many workers it is in which state. Avoided says for how long a proxy
that one worker found dead is the last resort of others.`,
			Args: args(cobra.NoArgs),
			RunE: a.verb("breakers ls", a.breakersLs),
		},
		a.breakersResetCommand(),
	)
}

// breakersResetCommand takes exactly one of a proxy's id and --all: a call without either must not reset everything.
func (a *app) breakersResetCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "reset [PROXY]", Short: "Close the breaker of a proxy, or with --all of every proxy, in every worker",
		Args: args(cobra.MaximumNArgs(1)),
	}
	cmd.Flags().BoolVar(&all, "all", false, "close the breaker of every proxy")
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		if all == (len(ids) == 1) { // both, or neither
			return usage("breakers reset: name one PROXY, or --all")
		}
		return a.verb("breakers reset", a.breakersReset)(cmd, ids)
	}
	return cmd
}

// workerBreakers is one worker's answer to control.Breakers. Total also counts the breakers for which the answer has no room.
type workerBreakers struct {
	Worker   string          `json:"worker"`
	Total    int             `json:"total"`
	Breakers []admin.Breaker `json:"circuit_breakers"`
}

// breakersLs prints a row for each proxy, summed over the workers, or with --json the answer of each worker. A worker
// that does not answer in time is left out.
func (a *app) breakersLs(ctx context.Context, s *session, _ []string) error {
	list, err := askBreakers(ctx, s, control.BreakersRequest{})
	if err != nil {
		return err
	}
	for _, w := range list {
		if w.Total > len(w.Breakers) {
			a.note("worker %s has %d breakers and lists %d of them, those that are not closed first", w.Worker, w.Total, len(w.Breakers))
		}
	}
	// Programs get the answers of the workers as they are, and may add them up in another way.
	if a.json {
		return a.printJSON(list)
	}
	merged, _ := mergeBreakers(list)
	header, rows := breakerTable(merged)
	return a.list(header, rows, "No proxies.")
}

// askBreakers asks each worker for its breakers. The answers are sorted by worker.
func askBreakers(ctx context.Context, s *session, request control.BreakersRequest) ([]workerBreakers, error) {
	list, err := askFleet[workerBreakers](ctx, s, control.Breakers, request, 0)
	slices.SortFunc(list, func(a, b workerBreakers) int { return cmp.Compare(a.Worker, b.Worker) })
	return list, err
}

// mergeBreakers puts the answers of the workers together: each proxy has one entry. The entries are sorted by id. known is the
// largest number of proxies that one worker has.
func mergeBreakers(list []workerBreakers) (merged []*fleetBreaker, known int) {
	fleet := map[string]*fleetBreaker{}
	for _, w := range list {
		known = max(known, w.Total)
		for _, b := range w.Breakers {
			// FailureCount begins below zero, so that the first worker sets the threshold even without failures.
			if fleet[b.ProxyID] == nil {
				fleet[b.ProxyID] = &fleetBreaker{ProxyID: b.ProxyID, Workers: map[string]int{}, FailureCount: -1}
			}
			fleet[b.ProxyID].add(b)
		}
	}
	merged = slices.SortedFunc(maps.Values(fleet), func(a, b *fleetBreaker) int { return cmp.Compare(a.ProxyID, b.ProxyID) })
	return append([]*fleetBreaker{}, merged...), known // JSON has [] for none
}

// worstFirst sorts those proxies in front that most workers cannot use. Equal ones keep their order, so that the rows of a screen
// do not jump.
func worstFirst(list []*fleetBreaker) {
	// A worker that cannot use the proxy weighs more than one that avoids it: an avoided proxy is still used as a
	// last resort.
	trouble := func(f *fleetBreaker) int {
		avoided := 0
		if f.AvoidedUntil != nil {
			avoided = 1
		}
		return 2*(f.Workers["open"]+f.Workers["half_open"]) + avoided
	}
	slices.SortStableFunc(list, func(a, b *fleetBreaker) int { return cmp.Or(trouble(b)-trouble(a), b.FailureCount-a.FailureCount) })
}

// breakerTable makes a row for each proxy.
func breakerTable(list []*fleetBreaker) (header table.Row, rows []table.Row) {
	for _, f := range list {
		rows = append(rows, table.Row{
			f.ProxyID, f.Workers["closed"], f.Workers["open"], f.Workers["half_open"], f.failures(), nextTest(f.NextTestTime), f.avoided(),
		})
	}
	return table.Row{"proxy", "closed", "open", "half open", "failures", "next test", "avoided"}, rows
}

// fleetBreaker is what the workers report of one proxy: the number of workers by the state of its breaker, the failures in the
// worker with the most, the earliest test that any of them has planned (nil if none has), and the latest time until which one
// avoids it.
type fleetBreaker struct {
	ProxyID string         `json:"proxy_id"`
	Workers map[string]int `json:"workers"`
	// FailureCount is how many failures count for the breaker now, and FailureThreshold how many open it there.
	FailureCount     int        `json:"failure_count"`
	FailureThreshold int        `json:"failure_threshold"`
	NextTestTime     *time.Time `json:"next_test_time"`
	// AvoidedUntil is nil if no worker avoids the proxy. AvoidedBy is the worker that found it dead.
	AvoidedUntil *time.Time `json:"avoided_until,omitempty"`
	AvoidedBy    string     `json:"avoided_by,omitempty"`
}

// add adds the breaker of one more worker. The order of the workers has no influence, except for which of two
// workers with equal values is named.
func (f *fleetBreaker) add(b admin.Breaker) {
	f.Workers[b.State]++
	if b.FailureCount > f.FailureCount {
		f.FailureCount, f.FailureThreshold = b.FailureCount, b.FailureThreshold
	}
	// The earliest test is shown: after it the proxy may be used again in some worker.
	if b.NextTestTime != nil && (f.NextTestTime == nil || b.NextTestTime.Before(*f.NextTestTime)) {
		f.NextTestTime = b.NextTestTime
	}
	// The latest end is shown: until then some worker uses the proxy only as a last resort.
	if b.AvoidedUntil != nil && (f.AvoidedUntil == nil || f.AvoidedUntil.Before(*b.AvoidedUntil)) {
		f.AvoidedUntil, f.AvoidedBy = b.AvoidedUntil, b.AvoidedBy
	}
}

// failures shows the worker that is closest to opening its breaker: its failures, and how many of them open it.
func (f *fleetBreaker) failures() string {
	return fmt.Sprintf("%d of %d", f.FailureCount, f.FailureThreshold)
}

// avoided says for how long some workers use the proxy only as a last resort.
func (f *fleetBreaker) avoided() string {
	if f.AvoidedUntil == nil {
		return ""
	}
	return fmt.Sprintf("for %s (found dead by %s)", max(0, time.Until(*f.AvoidedUntil)).Round(time.Second), f.AvoidedBy)
}

// breakersReset closes one breaker or all of them, in every worker that answers, and prints how many these are. It fails if no
// worker has the proxy.
func (a *app) breakersReset(ctx context.Context, s *session, args []string) error {
	var request control.ResetRequest
	what := "every proxy"
	if len(args) == 1 {
		// The id is checked here, because a worker ignores a request that it cannot read.
		if !jobs.ValidProxyID(args[0]) {
			return usage("%q is not the id of a proxy", args[0])
		}
		request.ProxyID, what = args[0], "proxy "+args[0]
	}
	list, _, err := askAll[control.ResetResponse](ctx, a, s, control.ResetBreakers, request)
	if err != nil {
		return err
	}
	workers := 0
	for _, answer := range list {
		// A worker that does not have the proxy answers as well, with zero.
		if answer.Proxies > 0 {
			workers++
		}
	}
	// With --all, a fleet without proxies is fine.
	if workers == 0 && request.ProxyID != "" {
		return fmt.Errorf("no worker has a proxy %s; see gofer breakers ls", request.ProxyID)
	}
	slices.SortFunc(list, func(a, b control.ResetResponse) int { return cmp.Compare(a.Worker, b.Worker) })
	return a.printDone(map[string]any{"proxy_id": request.ProxyID, "workers": list}, "The breaker of %s is closed in %d of %d workers.", what, workers, len(list))
}
