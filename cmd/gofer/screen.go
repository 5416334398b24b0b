package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/jedib0t/go-pretty/v6/table"
	wrap "github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"
)

// What a terminal gets before the first drawing and after the last one: the alternate screen, the cursor, and the wrapping of
// lines.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
)

// screen is a terminal on which a verb draws as a whole. One goroutine draws. readKeys is the only other one, and
// closes quit.
type screen struct {
	app           *app
	quit          chan struct{} // closed when q is pressed
	width, height int           // zero until the first call of resized
	close         func()        // leaves the terminal as it was; further calls do nothing
}

// openScreen takes over the terminal that standard output is. Keys are read if standard input is a terminal: Ctrl-C acts like
// SIGINT. The caller closes the screen. It is also closed if the process is ended by force.
func (a *app) openScreen() (*screen, error) {
	s := &screen{app: a, quit: make(chan struct{})}
	// Both do nothing until there is something to undo.
	unmute, cooked := func() {}, func() {}
	if a.err.isTerminal() {
		unmute = a.err.mute()
	}
	if a.keyboard != nil {
		fd := int(a.keyboard.Fd())
		before, err := term.MakeRaw(fd)
		if err != nil {
			return nil, fmt.Errorf("read single keys: %w", err)
		}
		cooked = func() { _ = term.Restore(fd, before) }
		go s.readKeys() // its read ends with the program
	}
	// The mode of the terminal comes first: it matters even if nothing can be written any more.
	s.close = sync.OnceFunc(func() {
		cooked()
		_ = a.out.print(leaveScreen)
		unmute()
	})
	a.interrupts.restoring(cooked, s.close)
	if err := a.out.print(enterScreen); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// readKeys waits for a key that ends the screen. In raw mode Ctrl-C is a key like any other. It ends at the first
// error, such as the end of the input.
func (s *screen) readKeys() {
	key := make([]byte, 1)
	for {
		if _, err := s.app.in.Read(key); err != nil {
			return
		}
		switch key[0] {
		case 'q', 'Q':
			close(s.quit)
			return
		// A control character is the letter without its upper bits.
		case 'C' & 0x1f: // Ctrl-C
			s.app.interrupts.signal()
		}
	}
}

// resized reports whether the size differs from that of the last call. A terminal that does not know its size has
// the usual one. It is asked often, because a signal for a new size does not exist on every system.
func (s *screen) resized() bool {
	width, height := s.app.out.size()
	if width == 0 || height == 0 {
		width, height = 80, 24
	}
	same := width == s.width && height == s.height
	s.width, s.height = width, height
	return !same
}

// draw replaces what the screen shows by lines that are safe for a terminal; lines makes as many as fit. A line is cleared before
// it is written: after the last column a terminal would clear that one.
func (s *screen) draw(lines func(l look, height int) []string) error {
	_ = s.resized()
	var frame strings.Builder
	// A terminal may have changed its size since the last drawing.
	shown := lines(look{width: s.width, coloured: s.app.out.isColoured(), dense: true}, s.height)
	// The cursor goes home and the lines are overwritten: clearing the whole screen would flicker.
	frame.WriteString("\x1b[H")
	for i, line := range shown[:min(len(shown), s.height)] {
		if i > 0 {
			frame.WriteString("\r\n")
		}
		frame.WriteString("\x1b[K" + wrap.Snip(line, s.width, "…"))
	}
	if len(shown) < s.height {
		frame.WriteString("\r\n\x1b[J")
	}
	return s.app.out.print(frame.String())
}

// panel is a table on a screen, with sentences below it. rows and notes are in the order of importance, because the
// last ones are left out first.
type panel struct {
	header table.Row
	rows   []table.Row
	total  int    // how many rows there would be, if that is more than rows has
	none   string // stands there instead of an empty table
	notes  []string
}

// stack puts panels one below the other within height lines; zero means no bound. Each gets the lines that it wants, or as many
// as leave the others their share. The panels keep their order; only the room is given by size.
func stack(panels []panel, l look, height int) (lines []string) {
	room, order := make([]int, len(panels)), make([]int, len(panels))
	for i, p := range panels {
		room[i], order[i] = 2+len(p.rows)+len(p.notes), i
		// One more line says how many rows are left out.
		if p.total > len(p.rows) {
			room[i]++
		}
	}
	// The smallest panel is served first: what it does not need is shared by the larger ones.
	slices.SortStableFunc(order, func(a, b int) int { return room[a] - room[b] })
	for n, i := range order {
		if height > 0 {
			room[i] = min(room[i], height/(len(order)-n))
			height = max(height-room[i], 1)
		}
	}
	for i, p := range panels {
		lines = append(lines, p.lines(l, room[i])...)
	}
	return lines
}

// lines are a panel below an empty line. Where they are more than there is room for, the last one says how many rows are left
// out. A room of less than two lines shows no more than the empty line and the header.
func (p panel) lines(l look, room int) []string {
	out, rows, notes := []string{"", p.none}, p.rows, p.notes
	if left := room - 2; len(rows)+len(notes) > left || p.total > len(rows) {
		// Notes get a third of the room at most: rows matter more.
		notes = notes[:min(len(notes), max(left/3, 0))]
		rows = rows[:min(len(rows), max(left-len(notes)-1, 0))]
	}
	if len(p.rows) > 0 {
		out = append(out[:1], strings.Split(render(p.header, rows, l), "\n")...)
	}
	if more := max(p.total, len(p.rows)) - len(rows); more > 0 {
		out = append(out, fmt.Sprintf("… %d more", more))
	}
	out = append(out, notes...)
	return out[:min(len(out), max(room, 0))]
}
