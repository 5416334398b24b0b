package metrics

import "slices"

// Family is one metric family of the page: its name, its type (counter, gauge or histogram) and its help text. A change of a name
// or of a meaning breaks dashboards, so it needs an entry in the changelog.
type Family struct{ Name, Type, Help string }

// Families lists every metric that a page can have. Tests compare dashboards, alert rules and documents with this list.
func Families() []Family { return slices.Concat(workFamilies(), poolFamilies(), fleetFamilies()) }

// workFamilies lists the metrics of the worker, its jobs and their attempts.
func workFamilies() []Family {
	return []Family{
		{"gofer_build_info", "gauge", "Always 1; the labels name the version, the revision of the source and the Go release of the build."},
		{"gofer_config_hash_info", "gauge", "Always 1; workers with the same hash have the same configuration, apart from credentials and what differs by machine."},
		{"gofer_scrape_duration_seconds", "gauge", "Time to make this page."},
		{"gofer_ready", "gauge", "1 while the worker is ready for jobs."},
		{"gofer_draining", "gauge", "1 while the worker finishes its running jobs and takes no new jobs."},
		{"gofer_slots", "gauge", "Jobs that the worker may run at once."},
		{"gofer_jobs_in_flight", "gauge", "Running jobs by queue."},
		{"gofer_jobs_received_total", "counter", "Jobs taken from the streams by queue, repeated deliveries included."},
		{"gofer_job_queue_wait_seconds", "histogram", "Time from the moment a job could run (stored, or due) to its first delivery to a worker."},
		{"gofer_job_redeliveries_total", "counter", "Jobs received that had been delivered before and not ended, by queue."},
		{"gofer_jobs_parked_total", "counter", "Jobs scheduled again to wait for their time, a retry, a proxy or a site."},
		{"gofer_jobs_overdue_total", "counter", "Waiting jobs that the server had not released at their time and that this worker released."},
		{"gofer_jobs_handed_back_total", "counter", "Jobs handed back, so that another worker takes them."},
		{"gofer_leases_lost_total", "counter", "Jobs given up because their job lease could not be renewed."},
		{"gofer_duplicate_results_total", "counter", "Results that were not stored because the job had a result."},
		{"gofer_dead_jobs_total", "counter", "Dead letters by the error code of the job."},
		{"gofer_jobs_total", "counter", "Ended jobs by queue and outcome."},
		{"gofer_job_duration_seconds", "histogram", "Time from a job's first attempt to its end, by outcome; cancelled jobs are left out."},
		{"gofer_attempts_per_job", "histogram", "Attempts that ended jobs have made."},
		{"gofer_attempts_total", "counter", "Ended attempts by outcome and, for failed ones, by reason."},
		{"gofer_attempt_duration_seconds", "histogram", "Time that an attempt took, by outcome."},
		{"gofer_response_bytes_total", "counter", "Bytes received over proxies and directly."},
		{"gofer_response_size_bytes", "histogram", "Bytes received by an attempt that brought an answer."},
		{"gofer_retries_total", "counter", "Announced retries by kind (inline: waits in the worker, scheduled: waits in the stream) and by the fault of the failed attempt."},
		{"gofer_retries_held_total", "counter", "Retries that waited longer because the retry budget was used up."},
		{"gofer_hedges_total", "counter", "Attempts that began beside a slow attempt, by outcome: won (the hedge brought the job's result), lost (the slow attempt did), failed (neither did)."},
		{"gofer_host_waits_total", "counter", "Times that a job had to wait because of GOFER_HOST_RATE or GOFER_HOST_CONCURRENCY."},
		{"gofer_site_waits_total", "counter", "Times that a job had to wait for its site, by the state of the site: resting, testing, returning, or new."},
		{"gofer_retry_delay_seconds", "histogram", "Announced delays of retries."},
	}
}

