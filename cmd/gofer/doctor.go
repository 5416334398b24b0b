package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/worker/config"
	"github.com/gofer-mq/gofer/worker/doctor"
)

// doctorCommand examines this environment and the installation. Exit code 1 means that a finding is bad.
func (a *app) doctorCommand() *cobra.Command {
	// It changes nothing, so that anybody may run it at any time, also in the middle of an incident.
	return &cobra.Command{
		Use:   "doctor",
		Short: "Find out what is wrong: configuration, server, streams, queues, workers, proxies, sites",
		Long: `Looks at one thing after the other and says of each whether it is ok or BAD and, where somebody can repair it, the command that
does: configuration, server, clock, streams and consumers that somebody edited, how large the results will be, why the jobs of each queue wait, overdue
jobs, settings of the fleet that are not valid, workers that are not ready or hold jobs that they cannot settle, open breakers, versions and configurations that differ, sites that rest,
dead letters. Sites that rest are BAD once jobs wait for them; dead letters if they are more than a tenth of the results of a day.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context()) },
	}
}

// doctor prints all findings before it fails. With --json, a bad configuration is a finding, too; it ends the verb in any case.
func (a *app) doctor(ctx context.Context) error {
	c, err := a.loadConfig()
	// Programs read the findings, so a bad configuration has the same form. People get the error as after every
	// verb.
	if bad, ok := errors.AsType[*config.Error](err); ok && a.json {
		var list []doctor.Finding
		for _, reason := range bad.Reasons {
			list = append(list, doctor.Finding{Name: "configuration", Detail: reason})
		}
		return errors.Join(err, a.printJSON(list))
	}
	if err != nil {
		return err
	}
	list, err := a.findings(ctx, c)
	if ctx.Err() != nil {
		return context.Cause(ctx) // the last findings may be those of the interruption
	}
	// Printed before the error of the connection: the findings so far may be its cause.
	if printErr := a.printFindings(list); printErr != nil {
		return printErr
	}
	if err != nil {
		return err
	}
	// A finding that is BAD gives exit code 1, for a monitor that runs the verb.
	for _, f := range list {
		if !f.OK {
			return errors.New("something needs your attention")
		}
	}
	return nil
}

// printFindings prints a line for each finding.
func (a *app) printFindings(list []doctor.Finding) error {
	if a.json {
		return a.printJSON(list)
	}
	for _, f := range list {
		// The mark stands first, so that grep finds the bad ones.
		mark := "ok  "
		if !f.OK {
			mark = "BAD "
		}
		if err := a.out.line("%s %-16s %s", mark, f.Name, f.Detail); err != nil {
			return err
		}
	}
	return nil
}

// findings examines this environment and then the installation. Without a connection it returns the findings so far and an
// error.
func (a *app) findings(ctx context.Context, c config.Config) ([]doctor.Finding, error) {
	list := []doctor.Finding{{Name: "configuration", OK: true, Detail: "every variable is known and in range"}, proxiesFinding(ctx, &c)}
	s, err := a.connect(ctx, "doctor")
	if err != nil {
		// The error is also the verb's, so the exit code says that no server was reached.
		return append(list, doctor.Finding{Name: "nats", Detail: config.Explain(err)}), err
	}
	defer s.close()
	// The texts that name variables and commands come from worker/config: package doctor serves the page as
	// well.
	list = append(list, doctor.Examine(ctx, doctor.Config{
		NATS: s.nc, Bus: s.bus, Settings: c.Settings(), Explain: config.Explain, Repair: config.Repair,
	})...)
	return append(list, settingsFindings(ctx, s)...), nil
}

// proxiesFinding says whether the proxies of this environment can be read, those of its URL included. None is fine: workers
// may have theirs elsewhere.
func proxiesFinding(ctx context.Context, c *config.Config) doctor.Finding {
	// Both sources are read, so that one broken source does not hide what is wrong with the other.
	proxies, err := c.ReadProxies()
	fetched, fetchErr := c.FetchProxies(ctx)
	found := doctor.Finding{Name: "proxies", OK: err == nil && fetchErr == nil}
	switch all := len(config.JoinProxies(proxies, fetched)); {
	case !found.OK:
		found.Detail = config.Explain(errors.Join(err, fetchErr))
	case all == 0:
		found.Detail = "none in this environment; workers may have theirs, or the bucket"
	default:
		found.Detail = fmt.Sprintf("%d in this environment", all)
	}
	return found
}
