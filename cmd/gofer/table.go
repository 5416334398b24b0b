package main

import (
	"fmt"
	"os"
	"regexp"

	"github.com/jedib0t/go-pretty/v6/table"
	wrap "github.com/jedib0t/go-pretty/v6/text"

	"github.com/gofer-mq/gofer/jobs/text"
)

// list prints rows under a header, or on standard error that there are none: then standard output stays empty. It
// is for people: with --json a caller prints [] itself.
func (a *app) list(header table.Row, rows []table.Row, none string) error {
	if len(rows) == 0 {
		return a.err.line("%s", none)
	}
	return a.out.table(header, rows)
}

// table prints rows under a header. On a terminal columns are cut and the last one is wrapped, so that no line is longer than the
// screen; in a file each row is one line. No line ends with a blank.
func (s *stream) table(header table.Row, rows []table.Row) error {
	return s.print(render(header, rows, look{width: s.width(), coloured: s.isColoured()}) + "\n")
}

// look is how a table is shown.
type look struct {
	width    int // columns; zero means no bound
	coloured bool
	dense    bool // columns are one blank apart, and each row is one line
}

// render makes a table of text that is safe for a terminal, without a line end. It changes the elements of rows.
func render(header table.Row, rows []table.Row, l look) string {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Options = table.OptionsNoBordersAndSeparators
	for i := range rows {
		// Before anything else, because widths are measured on what is printed.
		rows[i] = printableRow(rows[i])
	}
	gap, wrapLast := 1, cutCell
	if !l.dense {
		header, rows, gap = narrowed(header, rows, l.width)
		wrapLast = wrap.WrapSoft
	}
	if gap == 1 {
		t.Style().Box.PaddingLeft = ""
	}
	t.AppendHeader(header)
	t.AppendRows(rows)
	var columns []table.ColumnConfig
	fit := fitting(header, rows, l.width, gap)
	for i := range header {
		c := table.ColumnConfig{Number: i + 1}
		// Without a terminal nothing is cut: programs may read the file.
		if fit != nil {
			c.WidthMax, c.WidthMaxEnforcer = fit[i], cutCell
		}
		// The last column holds sentences, so it is wrapped at words instead.
		if i == len(header)-1 {
			c.WidthMaxEnforcer = wrapLast
		}
		if l.coloured {
			c.Transformer = colourCell
		}
		columns = append(columns, c)
	}
	t.SetColumnConfigs(columns)
	return regexp.MustCompile(`(?m) +$`).ReplaceAllString(t.Render(), "")
}

// cutCell cuts what does not fit into a cell. The mark counts as one column.
func cutCell(cell string, room int) string { return wrap.Snip(cell, room, "…") }

// printableRow makes a row safe for a terminal. Numbers stay numbers, because the table aligns them by their type.
func printableRow(row table.Row) table.Row {
	out := make(table.Row, len(row))
	for i, cell := range row {
		switch cell.(type) {
		case int, int64, uint64, float64, bool:
			out[i] = cell
		default:
			out[i] = text.Printable(fmt.Sprint(cell))
		}
	}
	return out
}

// The colours, as terminals know them.
const (
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	red    = "\x1b[31m"
	plain  = "\x1b[0m"
)

// isColoured reports whether colours are wanted: on a terminal that knows them, unless NO_COLOR is set (https://no-color.org).
func (s *stream) isColoured() bool { return s.hasScreen() && os.Getenv("NO_COLOR") == "" }

// hasScreen reports whether the stream is a terminal that knows colours and positions.
func (s *stream) hasScreen() bool { return s.isTerminal() && os.Getenv("TERM") != "dumb" }

// colourOf is the colour of a state; empty for none. The word stands there as well: a colour is never the only
// sign. The words are those that the columns show, also as states in JSON. Green is good, yellow passes by itself
// or was intended, red needs attention.
func colourOf(state string) string {
	switch state {
	case "ready", "served", "ok", "up", "closed", "succeeded":
		return green
	case "paused", "draining", "avoided", "half open", "testing", "delayed", "retrying", "cancelled":
		return yellow
	case "open", "resting", "failed", "not served by any worker", "no_proxy", "site_down":
		return red
	}
	return ""
}

// colourCell colours a cell that is a state. The cell is printable already.
func colourCell(cell any) string {
	// A cell that only begins like a state keeps its colour.
	word := fmt.Sprint(cell)
	return paint(colourOf(word), word)
}

// paint colours a text that is printable already.
func paint(colour, safe string) string {
	if colour == "" {
		return safe
	}
	return colour + safe + plain
}

// colouredLine prints one line in a colour if colours are wanted. A pipe or a file never gets a colour.
func (s *stream) colouredLine(colour, line string) error {
	// First made printable, then coloured: the other way round would escape the colour.
	line = text.Printable(line)
	if s.isColoured() {
		line = paint(colour, line)
	}
	return s.print(line + "\n")
}
