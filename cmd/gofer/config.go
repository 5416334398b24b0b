package main

import (
	"errors"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/worker/config"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Show and check the configuration", Args: args(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(
		&cobra.Command{Use: "usage", Short: "List every environment variable", Args: args(cobra.NoArgs), RunE: func(*cobra.Command, []string) error { return a.configUsage() }},
		&cobra.Command{Use: "check", Short: "Check the environment and name everything that is wrong", Args: args(cobra.NoArgs), RunE: func(*cobra.Command, []string) error { return a.configCheck() }},
		&cobra.Command{Use: "show", Short: "Show the current values, secrets masked", Args: args(cobra.NoArgs), RunE: func(*cobra.Command, []string) error { return a.configShow() }},
	)
	return cmd
}

func (a *app) configUsage() error {
	type line struct {
		Name    string `json:"name"`
		Default string `json:"default"`
		Meaning string `json:"meaning"`
		Secret  bool   `json:"secret"`
	}
	var lines []line
	var rows []table.Row
	for _, v := range config.Variables() {
		meaning := v.Meaning
		if twin := v.Twin(); twin != "" {
			meaning += " (also " + twin + ")"
		}
		lines = append(lines, line{v.Name, v.Default, meaning, v.Secret})
		rows = append(rows, table.Row{v.Name, v.Default, meaning})
	}
	if a.json {
		return a.printJSON(lines)
	}
	return a.out.table(table.Row{"variable", "default", "meaning"}, rows)
}

func (a *app) configCheck() error {
	if _, _, err := a.loadWorkerConfig(); err != nil {
		return a.refused(err)
	}
	if a.json {
		return a.printJSON(map[string]bool{"ok": true})
	}
	return a.out.line("The configuration is valid.")
}

// refused also prints the reasons of a bad configuration as JSON, if that is asked for.
func (a *app) refused(err error) error {
	bad, ok := errors.AsType[*config.Error](err)
	if !ok || !a.json {
		return err
	}
	return errors.Join(err, a.printJSON(map[string]any{"ok": false, "reasons": bad.Reasons}))
}

func (a *app) configShow() error {
	c, err := a.loadConfig()
	if err != nil {
		return a.refused(err)
	}
	type line struct {
		Name   string `json:"name"`
		Value  string `json:"value"`
		Source string `json:"source"`
	}
	var lines []line
	var rows []table.Row
	for _, v := range config.Variables() {
		value, source := c.Show(v)
		lines = append(lines, line{v.Name, value, source})
		rows = append(rows, table.Row{v.Name, value, source})
	}
	if a.json {
		return a.printJSON(lines)
	}
	return a.out.table(table.Row{"variable", "value", "source"}, rows)
}
