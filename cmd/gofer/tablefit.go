package main

import (
	"fmt"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"
	wrap "github.com/jedib0t/go-pretty/v6/text"
)

const (
	minCell    = 6 // columns; a name that is cut to less says nothing
	minLast    = 20
	narrowLast = 12 // of the last column, which is wrapped, on a narrow screen
	around     = 2  // a blank on each side of a cell
)

// minWidths returns how narrow each column may become: names are cut and sentences wrapped, but a number is whole or wrong.
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
			if !isWhole(cell, width) {
				width = min(width, room)
			}
			least[i] = max(least[i], width)
		}
	}
	return least
}

// isWhole reports whether a cell is a number, an age or a time, which says something else once it is cut. A name that begins with a
// digit is longer, or short enough.
func isWhole(cell string, width int) bool {
	return cell != "" && cell[0] >= '0' && cell[0] <= '9' && width <= len("2030-01-02 15:04")
}

// narrowed brings a table that does not fit the screen, however much its columns give way, into a form that does: first with one
// blank between two columns, then without columns that say nothing in any row, then without those before the last one. gap is how
// many blanks are between two columns.
func narrowed(header table.Row, rows []table.Row, width int) (table.Row, []table.Row, int) {
	fits := func(last, gap int) bool {
		total := 0
		for _, w := range minWidths(header, rows, last) {
			total += w + gap
		}
		return total <= width
	}
	if width == 0 || fits(minLast, around) {
		return header, rows, around
	}
	for !fits(narrowLast, 1) && len(header) > 2 {
		leave := len(header) - 2
		for i := leave; i > 0; i-- {
			if saysNothing(rows, i) {
				leave = i
				break
			}
		}
		header = slices.Delete(slices.Clone(header), leave, leave+1)
		rows = slices.Clone(rows)
		for i, row := range rows {
			if leave < len(row) {
				rows[i] = slices.Delete(slices.Clone(row), leave, leave+1)
			}
		}
	}
	return header, rows, 1
}

// saysNothing reports whether a column has nothing but zeros and empty cells.
func saysNothing(rows []table.Row, column int) bool {
	return !slices.ContainsFunc(rows, func(row table.Row) bool {
		return column < len(row) && !slices.Contains([]string{"", "-", "0", "0s"}, fmt.Sprint(row[column]))
	})
}

// fitting returns how wide each column may be, with gap columns between two, so that no line is longer than width: the last
// column gives way first, then the widest of the others, then the last one once more. It is nil without a width. A screen that is
// too narrow for all columns gets longer lines.
func fitting(header table.Row, rows []table.Row, width, gap int) []int {
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
	give := func(column, least int) {
		// by is never negative: a table that fits gives nothing away.
		by := min(max(total-width, 0), max(widths[column]-least, 0))
		widths[column], total = widths[column]-by, total-by
	}
	// The last column can be wrapped, so it loses nothing.
	give(last, minLast)
	// One column of width at a time, from the widest, keeps the columns alike. There are few columns and some
	// hundred at most to take away.
	for total > width {
		widest := -1
		for i, w := range widths[:last] {
			if w > least[i] && (widest < 0 || w > widths[widest]) {
				widest = i
			}
		}
		// All are as narrow as allowed.
		if widest < 0 {
			break
		}
		give(widest, widths[widest]-1)
	}
	give(last, narrowLast)
	return widths
}
