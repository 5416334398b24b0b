package main

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gofer-mq/gofer/jobs/text"
)

// addVerbs adds all verbs, in the groups and in the order in which help lists them. Each verb has a file of its name.
func (a *app) addVerbs(root *cobra.Command) {
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
			// cobra panics on a verb whose group does not exist, so AddGroup comes before AddCommand.
			verb.GroupID = group.id
		}
		root.AddCommand(group.verbs...)
	}
	// cobra adds help and completion itself.
	root.SetHelpCommandGroupID("run")
	root.SetCompletionCommandGroupID("run")
	root.InitDefaultCompletionCmd()
	// Without a function of its own, completion prints its help for a shell that it does not know, with exit code 0.
	if completion, _, err := root.Find([]string{"completion"}); err == nil {
		completion.Args, completion.RunE = args(cobra.NoArgs), root.RunE
	}
	a.completeValues(root)
}

// verbGroup is a verb that only groups others. Without one of them it prints its help.
func verbGroup(use, short string, verbs ...*cobra.Command) *cobra.Command {
	group := &cobra.Command{
		Use: use, Short: short, Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	group.AddCommand(verbs...)
	return group
}

// meantBy names the verbs that a word means which people try first: one of other queues, of shells and of orchestrators. A word of
// gofer itself may mean a verb of one of its groups.
func meantBy(group *cobra.Command, word string) (verbs []string) {
	words := map[string][][2]string{ // verb, and the words that mean it
		"": {
			{"doctor", "status check"}, {"rollups", "stats metrics"}, {"events", "logs log watch tail"}, {"queues", "ls list"},
			{"submit", "fetch get run push pub publish add enqueue schedule"}, {"workers", "ps nodes"}, {"proxies", "proxy pool"}, {"worker", "start serve daemon"},
			{"results", "result sub"}, {"cancel", "delete rm kill abort"}, {"job", "show inspect describe"}, {"dead replay", "retry replay requeue"},
			{"dead ls", "failed archived"}, {"dead purge", "purge"}, {"proxies strategy", "strategy"}, {"config usage", "env"}, {"setup", "init"}, {"drain", "stop"},
		},
		"dead":     {{"purge", "rm remove delete clear drop"}, {"replay", "retry requeue run"}},
		"jobs":     {{"ls", "list"}},
		"proxies":  {{"rm", "remove delete del"}, {"ls", "list show get status"}},
		"breakers": {{"ls", "list show status"}, {"reset", "close clear"}},
		"sites":    {{"ls", "list"}},
		"policy":   {{"show", "get ls list"}, {"reset", "unset rm delete"}},
		"deny":     {{"rm", "remove delete allow"}, {"ls", "list show"}},
		"config":   {{"show", "get ls list env"}, {"usage", "help"}},
	}
	name := ""
	if group.HasParent() {
		name = group.Name()
	}
	for _, w := range words[name] {
		if slices.Contains(strings.Fields(w[1]), word) {
			verbs = append(verbs, w[0])
		}
	}
	return verbs
}

// flagError explains a flag that does not exist by the one that was probably meant. cobra calls it for each error of parsing, and
// would report exit code 1. The error has exit code 2.
func flagError(cmd *cobra.Command, err error) error {
	missing, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok {
		// Other mistakes, such as a flag without its value, explain themselves.
		return usage("%w", err)
	}
	// Hidden flags are old names that still work. They are not suggested, because nobody should learn them now.
	var known []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			known = append(known, f.Name)
		}
	})
	name := strings.ReplaceAll(strings.TrimLeft(missing.GetSpecifiedName(), "-"), "_", "-")
	meant := flagOf(cmd.Flags(), name)
	switch {
	case strings.HasPrefix(meant, "-"):
		return usage("%w, did you mean %s?", err, meant)
	case meant != "":
		return usage("%w: %s", err, meant)
	}
	near := []string{text.Nearest(name, known, 2)}
	// A single letter is at most two edits away from many names, so Nearest is of no use: the flags that begin with it are meant.
	if len(name) == 1 {
		near = slices.DeleteFunc(known, func(flag string) bool { return !strings.HasPrefix(flag, name) })
	}
	// More than three suggestions are no help.
	if len(near) > 0 && len(near) <= 3 && near[0] != "" {
		return usage("%w, did you mean --%s?", err, strings.Join(near, " or --"))
	}
	// A worker has no flags of its own, so whoever tries one looks for a variable.
	if cmd.Name() == "worker" {
		return usage("%w: the environment configures a worker, see gofer config usage", err)
	}
	return usage("%w", err)
}

// flagOf is the flag of the verb that stands for a flag of curl, of the nats command or of another queue; empty if there is none.
func flagOf(flags *pflag.FlagSet, name string) string {
	for _, alias := range []struct {
		// flag is one of gofer's, without which the rest of meant makes no sense.
		flag, meant, names string
	}{
		{"attempts", "--attempts, which counts the first one, too", "retry retries max-retry max-retries"},
		{"attempts", "--attempts", "max-attempts tries"},
		{"attempt-timeout", "--attempt-timeout", "m max-time connect-timeout request-timeout"},
		{"method", "-X METHOD", "request"},
		{"method", "-X HEAD", "I head"},
		{"data", "-d DATA", "data-raw data-binary data-ascii data-urlencode json body payload"},
		{"header", "-H 'User-Agent: …'", "A user-agent agent"},
		{"header", "-H 'Authorization: …'", "u user"},
		{"header", "-H 'Cookie: …'", "b cookie"},
		{"header", "-H 'Referer: …'", "e referer"},
		{"method", "redirects are followed; a JSON job bounds them by follow_redirects", "L location"},
		{"output", "--output DIR", "o O remote-name save"},
		{"proxy", "--proxy ID, a proxy of the pool: gofer proxies ls lists them", "x proxy-url proxy-id via"},
		{"region", "--region", "country geo"},
		{"in", "--in DURATION or --at TIME", "delay after process-in process-at not-before schedule run-at"},
		{"id", "--id", "job-id task-id name"},
		{"yes", "--yes", "y f force assume-yes no-input"},
		{"limit", "--limit", "n count last size"},
		{"state", "--state", "status"},
		{"server", "--server URL", "nats-url nats"},
		{"every", "--every DURATION", "interval refresh"},
		{"until-now", "it follows by itself; --all begins with the events that are kept", "follow tail since last"},
		{"durable", "without an ID it follows by itself; --all begins with the results that are kept", "follow tail"},
		{"state", "name jobs by --queue, --site, --since or --state", "all"},
		{"json", "--json", "format j"},
	} {
		if flags.Lookup(alias.flag) != nil && slices.Contains(strings.Fields(alias.names), name) {
			return alias.meant
		}
	}
	return ""
}
