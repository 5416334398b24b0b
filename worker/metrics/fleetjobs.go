package metrics

import "github.com/gofer-mq/gofer/jobs"

// writeFleetJobs shows what the queues of the fleet hold. While nobody has counted, there are no samples: zero
// would be wrong. Running jobs are not written as waiting; gofer_consumer_ack_pending has them.
func (m *Registry) writeFleetJobs(p *page) {
	if m.gauges.FleetJobs == nil {
		return
	}
	queues := m.gauges.FleetJobs()
	if queues == nil {
		return
	}
	// Summed first and written next: the format wants the samples of a metric together.
	counts, oldest, overdue := map[[2]string]uint64{}, map[[2]string]float64{}, uint64(0)
	for queue, q := range queues {
		overdue += q.Overdue
		for _, state := range jobs.States() {
			// Queues that this worker does not serve share a label, so their numbers are added up.
			key := [2]string{m.queue(queue), state}
			counts[key] += q.Jobs[state]
			oldest[key] = max(oldest[key], q.Oldest[state])
		}
	}
	p.family("gofer_jobs_waiting")
	// The labels of the worker's own queues are always there, also with zero.
	for _, queue := range m.gauges.Queues {
		for _, state := range jobs.States() {
			if state != jobs.StateRunning {
				p.sample("gofer_jobs_waiting", float64(counts[[2]string{queue, state}]), "queue", queue, "why", state)
			}
		}
	}
	p.family("gofer_oldest_job_seconds")
	for _, queue := range m.gauges.Queues {
		for _, state := range jobs.States() {
			p.sample("gofer_oldest_job_seconds", oldest[[2]string{queue, state}], "queue", queue, "state", state)
		}
	}
	p.one("gofer_jobs_overdue", float64(overdue))
}
