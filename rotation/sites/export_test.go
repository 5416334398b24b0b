package sites

// Findings returns the rests that this worker found itself. Rests that came by a finding of another worker are left
// out.
func (t *Table) Findings() (all []Finding) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.resting {
		if !s.foreign {
			all = append(all, t.finding(s))
		}
	}
	return all
}
