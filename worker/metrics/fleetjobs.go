package metrics

import "github.com/gofer-mq/gofer/jobs"

// writeFleetJobs writes the jobs of the fleet by queue and state. Without shared counts there are no samples, because zeros would
// be wrong. gofer_jobs_waiting leaves out running jobs; gofer_consumer_ack_pending has them.
func (m *Registry) writeFleetJobs(p *page) {
	if m.gauges.FleetJobs == nil {
		return
	}
	queues := m.gauges.FleetJobs()
	if queues == nil {
		return
	}
	// The sums are computed before anything is written, because the samples of a metric must be together.
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
	// The series of the queues that this worker serves always exist, also with the value zero.
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
