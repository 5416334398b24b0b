package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/worker/admin"
	"github.com/gofer-mq/gofer/worker/control"
)

const (
	// completionTime bounds a completion, the connection included: a person waits for it at the keyboard.
	completionTime = 2 * time.Second
	// maxCompletions bounds the words that a shell is given; more letters narrow them.
	maxCompletions = 200
)

// completeValues lets a shell complete what the fleet knows: queues, jobs, dead letters, proxies, workers and sites. Without a
// server there is nothing to complete, and nothing is printed.
func (a *app) completeValues(root *cobra.Command) {
	queues, openJobs := a.complete(queueNames), a.complete(openJobNames)
	// The keys are the paths of the verbs.
	args := map[string]cobra.CompletionFunc{
		"pause": queues, "resume": queues, "cancel": openJobs, "job": openJobs, "drain": a.complete(workerNames),
		"breakers reset": a.complete(proxyNames), "proxies rm": a.complete(proxyNames), "sites show": a.complete(siteNames), "sites reset": a.complete(siteNames),
		"dead show": a.complete(letterNames), "dead replay": a.complete(letterNames), "dead purge": a.complete(letterNames),
		"proxies strategy": oneOf(append(strategyNames(), "reset")),
	}
	flags := map[string]cobra.CompletionFunc{
		"queue": queues, "site": a.complete(siteNames), "proxy": a.complete(proxyNames),
		"state": oneOf(jobs.States()), "reason": oneOf(jobs.ErrorCodes()),
	}
	eachVerb(root, func(verb *cobra.Command) {
		path := strings.TrimPrefix(verb.CommandPath(), root.Name()+" ")
		// A completion of the verb's own comes first.
		if verb.ValidArgsFunction == nil && args[path] != nil {
			verb.ValidArgsFunction = args[path]
		}
		for name, values := range flags {
			if verb.Flags().Lookup(name) != nil {
				_ = verb.RegisterFlagCompletionFunc(name, values) // fails only if the flag has one already
			}
		}
	})
}

// oneOf completes the words of a list.
func oneOf(words []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, prefix string) (out []string, _ cobra.ShellCompDirective) {
		for _, word := range words {
			if strings.HasPrefix(word, prefix) {
				out = append(out, word)
			}
		}
		// Without the directive, a shell would offer the names of files.
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// eachVerb calls use for each verb below another one, on all levels.
func eachVerb(verb *cobra.Command, use func(*cobra.Command)) {
	for _, sub := range verb.Commands() {
		use(sub)
		eachVerb(sub, use)
	}
}

// complete makes a completion of the words that find returns, without those that are typed already. It prints no error,
// which would destroy the line that a person is typing.
func (a *app) complete(find func(ctx context.Context, s *session) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, given []string, prefix string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		// Without a server, or with a wrong environment, there is nothing to complete. The verb itself will say why.
		s, err := a.connect(ctx, "completion")
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer s.close()
		// An error, such as the end of completionTime, leaves what was found until then, which is better than nothing.
		words, _ := find(ctx, s)
		out := []string{}
		for _, word := range words {
			// Strangers choose the names of queues, jobs and workers, so a name may hold what a shell or a terminal obeys.
			if strings.HasPrefix(word, prefix) && isPlain(word) && len(out) < maxCompletions && !slices.Contains(given, word) {
				// The bound is checked last, so words that do not fit do not use up the places.
				out = append(out, word)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// isPlain reports whether neither a shell nor a terminal obeys anything in a word. Shells differ in what they obey, so it
// lists what is allowed.
func isPlain(word string) bool {
	return word != "" && strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:") == ""
}

// strategyNames are those that this version knows; a worker of another version may know others.
func strategyNames() (names []string) {
	for _, s := range rotation.Strategies() {
		names = append(names, string(s))
	}
	return names
}

// queueNames are the queues that have consumers.
func queueNames(ctx context.Context, s *session) (names []string, err error) {
	list, err := s.client.ConsumedQueues(ctx)
	for _, q := range list {
		names = append(names, q.Queue)
	}
	return names, err
}

// errEnoughNames ends a list of which a shell needs no more.
var errEnoughNames = errors.New("enough")

// openJobNames are QUEUE/ID of the oldest jobs that have not ended: an id alone could belong to several queues.
func openJobNames(ctx context.Context, s *session) (names []string, err error) {
	err = s.client.List(ctx, client.ListFilter{}, func(job client.Listed) error {
		names = append(names, job.String())
		if len(names) == maxCompletions {
			return errEnoughNames
		}
		return nil
	})
	return names, err
}

// letterNames are QUEUE/ID of the oldest dead letters. Their numbers would tell a person nothing.
func letterNames(ctx context.Context, s *session) (names []string, err error) {
	err = s.client.DeadLetters(ctx, func(l client.DeadLetter) error {
		names = append(names, l.String())
		if len(names) == maxCompletions {
			return errEnoughNames
		}
		return nil
	})
	return names, err
}

// workerNames asks all workers, which takes as long as control.Ask waits for answers. No bucket has their names: a worker that
// has ended need not be removed anywhere.
func workerNames(ctx context.Context, s *session) (names []string, err error) {
	list, err := askFleet[control.Status](ctx, s, control.Workers, nil, 0)
	for _, w := range list {
		names = append(names, w.Worker)
	}
	return names, err
}

// proxyNames asks only one worker: the fleet shares its proxies, those of files excepted.
func proxyNames(ctx context.Context, s *session) (names []string, err error) {
	list, err := askFleet[workerBreakers](ctx, s, control.Breakers, control.BreakersRequest{Limit: maxCompletions}, 1)
	for _, w := range list {
		for _, b := range w.Breakers {
			names = append(names, b.ProxyID)
		}
	}
	return names, err
}

// siteNames asks only one worker, which knows the sites of its own jobs.
func siteNames(ctx context.Context, s *session) (names []string, err error) {
	list, err := askFleet[admin.WorkerSites](ctx, s, control.Sites, control.SiteRequest{Limit: maxCompletions}, 1)
	for _, w := range list {
		for _, site := range w.Sites {
			names = append(names, site.Site)
		}
	}
	return names, err
}
