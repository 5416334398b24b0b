package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"
)

// output is standard output. It keeps the first error of a write, so that no verb succeeds whose answer was lost.
type output struct {
	io.Writer
	err error
}

// Write writes to what is wrapped.
func (o *output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if err != nil && o.err == nil {
		o.err = err
	}
	return n, err
}

// printJSON writes one value as a line of JSON to standard output.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// printTable writes rows under a header to standard output; on a terminal, the last column is wrapped to fit.
func (a *app) printTable(header table.Row, rows []table.Row) {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Options = table.OptionsNoBordersAndSeparators
	t.AppendHeader(header)
	t.AppendRows(rows)
	if width := terminalWidth(a.out); width > 0 {
		t.SetColumnConfigs([]table.ColumnConfig{{Number: len(header), WidthMax: roomForLast(append(rows, header), width), WidthMaxEnforcer: text.WrapSoft}})
	}
	t.SetOutputMirror(a.out)
	t.Render()
}

// roomForLast is how wide the last column of a table may be, twenty at least, so that a line is no longer than width.
func roomForLast(rows []table.Row, width int) int {
	widest := map[int]int{}
	for _, row := range rows {
		for i, cell := range row[:len(row)-1] {
			widest[i] = max(widest[i], text.StringWidth(fmt.Sprint(cell)))
		}
	}
	const around = 2 // a space on each side of a cell
	room := width - around
	for _, w := range widest {
		room -= w + around
	}
	return max(room, 20)
}

// terminalWidth is how many columns a person sees of w; zero when nobody looks.
func terminalWidth(w io.Writer) int {
	if !isTerminal(w) {
		return 0
	}
	width, _, err := term.GetSize(int(file(w).Fd()))
	if err != nil {
		return 0
	}
	return width
}

// isTerminal reports whether a person looks at w.
func isTerminal(w io.Writer) bool {
	f := file(w)
	return f != nil && term.IsTerminal(int(f.Fd()))
}

// file is the file that w writes to, if it is one.
func file(w io.Writer) *os.File {
	if o, ok := w.(*output); ok {
		w = o.Writer
	}
	f, _ := w.(*os.File)
	return f
}
