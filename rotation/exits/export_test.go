package exits

// Sessions returns how many sessions are remembered.
func (w *Words) Sessions() int { return len(w.young) + len(w.old) }
