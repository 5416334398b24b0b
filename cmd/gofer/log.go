package main

import (
	"io"
	"log/slog"
)

// logger writes to w as the configuration says: for people on a terminal, for machines elsewhere.
func (c *config) logger(w io.Writer) *slog.Logger {
	var level slog.Level
	// The level was checked with the rest of the configuration.
	_ = level.UnmarshalText([]byte(c.LogLevel))
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "text" || c.LogFormat == "" && isTerminal(w) {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}
