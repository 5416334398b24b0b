package waiting

// Overlook takes the entries of all jobs but the first n away, as if a replica that is behind had not shown them.
func (c *Counter) Overlook(n int) {
	for i := n; i < c.table.n; i++ {
		c.table.at(i).state = gone
	}
	c.table.compact(nil)
}
