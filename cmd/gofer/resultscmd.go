package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
)

func (a *app) resultsCommand() *cobra.Command {
	var queue, durable string
	var all, wait bool
	cmd := &cobra.Command{
		Use:   "results [ID]",
		Short: "Show one result, or follow results as they come",
		Long: `With an ID, or QUEUE/ID, prints the body of that job's result, and its facts on standard error.
Without one, prints a line for each result as it comes, until interrupted; --all begins with those that are kept.

A body reaches a file or a pipe unchanged. On a terminal what it would obey is shown in Go's notation (\x1b), and a binary body
is refused. Everything else that strangers wrote, such as URLs and reasons, is always shown so.`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, ids []string) error {
			one := len(ids) == 1
			switch {
			case wait && !one:
				return usage("--wait needs an ID: without one, results are followed as they come")
			case one && (all || durable != ""):
				return usage("--all and --durable follow results: leave out the ID")
			}
			if err := checkDurable(durable, queue, all); err != nil {
				return err
			}
			s, err := a.connect(cmd.Context(), "results")
			if err != nil {
				return err
			}
			defer s.close()
			if one {
				return a.oneResult(cmd.Context(), s, queue, ids[0], wait)
			}
			return a.followResults(cmd.Context(), s, queue, durable, all)
		},
	}
	cmd.Flags().StringVar(&queue, "queue", "", "only this queue")
	cmd.Flags().StringVar(&durable, "durable", "", "follow with this prepared consumer, such as "+client.Reader+", for users who may not create one")
	cmd.Flags().BoolVar(&all, "all", false, "begin with the results that are kept; without an ID")
	cmd.Flags().BoolVar(&wait, "wait", false, "with an ID: wait for the result if it is not there yet")
	return cmd
}

// checkDurable refuses what a prepared consumer decides by itself.
func checkDurable(durable, queue string, all bool) error {
	if durable != "" && (queue != "" || all) {
		return usage("--durable goes with neither --queue nor --all: the prepared consumer has its own filter and beginning")
	}
	return nil
}

// oneResult prints the body of one result to standard output, so that it can be piped.
func (a *app) oneResult(ctx context.Context, s *session, queue, name string, wait bool) error {
	key, err := key(ctx, s, queue, name)
	if err != nil {
		return err
	}
	get := s.client.Result
	if wait {
		get = s.client.Wait
	}
	r, err := get(ctx, key)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(resultJSON(r))
	}
	_ = a.err.line("%s", resultLine(r))
	if err := a.printBody(ctx, s, r); err != nil {
		return err
	}
	if r.Outcome != jobs.Succeeded {
		return &failure{code: exitSomeFailed, err: fmt.Errorf("the job's outcome is %s", r.Outcome)}
	}
	return nil
}

// key is the job that name means: QUEUE/ID, or an ID that is looked for.
func key(ctx context.Context, s *session, queue, name string) (client.Key, error) {
	q, id, named := strings.Cut(name, "/")
	if !named {
		q, id = queue, name
	}
	if queue != "" && q != queue {
		return client.Key{}, usage("--queue %s contradicts %s", queue, name)
	}
	if !jobs.ValidID(id) || q != "" && !jobs.ValidQueue(q) {
		return client.Key{}, usage("%q is not the name of a job: an id is [A-Za-z0-9_-]{1,128}, perhaps with QUEUE/ before it", name)
	}
	if q != "" {
		return client.Key{Queue: q, ID: id}, nil
	}
	found, err := s.client.Resolve(ctx, id)
	if _, ok := errors.AsType[*client.AmbiguousError](err); ok {
		return client.Key{}, usage("%w", err)
	}
	if err != nil {
		return client.Key{}, err
	}
	return found, nil
}

// followResults prints a line for each result until ctx ends.
func (a *app) followResults(ctx context.Context, s *session, queue, durable string, all bool) error {
	f := client.Filter{Queue: queue, All: all, HeadersOnly: durable == "", Durable: durable}
	return s.client.Follow(ctx, f, func(r jobs.Result) error {
		if facts := resultJSON(r); a.json && f.HeadersOnly {
			facts.BodyBytes = nil
			return a.printJSON(facts)
		}
		return a.printResult(r)
	})
}

// printBody writes the body of a result, or the problem document of one that did not succeed.
func (a *app) printBody(ctx context.Context, s *session, r jobs.Result) error {
	if r.Outcome != jobs.Succeeded {
		for _, attempt := range r.Attempts {
			_ = a.err.line("  attempt %d  %s  %s", attempt.Attempt, attempt.Proxy, attempt.Error)
		}
		return nil
	}
	body, err := s.client.Body(ctx, r)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	return a.out.body(body)
}

// printResult writes one line about a result.
func (a *app) printResult(r jobs.Result) error {
	if a.json {
		return a.printJSON(resultJSON(r))
	}
	return a.out.line("%s", resultLine(r))
}

// resultLine is a result in one line for people.
func resultLine(r jobs.Result) string {
	line := fmt.Sprintf("%s/%s %s", r.Queue, r.ID, r.Outcome)
	if r.Error != "" && r.Error != r.Outcome {
		line += " " + r.Error
	}
	if r.Status != 0 {
		line += fmt.Sprintf(" %d", r.Status)
	}
	if r.Proxy != "" {
		line += " via " + r.Proxy
	}
	line += fmt.Sprintf(" (attempts %d, %d bytes, %s)", r.AttemptCount, r.Bytes, brief(r.Duration))
	if r.URL != "" { // a job that was cancelled before its first attempt has none
		line += " " + r.URL
	}
	if r.Detail != "" && r.Outcome == jobs.Failed {
		line += ": " + r.Detail
	}
	return line
}

// brief is a duration as people read it: to the millisecond, and short ones to the tenth of one.
func brief(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

// resultFacts is a result in JSON: the facts, without the body.
type resultFacts struct {
	Queue      string              `json:"queue"`
	ID         string              `json:"id"`
	Outcome    string              `json:"outcome"`
	Error      string              `json:"error,omitempty"`
	Detail     string              `json:"detail,omitempty"`
	Reasons    []string            `json:"reasons,omitempty"`
	Status     int                 `json:"status,omitempty"`
	URL        string              `json:"url,omitempty"`
	Proxy      string              `json:"proxy,omitempty"`
	Attempts   int                 `json:"attempts"`
	Tries      []jobs.Attempt      `json:"tries,omitempty"`
	Bytes      int64               `json:"bytes"`
	Duration   jobs.Duration       `json:"duration"`
	Worker     string              `json:"worker"`
	FinishedAt time.Time           `json:"finished_at"`
	BodyBytes  *int                `json:"body_bytes,omitempty"` // not known where only headers are read, nor of an object
	Object     string              `json:"object,omitempty"`
	Meta       map[string]string   `json:"meta,omitempty"`
	Headers    map[string][]string `json:"headers,omitempty"`
}

func resultJSON(r jobs.Result) resultFacts {
	var size *int
	if n := len(r.Body); r.Object == "" {
		size = &n
	}
	return resultFacts{
		Queue: r.Queue, ID: r.ID, Outcome: r.Outcome, Error: r.Error, Detail: r.Detail, Reasons: r.Reasons, Status: r.Status,
		URL: r.URL, Proxy: r.Proxy, Attempts: r.AttemptCount, Tries: r.Attempts, Bytes: r.Bytes, Duration: jobs.Duration(r.Duration),
		Worker: r.Worker, FinishedAt: r.FinishedAt, BodyBytes: size, Object: r.Object, Meta: r.Meta, Headers: r.Header,
	}
}
