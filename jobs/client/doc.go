// Package client submits fetch jobs to gofer and reads their results. A program needs this package and package jobs, which
// has the types of a job and of a result:
//
//	c, err := client.Open(ctx, client.Config{URL: "nats://127.0.0.1:4222"})
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	result, err := c.Fetch(ctx, jobs.Job{URL: "https://example.com/"})
//
// An error says that gofer could not be asked, or refused the job. A job that gofer took and that failed is no error: its
// Result says why.
//
// Once Submit has returned without an error, the job ends in exactly one stored result, also if this program ends before
// that. Results are kept for 24 h unless the owner of the streams chose another time.
package client
