package main

import (
	"errors"
	"fmt"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/worker/config"
)

// configCommand is the group of verbs about the environment. None of them connects to NATS.
func (a *app) configCommand() *cobra.Command {
	return verbGroup("config", "Show and check the configuration",
		&cobra.Command{Use: "usage", Short: "List every environment variable", Args: args(cobra.NoArgs), RunE: func(*cobra.Command, []string) error { return a.configUsage() }},
		&cobra.Command{Use: "check", Short: "Check the environment and name everything that is wrong", Args: args(cobra.NoArgs), RunE: func(*cobra.Command, []string) error { return a.configCheck() }},
		&cobra.Command{Use: "show", Short: "Show the current values, secrets masked", Args: args(cobra.NoArgs), RunE: func(*cobra.Command, []string) error { return a.configShow() }},
	)
}

// configUsage lists every variable that gofer reads, in the order of package config. cmd/gofer/README.md is made from the
// same table.
func (a *app) configUsage() error {
	// line is a variable as --json prints it.
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

// configCheck reads the environment as a worker does, the proxies included. It names everything that is wrong at
// once. A list of GOFER_PROXIES_URL is not fetched; gofer doctor does that.
func (a *app) configCheck() error {
	// As a worker does at its start: each variable is read, the proxies are parsed, and variables that depend on each other are
	// compared. Nothing is connected.
	c, proxies, err := a.loadWorkerConfig()
	if err != nil {
		return a.printReasons(err)
	}
	if a.json {
		return a.printJSON(map[string]bool{"ok": true})
	}
	// A file without a proxy is valid, but hardly what its owner meant.
	names := ""
	switch n := len(proxies); {
	case n == 1:
		names = " It names one proxy."
	case n > 1:
		names = fmt.Sprintf(" It names %d proxies.", n)
	case c.ProxiesURL == "":
		names = " It names no proxy: a worker waits for those of 'gofer proxies add'."
	}
	return a.out.line("The configuration is valid.%s", names)
}

// printReasons returns err. With --json it also prints the reasons of a bad configuration, so that no program has to read
// the text of the error.
func (a *app) printReasons(err error) error {
	bad, ok := errors.AsType[*config.Error](err)
	if !ok || !a.json {
		return err
	}
	// Both happen: the object goes to standard output, the error to standard error with exit code 78.
	return errors.Join(err, a.printJSON(map[string]any{"ok": false, "reasons": bad.Reasons}))
}

// configShow prints the current values and where each of them comes from. Show masks secrets, passwords in URLs included, so the
// output may be pasted anywhere.
func (a *app) configShow() error {
	// The proxies are not read: a file that cannot be read must not keep the values from being shown.
	c, err := a.loadConfig()
	if err != nil {
		return a.printReasons(err)
	}
	// line is a value as --json prints it. Secrets are masked, so the output may be stored.
	type line struct {
		Name   string `json:"name"`
		Value  string `json:"value"`
		Source string `json:"source"`
	}
	var lines []line
	var rows []table.Row
	for _, v := range config.Variables() {
		// Show knows which variables hold secrets, and masks the password within a URL as well.
		value, source := c.Show(v)
		lines = append(lines, line{v.Name, value, source})
		rows = append(rows, table.Row{v.Name, value, source})
	}
	if a.json {
		return a.printJSON(lines)
	}
	return a.out.table(table.Row{"variable", "value", "source"}, rows)
}
