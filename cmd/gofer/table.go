package main

import (
	"fmt"
	"os"
	"regexp"

	"github.com/jedib0t/go-pretty/v6/table"
	wrap "github.com/jedib0t/go-pretty/v6/text"

	"github.com/gofer-mq/gofer/jobs/text"
)

// list prints rows under a header. Without rows it prints none on standard error. It is not for --json.
func (a *app) list(header table.Row, rows []table.Row, none string) error {
	if len(rows) == 0 {
		return a.err.line("%s", none)
	}
	return a.out.table(header, rows)
}

// table prints rows under a header. On a terminal it cuts columns and wraps the last one, so that no line is longer than
// the screen; in a file each row is one line.
func (s *stream) table(header table.Row, rows []table.Row) error {
	return s.print(render(header, rows, look{width: s.width(), coloured: s.isColoured()}) + "\n")
}

// look is how a table is shown.
type look struct {
	width    int // columns; zero means no bound
	coloured bool
	dense    bool // columns are one blank apart, and each row is one line
}

// render makes a table that is safe for a terminal, without a line end. It changes the elements of rows. The order of its steps
// matters: cells are escaped first, then columns are left out, then the widths are fitted to what remains.
func render(header table.Row, rows []table.Row, l look) string {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Options = table.OptionsNoBordersAndSeparators
	for i := range rows {
		// Cells are escaped before anything else: an escaped character takes more columns, and widths are measured below.
		rows[i] = printableRow(rows[i])
	}
	// A dense table is one of many on a screen, where a row of two lines would push out another row.
	gap, wrapLast := 1, cutCell
	if !l.dense {
		header, rows, gap = narrow(header, rows, l.width)
		wrapLast = wrap.WrapSoft
	}
	if gap == 1 {
		t.Style().Box.PaddingLeft = ""
	}
	t.AppendHeader(header)
	t.AppendRows(rows)
	var columns []table.ColumnConfig
	fit := fitWidths(header, rows, l.width, gap)
	for i := range header {
		c := table.ColumnConfig{Number: i + 1}
		// Without a terminal nothing is cut: a program that reads the file needs whole names.
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
	// The library fills the last column with blanks, which would break lines on a narrower screen.
	return regexp.MustCompile(`(?m) +$`).ReplaceAllString(t.Render(), "")
}

// cutCell cuts what does not fit into a cell. The mark counts as one column.
func cutCell(cell string, room int) string { return wrap.Snip(cell, room, "…") }

// printableRow makes a row safe for a terminal. Numbers stay numbers, because the table aligns them to the right by their type.
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

// colourOf is the colour of a state; empty for other words. Green is good, yellow passes by itself or was intended, red
// needs attention.
func colourOf(state string) string {
	switch state {
	case "ready", "served", "ok", "up", "closed", "succeeded":
		return green
	case "paused", "draining", "avoided", "half open", "testing", "delayed", "retrying", "cancelled":
		return yellow
	case "open", "resting", "failed", "not served", "no_proxy", "site_down":
		return red
	}
	return ""
}

// colourCell colours a printable cell that is a state.
func colourCell(cell any) string {
	// The whole cell has to be a state: "open in 2 of 9" is less than "open", and a name may begin like a state.
	word := fmt.Sprint(cell)
	return paint(colourOf(word), word)
}

// paint colours a printable text.
func paint(colour, safe string) string {
	if colour == "" {
		return safe
	}
	return colour + safe + plain
}

// colouredLine prints one line in a colour if colours are wanted. A pipe or a file never gets a colour.
func (s *stream) colouredLine(colour, line string) error {
	line = text.Printable(line) // before it is coloured: this would escape the colour
	if s.isColoured() {
		line = paint(colour, line)
	}
	return s.print(line + "\n")
}
