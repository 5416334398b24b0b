package main

import (
	"testing"

	"github.com/jedib0t/go-pretty/v6/table"
)

func TestLastColumnOfATableGetsTheRoomThatIsLeft(t *testing.T) {
	t.Parallel()
	rows := []table.Row{{"variable", "default", "meaning"}, {"GOFER_X", "1", "a long sentence"}}
	for _, c := range []struct{ width, want int }{{80, 80 - 2 - 10 - 9}, {30, 20}} {
		if got := roomForLast(rows, c.width); got != c.want {
			t.Errorf("%d columns: got %d for the last one, want %d", c.width, got, c.want)
		}
	}
}
