package worker

import "sync/atomic"

// stats are the loop's own counters.
type stats struct {
	taken, redelivered, parked, handedBack, lost, duplicates, dead atomic.Int64
}

// Stats is a reading of what the loop has done since it was made.
type Stats struct {
	// Taken counts jobs received, Redelivered those among them that somebody had before.
	Taken, Redelivered int64
	// Parked counts jobs that went back to wait, HandedBack those that went back untouched.
	Parked, HandedBack int64
	// Lost counts jobs whose lease ran out here; Duplicates results that came second; Dead dead letters.
	Lost, Duplicates, Dead int64
	// InFlight is the number of running jobs by queue.
	InFlight map[string]int
}

// Stats reads the counters.
func (w *Worker) Stats() Stats {
	return Stats{
		Taken: w.stats.taken.Load(), Redelivered: w.stats.redelivered.Load(), Parked: w.stats.parked.Load(),
		HandedBack: w.stats.handedBack.Load(), Lost: w.stats.lost.Load(), Duplicates: w.stats.duplicates.Load(),
		Dead: w.stats.dead.Load(), InFlight: w.jobs.queues(),
	}
}
