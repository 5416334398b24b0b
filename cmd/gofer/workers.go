package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/worker/control"
)

// workersCommand lists the workers that answer in time, and notes those that run and do not answer.
func (a *app) workersCommand() *cobra.Command {
	return &cobra.Command{
		Use: "workers", Short: "List the workers that run and how they stand", Args: args(cobra.NoArgs),
		RunE: a.verb("workers", func(ctx context.Context, s *session, _ []string) error {
			list, _, err := askAll[control.Status](ctx, a, s, control.Workers, control.WorkersRequest{})
			if err != nil {
				return err
			}
			sortWorkers(list)
			if a.json {
				return a.printJSON(list)
			}
			var rows []table.Row
			for _, w := range list {
				rows = append(rows, table.Row{
					w.Worker, w.Version, time.Since(w.StartedAt).Round(time.Second), fmt.Sprintf("%d/%d", w.Running(), w.Slots),
					queueWeights(w.Queues), countsText(w.Proxies), stateOf(w),
				})
			}
			return a.out.table(table.Row{"worker", "version", "up", "jobs", "queues", "proxies", "state"}, rows)
		}),
	}
}

// askWorkers asks each worker for its state. The answers are sorted by name. The error is a control.ErrNoWorkers if none
// answers in time.
func askWorkers(ctx context.Context, s *session, request control.WorkersRequest) ([]control.Status, error) {
	list, err := askFleet[control.Status](ctx, s, control.Workers, request, 0)
	sortWorkers(list)
	return list, err
}

// sortWorkers sorts by name. Answers come in any order, and a table whose rows jump between two calls is hard to read.
func sortWorkers(list []control.Status) {
	slices.SortFunc(list, func(a, b control.Status) int { return cmp.Compare(a.Worker, b.Worker) })
}

// queueWeights shows queues and their weights in the form of GOFER_QUEUES, so that the text can be copied into the environment of
// another worker.
func queueWeights(queues []control.Queue) string {
	var out []string
	for _, q := range queues {
		out = append(out, fmt.Sprintf("%s:%d", q.Queue, q.Weight))
	}
	return strings.Join(out, ",")
}

// countsText shows how many proxies are in which state of their breaker.
func countsText(states map[string]int) string {
	var out []string
	// Sorted, so that two lines of the table can be compared.
	for _, state := range slices.Sorted(maps.Keys(states)) {
		out = append(out, fmt.Sprintf("%d %s", states[state], state))
	}
	return strings.Join(out, ", ")
}

// stateOf is a worker's state in words. A worker that drains is not ready either, so draining comes first. A worker that is not
// ready gives its reasons.
func stateOf(w control.Status) string {
	switch {
	case w.Draining:
		return "draining"
	case w.Ready:
		return "ready"
	}
	return strings.Join(w.Reasons, "; ")
}