// poolFamilies lists the metrics of proxies, breakers and sites.
func poolFamilies() []Family {
	return []Family{
		{"gofer_proxies", "gauge", "Proxies of the pool by the state of their breaker."},
		{"gofer_proxies_avoided", "gauge", "Proxies that are used only if nothing else is left, because other workers found them dead."},
		{"gofer_sites", "gauge", "Sites that the worker remembers by state: resting (tests included), returning, or other."},
		{"gofer_sites_followed", "gauge", "Sites that rest because of a finding of another worker."},
		{"gofer_site_releases_total", "counter", "Jobs that waited for a site and that this worker released, as the leader of the fleet."},
		{"gofer_pool_failing", "gauge", "1 while all working proxies, five or more, fail at the same time: an outage."},
		{"gofer_proxy_selections_total", "counter", "Proxies picked, by strategy."},
		{"gofer_proxy_selection_duration_seconds", "histogram", "Time of a pick, whether it found a proxy or not."},
		{"gofer_proxy_exhausted_total", "counter", "Picks that found no proxy, by reason: the pool is empty, no proxy matches, none of those that match can be used, or an outage of the pool."},
		{"gofer_breaker_transitions_total", "counter", "Breaker changes by the state before and the state after."},
		{"gofer_idle_connections", "gauge", "Idle connections that a later attempt may use."},
	}
}

// fleetFamilies lists the metrics of NATS, the fleet's rollups and, on request, the single proxies.
func fleetFamilies() []Family {
	return []Family{
		{"gofer_nats_connected", "gauge", "1 while the connection to NATS is up."},
		{"gofer_nats_reconnects_total", "counter", "Reconnects to NATS."},
		{"gofer_nats_async_errors_total", "counter", "Errors that NATS reported outside a call, by kind."},
		{"gofer_nats_rtt_seconds", "gauge", "Round-trip time to the NATS server, measured every 5 seconds; 0 before the first measurement."},
		{"gofer_acks_total", "counter", "Answers about jobs by kind and by whether the server confirmed them: lease renewals (heartbeat), ended jobs (ack), jobs handed back."},
		{"gofer_publishes_total", "counter", "Messages by kind and outcome: stored results, jobs stored to wait (retry), dead letters, events, rollups."},
		{"gofer_publish_duration_seconds", "histogram", "Time until the server confirmed a message: a result, a waiting job, a dead letter, an event."},
		{"gofer_jobs_waiting", "gauge", "Jobs of the fleet that nobody runs, by queue and by why: the states of the message contract. Every worker reports the same number: take the maximum."},
		{"gofer_oldest_job_seconds", "gauge", "How long the oldest job of the fleet has been in a state, by queue; 0 without such a job. Every worker reports the same number: take the maximum."},
		{"gofer_jobs_overdue", "gauge", "Waiting jobs of the fleet that the server has not released at their time. Every worker reports the same number: take the maximum."},
		{"gofer_consumer_pending", "gauge", "Jobs of a queue that no worker has taken yet. Every worker reports the same number: take the maximum."},
		{"gofer_consumer_ack_pending", "gauge", "Jobs of a queue that workers hold. Every worker reports the same number: take the maximum."},
		{"gofer_consumer_redelivered", "gauge", "Jobs that workers hold and that were delivered more than once, summed over the queues of this worker."},
		{"gofer_consumer_waiting", "gauge", "Open pull requests of workers, summed over the queues of this worker."},
		{"gofer_rollup_jobs", "gauge", "Jobs that the fleet ended in the running or the previous hour, by outcome. Every worker reports the same number: take the maximum."},
		{"gofer_rollup_attempts", "gauge", "Attempts of the fleet that ended in the hour: take the maximum."},
		{"gofer_rollup_retries", "gauge", "Retries that the fleet announced in the hour: take the maximum."},
		{"gofer_rollup_bytes", "gauge", "Bytes that the fleet received in the hour: take the maximum."},
		{"gofer_rollup_breaker_opens", "gauge", "Times that a breaker opened in some worker in the hour: take the maximum."},
		{"gofer_rollup_success_ratio", "gauge", "Share of the fleet's jobs of the hour that succeeded; 0 if no job ended."},
		{"gofer_rollup_job_duration_seconds", "gauge", "Percentiles of the fleet's job durations in the hour."},
		{"gofer_rollup_start_timestamp_seconds", "gauge", "When the hour began."},
		{"gofer_rollup_flushes_total", "counter", "Flushes of the hourly rollups to the fleet's stream by outcome."},
		{"gofer_proxy_attempts_total", "counter", "Ended attempts by proxy; only with ?proxies."},
		{"gofer_proxy_failures_total", "counter", "Failed attempts for which somebody is to blame, by proxy; only with ?proxies."},
		{"gofer_proxy_received_bytes_total", "counter", "Bytes received by proxy; only with ?proxies."},
		{"gofer_proxy_latency_seconds", "gauge", "Moving average of the durations of a proxy's attempts; only with ?proxies."},
		{"gofer_proxy_state", "gauge", "Breaker of the proxy: 0 closed, 1 half open, 2 open; only with ?proxies."},
	}
}
