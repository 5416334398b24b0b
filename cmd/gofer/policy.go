package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/control"
	"github.com/gofer-mq/gofer/worker/fleet"
)

// policyCommand is the group of verbs about the retry policy. A policy in the bucket replaces that of every worker's
// environment within a second.
func (a *app) policyCommand() *cobra.Command {
	return verbGroup("policy", "Show and change the fleet's retry policy",
		&cobra.Command{Use: "show", Short: "Show the policy that workers use: what the bucket holds, and for the rest their environment", Args: args(cobra.NoArgs), RunE: a.verb("policy show", a.policyShow)},
		&cobra.Command{
			Use: "set JSON|-", Short: "Replace the fleet's policy; a field that is absent takes its default",
			Example: `  gofer policy set '{"max_attempts":5,"backoff_strategy":"linear"}'`,
			Args:    args(cobra.ExactArgs(1)), RunE: a.verb("policy set", a.policySet),
		},
		&cobra.Command{Use: "reset", Short: "Return to the policy of the workers' environment", Args: args(cobra.NoArgs), RunE: a.verb("policy reset", a.policyReset)},
	)
}

// maxPolicy bounds a policy that is read from standard input, in bytes.
const maxPolicy = 64 << 10

// policyShow prints the current policy as JSON on standard output, and where it comes from on standard error. If the policy
// in the bucket is not valid, it prints the one that the workers go on with, and fails.
func (a *app) policyShow(ctx context.Context, s *session, _ []string) error {
	kv, err := s.bucket(ctx, "policy")
	if err != nil {
		return err
	}
	// A worker is asked, because its environment decides what a partial document means.
	own, err := s.workersPolicy(ctx)
	if err != nil {
		return err
	}
	source, policy := "bucket", *own.Environment
	var invalid error
	// The bucket is read after the worker has answered. After a change, both may differ for a second.
	entry, err := kv.Get(ctx, fleet.PolicyKey)
	switch {
	// No document: the environment of each worker applies, which may differ between workers.
	case errors.Is(err, jetstream.ErrKeyNotFound):
		source = "environment"
	case err != nil:
		return err
	default:
		if policy, err = jobs.DecodePolicy(entry.Value(), policy); err != nil {
			invalid = fmt.Errorf("the policy in the bucket is not valid, and workers keep the last good one: %w", err)
			// What the worker uses is shown, because this is what applies.
			policy = own.Policy
		}
	}
	if !a.json {
		_ = a.err.line("source: %s", source)
	}
	return errors.Join(invalid, a.printJSON(policy))
}

// workersPolicy returns the policy of a worker, and that of its environment, from which a document in the bucket takes
// what it lacks. If no worker answers, both are those of a worker with this environment. Environment of the result
// is never nil.
func (s *session) workersPolicy(ctx context.Context) (control.PolicyResponse, error) {
	own := s.config.Policy()
	// One answer is enough for printing; doctor compares the configurations of all.
	answers, err := askFleet[control.PolicyResponse](ctx, s, control.Policy, nil, 1)
	if errors.Is(err, control.ErrNoWorkers) {
		return control.PolicyResponse{Policy: own, Environment: &own}, nil
	}
	if err != nil {
		return control.PolicyResponse{}, err
	}
	answer := answers[0]
	// Workers of earlier versions do not send their environment.
	if answer.Environment == nil {
		answer.Environment = &own
	}
	return answer, nil
}

// policySet checks a policy and stores it whole, with its defaults written out: a later version with other defaults
// changes nothing. It prints the policy as it was stored, also without --json.
func (a *app) policySet(ctx context.Context, s *session, args []string) error {
	text := []byte(args[0])
	if args[0] == "-" {
		var err error
		// One byte more than allowed shows that the text is longer.
		if text, err = io.ReadAll(io.LimitReader(a.in, maxPolicy+1)); err != nil {
			return err
		}
		if len(text) > maxPolicy {
			return usage("policy: longer than %d bytes", maxPolicy)
		}
	}
	// Absent fields take gofer's defaults and not those of this environment, so that the call does the same on every machine.
	policy, err := jobs.DecodePolicy(text, jobs.DefaultPolicy())
	if err != nil {
		return usage("policy: %w", err)
	}
	data, err := json.Marshal(policy)
	if err != nil {
		return err
	}
	kv, err := s.bucket(ctx, "policy")
	if err != nil {
		return err
	}
	// Workers watch the key, so each has the policy within a second.
	if _, err := kv.Put(ctx, fleet.PolicyKey, data); err != nil {
		return fmt.Errorf("set policy: %w", err)
	}
	return a.printJSON(policy)
}

// policyReset removes the policy from the bucket. It succeeds if there is none.
func (a *app) policyReset(ctx context.Context, s *session, _ []string) error {
	kv, err := s.bucket(ctx, "policy")
	if err != nil {
		return err
	}
	// Delete of a key that does not exist succeeds.
	if err := kv.Delete(ctx, fleet.PolicyKey); err != nil {
		return fmt.Errorf("reset policy: %w", err)
	}
	return a.printDone(map[string]any{"source": "environment"}, "The workers' environment applies.")
}
