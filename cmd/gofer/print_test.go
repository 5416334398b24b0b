package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/jedib0t/go-pretty/v6/table"
)

func TestColumnsGiveWayUntilALineFitsTheScreen(t *testing.T) {
	t.Parallel()
	header := table.Row{"job", "state", "reason"}
	rows := []table.Row{{strings.Repeat("j", 60), "failed", strings.Repeat("r", 100)}}
	for _, c := range []struct {
		width int
		want  []int
	}{{0, nil}, {300, []int{60, 6, 100}}, {120, []int{60, 6, 48}}, {80, []int{48, 6, 20}}, {20, []int{9, 6, 12}}} {
		if got := fitWidths(header, rows, c.width, cellPadding); !slices.Equal(got, c.want) {
			t.Errorf("%d columns: got %v, want %v", c.width, got, c.want)
		}
	}
}

func TestNoLineOfATableEndsWithABlank(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	s := &stream{to: &out}
	if err := s.table(table.Row{"queue", "state"}, []table.Row{{"low", "a long state"}, {"high", ""}}); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.Contains(got, " \n") || strings.Contains(got, "\x1b") || strings.Count(got, "\n") != 3 {
		t.Errorf("table: got %q, want three lines without blanks at the end, and no colour in a file", got)
	}
}

func TestColoursStandForStatesOnly(t *testing.T) {
	t.Parallel()
	for cell, want := range map[string]string{"ready": green + "ready" + plain, "open": red + "open" + plain, "half open": yellow + "half open" + plain, "readymade": "readymade"} {
		if got := colourCell(cell); got != want {
			t.Errorf("%s: got %q, want %q", cell, got, want)
		}
	}
}

func TestLargeNumbersAreGrouped(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := withCommas(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}
