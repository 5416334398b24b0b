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

// What is written before the first drawing and after the last one: it switches the alternate screen, the cursor, and the
// wrapping of lines.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
)

// screen is a terminal that a verb draws on as a whole, on the alternate screen, so that the shell's lines are there again at the
// end. While it is open, the terminal is in raw mode and standard error is muted. One goroutine draws, and readKeys is another
// one.
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
	unmute, restoreMode := func() {}, func() {}
	// Standard error may be the same terminal. Elsewhere, such as in a file, the log goes on.
	if a.err.isTerminal() {
		unmute = a.err.mute()
	}
	if a.keyboard != nil {
		fd := int(a.keyboard.Fd())
		// Without raw mode the terminal would hand over a key only with the next line end, and would show it.
		before, err := term.MakeRaw(fd)
		if err != nil {
			return nil, fmt.Errorf("read single keys: %w", err)
		}
		restoreMode = func() { _ = term.Restore(fd, before) }
		// A blocked read of a terminal cannot be ended, so nobody waits for this goroutine: it ends with the program.
		go s.readKeys()
	}
	// The mode of the terminal comes first: it matters even if writing fails.
	s.close = sync.OnceFunc(func() {
		restoreMode()
		_ = a.out.print(leaveScreen)
		unmute()
	})
	// Before the first byte is drawn: a forced end may come at any time, and a shell cannot use a terminal in raw mode.
	a.interrupts.setRestore(restoreMode, s.close)
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
		// A channel can be closed only once, so the goroutine ends with it.
		case 'q', 'Q':
			close(s.quit)
			return
		case 'C' & 0x1f: // Ctrl-C is C without its upper bits
			s.app.interrupts.signal()
		}
	}
}

// resized updates the size, and reports whether it differs from that of the last call. Callers poll it, because not every
// system sends a signal for a new size.
func (s *screen) resized() bool {
	width, height := s.app.out.size()
	// A terminal that does not know its size, such as a serial line, gets the size of a classic one.
	if width == 0 || height == 0 {
		width, height = 80, 24
	}
	same := width == s.width && height == s.height
	s.width, s.height = width, height
	return !same
}

// draw replaces what the screen shows. lines returns lines that are safe for a terminal, as many as fit. A line is cleared
// before it is written: after its last column, a terminal would clear that column.
func (s *screen) draw(lines func(l look, height int) []string) error {
	_ = s.resized()
	var frame strings.Builder
	shown := lines(look{width: s.width, coloured: s.app.out.isColoured(), dense: true}, s.height)
	// The lines are overwritten from the first one on: to clear the whole screen would flicker.
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
	// One write for the whole frame: a terminal that shows half of one would flicker.
	return s.app.out.print(frame.String())
}

// panel is a table on a screen, with sentences below it. If the room does not suffice, the last rows and notes are left out:
// callers put what is in trouble first.
type panel struct {
	header table.Row
	rows   []table.Row
	total  int    // how many rows there are, if rows does not have all
	none   string // is shown instead of an empty table
	notes  []string
}

// stack puts panels one below the other within height lines; zero means no bound. Small panels get the lines that they need, and
// large ones equal shares of the rest: a fleet with a thousand proxies must not push the three queues off the screen.
func stack(panels []panel, l look, height int) (lines []string) {
	room, order := make([]int, len(panels)), make([]int, len(panels))
	for i, p := range panels {
		room[i], order[i] = 2+len(p.rows)+len(p.notes), i
		// One more line says how many rows are left out.
		if p.total > len(p.rows) {
			room[i]++
		}
	}
	// The smallest panel gets its lines first. What it leaves of its equal share goes to the larger ones.
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

// lines returns an empty line and the panel, in at most room lines. If rows do not fit, a line says how many are left out.
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
	// Rows may be missing for two reasons: there is no room, or the workers were asked for the first ones only.
	if more := max(p.total, len(p.rows)) - len(rows); more > 0 {
		out = append(out, fmt.Sprintf("… %d more", more))
	}
	out = append(out, notes...)
	return out[:min(len(out), max(room, 0))]
}
