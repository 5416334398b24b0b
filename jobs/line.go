package jobs

import "cmp"

// DecodeLine reads a job as people write it: a payload as Decode reads it, whose object may also have the members id and queue.
// fill adds what the writer has left out, before the values are checked. The job is as fill left it; one without an id or a queue is
// valid. The error is that of Decode.
func DecodeLine(line []byte, fill func(*Job)) (Job, error) {
	var job, filled Job
	field := func(name string) any {
		switch name {
		case "id":
			return &job.ID
		case "queue":
			return &job.Queue
		}
		return job.field(name)
	}
	// The check completes the job, and the writer's own is returned.
	reasons := job.read(line, field, func() { fill(&job); filled = job })
	return filled, asError(append(nameReasons(cmp.Or(filled.Queue, DefaultQueue), cmp.Or(filled.ID, "unnamed")), reasons...))
}
