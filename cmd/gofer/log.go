package main

import (
	"log/slog"

	"github.com/gofer-mq/gofer/worker/config"
)

// newLogger makes a logger that writes to a stream in the configured format. The default is text on a terminal, and JSON
// otherwise. Neither lets a terminal obey what a stranger wrote.
func newLogger(c *config.Config, to *stream) *slog.Logger {
	var level slog.Level
	// No error is possible: the level was checked with the configuration.
	_ = level.UnmarshalText([]byte(c.LogLevel))
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: inUTC}
	// A person reads a terminal. Elsewhere a collector of logs reads, which needs fields that it can parse.
	if c.LogFormat == "text" || c.LogFormat == "" && to.isTerminal() {
		return slog.New(slog.NewTextHandler(to.writer(), options))
	}
	return slog.New(slog.NewJSONHandler(to.jsonWriter(), options))
}

// inUTC writes all times in UTC, that of the record included, so that the logs of machines in different zones can be merged.
func inUTC(_ []string, attr slog.Attr) slog.Attr {
	if attr.Value.Kind() == slog.KindTime {
		attr.Value = slog.TimeValue(attr.Value.Time().UTC())
	}
	return attr
}
