package main

import (
	"log/slog"

	"github.com/gofer-mq/gofer/worker/config"
)

// newLogger makes a logger that writes to a stream in the configured format: text for people on a terminal, and JSON for
// machines otherwise. Neither lets a terminal obey what a stranger wrote. The logger may be used from any
// goroutine; the stream has a lock.
func newLogger(c *config.Config, to *stream) *slog.Logger {
	var level slog.Level
	// The level was checked with the rest of the configuration.
	_ = level.UnmarshalText([]byte(c.LogLevel))
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: inUTC}
	if c.LogFormat == "text" || c.LogFormat == "" && to.isTerminal() {
		return slog.New(slog.NewTextHandler(to.writer(), options))
	}
	return slog.New(slog.NewJSONHandler(to.jsonWriter(), options))
}

// inUTC writes all times in UTC, so that the logs of machines in different zones can be merged. slog calls it
// for each attribute, also for the time of the record itself. slog's own format of times keeps their precision.
func inUTC(_ []string, attr slog.Attr) slog.Attr {
	if attr.Value.Kind() == slog.KindTime {
		attr.Value = slog.TimeValue(attr.Value.Time().UTC())
	}
	return attr
}
