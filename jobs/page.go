package jobs

// PageJob is a job that fetches a page to test a proxy: it fails where there is no proxy, and no queue holds it. The error says
// why url is none that a job may fetch.
func PageJob(url string) (Job, error) {
	job := Job{Queue: "check", ID: "check", URL: url, WhenNoProxy: NoProxyFail}
	payload, err := job.Encode()
	if err != nil {
		return job, err
	}
	return Decode(job.Queue, job.ID, payload)
}
