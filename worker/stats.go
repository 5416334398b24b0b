package worker

import "sync/atomic"

// stats holds the counters of the loop. Each counts for itself, so sums of two of them may be a job apart.
type stats struct {
	taken, redelivered, scheduled, handedBack, leasesLost, duplicates, deadLetters atomic.Int64
}

// Stats counts what a Worker has done since New.
type Stats struct {
	// Taken counts delivered jobs, Redelivered those among them that were delivered before.
	Taken, Redelivered int64
	// Scheduled counts jobs that were scheduled, HandedBack those that were handed back.
	Scheduled, HandedBack int64
	// LeasesLost counts jobs whose lease ran out here, Duplicates second results of an id, DeadLetters dead letters.
	LeasesLost, Duplicates, DeadLetters int64
	// InFlight is the number of running jobs by queue.
	InFlight map[string]int
}

// Stats reads the counters.
func (w *Worker) Stats() Stats {
	return Stats{
		Taken: w.stats.taken.Load(), Redelivered: w.stats.redelivered.Load(), Scheduled: w.stats.scheduled.Load(),
		HandedBack: w.stats.handedBack.Load(), LeasesLost: w.stats.leasesLost.Load(), Duplicates: w.stats.duplicates.Load(),
		DeadLetters: w.stats.deadLetters.Load(), InFlight: w.jobs.queues(),
	}
}
