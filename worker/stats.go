package worker

import "sync/atomic"

// stats holds the counters of the loop.
type stats struct {
	taken, redelivered, scheduled, handedBack, leasesLost, duplicates, deadLetters atomic.Int64
}

// Stats counts what a Worker has done since New.
type Stats struct {
	// Taken counts delivered jobs, Redelivered those among them that were delivered before.
	Taken, Redelivered int64
	// Parked counts jobs that were scheduled, HandedBack those that were handed back.
	Parked, HandedBack int64
	// Lost counts jobs whose lease ran out here, Duplicates second results of an id, Dead dead letters.
	Lost, Duplicates, Dead int64
	// InFlight is the number of running jobs by queue.
	InFlight map[string]int
}

// Stats reads the counters.
func (w *Worker) Stats() Stats {
	return Stats{
		Taken: w.stats.taken.Load(), Redelivered: w.stats.redelivered.Load(), Parked: w.stats.scheduled.Load(),
		HandedBack: w.stats.handedBack.Load(), Lost: w.stats.leasesLost.Load(), Duplicates: w.stats.duplicates.Load(),
		Dead: w.stats.deadLetters.Load(), InFlight: w.jobs.queues(),
	}
}
