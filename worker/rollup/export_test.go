package rollup

import "github.com/gofer-mq/gofer/jobs"

// Errors are the ended jobs that did not succeed by their code. The map is the caller's.
func (h *Hour) Errors() map[string]int64 {
	out := h.byLabel(metricJob)
	delete(out, jobs.Succeeded)
	return out
}

// Failures are the failed attempts by reason. The map is the caller's.
func (h *Hour) Failures() map[string]int64 { return h.byLabel(metricFailure) }
