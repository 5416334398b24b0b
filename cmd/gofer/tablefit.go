package main

import (
	"fmt"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"
	wrap "github.com/jedib0t/go-pretty/v6/text"
)

// The bounds of columns, in columns of the terminal.
const (
	minCell     = 9  // no state is longer, and hardly a header
	minLast     = 20 // of the last column, which holds sentences
	narrowLast  = 12 // of the last column on a narrow screen
	cellPadding = 2  // a blank on each side of a cell
)

// minWidths returns how narrow each column may become. Names may be cut and sentences wrapped, but not numbers: a number without
// its last digits is a wrong number. last bounds the width that the last column needs.
func minWidths(header table.Row, rows []table.Row, last int) []int {
	least := make([]int, len(header))
	for i := range header {
		room := minCell
		if i == len(header)-1 {
			room = last
		}
		least[i] = min(room, wrap.StringWidth(fmt.Sprint(header[i])))
		for _, row := range rows {
			if i >= len(row) {
				continue
			}
			cell := fmt.Sprint(row[i])
			width := wrap.StringWidth(cell)
			if !mustStayWhole(cell, width) {
				width = min(width, room)
			}
			least[i] = max(least[i], width)
		}
	}
	return least
}

// mustStayWhole reports whether a cell must not be cut, because it may be a number, an age or a time: it begins with a digit
// and is no longer than a time.
func mustStayWhole(cell string, width int) bool {
	return cell != "" && cell[0] >= '0' && cell[0] <= '9' && width <= len("2030-01-02 15:04")
}

// narrow makes a table that is wider than the screen narrower: with one blank between two columns, and, if its columns cannot be
// cut enough, with fewer columns. First it leaves out columns that are empty in every row, then those next to the last column.
// The first column names the row, and the last one holds the reason, so both stay. gap is how many blanks are between two
// columns.
func narrow(header table.Row, rows []table.Row, width int) (_ table.Row, _ []table.Row, gap int) {
	fits := func(last, gap int) bool {
		total := 0
		for _, w := range minWidths(header, rows, last) {
			total += w + gap
		}
		return total <= width
	}
	if width == 0 || naturalWidth(header, rows)+cellPadding*len(header) <= width {
		return header, rows, cellPadding
	}
	for !fits(narrowLast, 1) && len(header) > 2 {
		dropped := len(header) - 2
		for i := dropped; i > 0; i-- {
			if isEmptyColumn(rows, i) {
				dropped = i
				break
			}
		}
		// Clones, because the caller keeps its table: a wider screen may have room for all of it.
		header = slices.Delete(slices.Clone(header), dropped, dropped+1)
		rows = slices.Clone(rows)
		for i, row := range rows {
			if dropped < len(row) {
				rows[i] = slices.Delete(slices.Clone(row), dropped, dropped+1)
			}
		}
	}
	return header, rows, 1
}

// naturalWidth is the width of all columns together if only the last one is wrapped.
func naturalWidth(header table.Row, rows []table.Row) (total int) {
	for i := range header {
		widest := 0
		for _, row := range append([]table.Row{header}, rows...) {
			if i < len(row) {
				widest = max(widest, wrap.StringWidth(fmt.Sprint(row[i])))
			}
		}
		if i == len(header)-1 {
			widest = min(widest, minLast)
		}
		total += widest
	}
	return total
}

// isEmptyColumn reports whether a column has nothing but zeros and empty cells.
func isEmptyColumn(rows []table.Row, column int) bool {
	return !slices.ContainsFunc(rows, func(row table.Row) bool {
		return column < len(row) && !slices.Contains([]string{"", "-", "0", "0s"}, fmt.Sprint(row[column]))
	})
}

// fitWidths returns how wide each column may be, with gap blanks between two, so that no line is longer than width. Zero width
// means no bound: then it returns nil.
//
// The last column becomes narrower first, down to minLast, because it can be wrapped. Then the widest of the others are cut, down
// to minWidths. If that does not suffice, the last column becomes narrower once more, down to narrowLast. On a screen that is too
// narrow for all columns, lines are longer than width.
func fitWidths(header table.Row, rows []table.Row, width, gap int) []int {
	if width == 0 {
		return nil
	}
	widths, total := make([]int, len(header)), 0
	for i := range header {
		for _, row := range append([]table.Row{header}, rows...) {
			if i < len(row) {
				widths[i] = max(widths[i], wrap.StringWidth(fmt.Sprint(row[i])))
			}
		}
		total += widths[i] + gap
	}
	last := len(header) - 1
	least := minWidths(header, rows, minLast)
	// shrink makes a column narrower, down to least, but by no more than the table is too wide.
	shrink := func(column, least int) {
		excess := min(max(total-width, 0), max(widths[column]-least, 0))
		widths[column], total = widths[column]-excess, total-excess
	}
	// The last column can be wrapped, so nothing of it is lost.
	shrink(last, minLast)
	// One column of the terminal at a time is taken from the widest, so the wide columns end at the same width.
	for total > width {
		widest := -1
		for i, w := range widths[:last] {
			if w > least[i] && (widest < 0 || w > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 { // all are as narrow as they may be
			break
		}
		shrink(widest, widths[widest]-1)
	}
	shrink(last, narrowLast)
	return widths
}
