package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gofer-mq/gofer/jobs/text"
)

// addVerbs adds all verbs, in the groups in which help lists them. Each verb has a file of its own name, and its
// command is made by one function. A verb that is missing here is in neither help nor cmd/gofer/README.md.
func (a *app) addVerbs(root *cobra.Command) {
	// The order is that of help.
	for _, group := range []struct {
		id, title string
		verbs     []*cobra.Command
	}{
		{"jobs", "Jobs:", []*cobra.Command{
			a.submitCommand(), a.resultsCommand(), a.jobCommand(), a.jobsCommand(), a.cancelCommand(), a.deadCommand(), a.eventsCommand(),
		}},
		{"fleet", "Fleet:", []*cobra.Command{
			a.queuesCommand(), a.pauseCommand(), a.resumeCommand(), a.workersCommand(), a.drainCommand(), a.sitesCommand(), a.rollupsCommand(), a.topCommand(),
			a.policyCommand(), a.denyCommand(), a.doctorCommand(),
		}},
		{"proxies", "Proxies:", []*cobra.Command{a.proxiesCommand(), a.breakersCommand()}},
		{"run", "Run and set up:", []*cobra.Command{
			a.workerCommand(), a.playgroundCommand(), a.setupCommand(), a.healthCommand(), a.configCommand(), a.versionCommand(), a.manCommand(),
		}},
	} {
		root.AddGroup(&cobra.Group{ID: group.id, Title: group.title})
		for _, verb := range group.verbs {
			// cobra panics on a group that does not exist, so the group is added first.
			verb.GroupID = group.id
		}
		root.AddCommand(group.verbs...)
	}
	// cobra adds help and completion itself.
	root.SetHelpCommandGroupID("run")
	root.SetCompletionCommandGroupID("run")
	suggest(root)
	a.completeValues(root)
}

// suggest names verbs by words that people try first. A word that several verbs have suggests all of them.
func suggest(root *cobra.Command) {
	// They are words of other queues and of the shell. cobra offers the verb when one of them is typed.
	words := map[string][]string{
		"doctor": {"status", "check"}, "rollups": {"stats", "metrics"}, "events": {"logs", "log", "watch"}, "queues": {"ls", "list"}, "dead": {"retry", "replay", "failed"},
		"submit": {"fetch", "get", "run", "push", "add", "enqueue"}, "workers": {"ps", "nodes"}, "proxies": {"proxy", "pool", "strategy"}, "worker": {"start", "serve"}, "results": {"result"},
	}
	for _, verb := range root.Commands() {
		verb.SuggestFor = append(verb.SuggestFor, words[verb.Name()]...)
	}
}

// flagError explains a flag that does not exist by the one that was probably meant. The error has exit code 2.
func flagError(cmd *cobra.Command, err error) error {
	missing, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok {
		// Other mistakes, such as a flag without its value, explain themselves.
		return usage("%w", err)
	}
	// Hidden flags are old names, which nobody should learn.
	var known []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			known = append(known, f.Name)
		}
	})
	name := strings.TrimLeft(missing.GetSpecifiedName(), "-")
	// One letter is near to too many flags.
	if near := text.Nearest(name, known, 2); near != "" && len(name) > 1 {
		return usage("%w, did you mean --%s?", err, near)
	}
	// A worker has no flags, so who tries one looks for a variable.
	if cmd.Name() == "worker" {
		return usage("%w: the environment configures a worker, see gofer config usage", err)
	}
	return usage("%w", err)
}
