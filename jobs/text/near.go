package text

// Nearest returns the known word with the fewest edits from word, at most limit of them; empty if there is none. An edit inserts,
// deletes or replaces a byte, or swaps two neighbours. Two words of which one is no longer than limit have nothing in common and
// are not near.
func Nearest(word string, known []string, limit int) (best string) {
	least := limit + 1
	for _, k := range known {
		if len(word) > 64 || max(len(word), len(k)) <= limit {
			continue
		}
		if d := distance(word, k); d < least {
			least, best = d, k
		}
	}
	return best
}

// distance is the number of edits between a and b, in bytes: the optimal string alignment distance. It keeps three rows of the
// usual table, whose element j is the distance of what has been read of a and the first j bytes of b.
func distance(a, b string) int {
	older, before, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		older, before, row = before, row, older
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(row[j]+1, before[j+1]+1, before[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], older[j-1]+1)
			}
		}
	}
	return row[len(b)]
}
