package jobs

// Fields of what gofer writes. Default says when a field is there, and is empty for one that always is.

// RetryEventFields describes the members of a retry event.
func RetryEventFields() []Field {
	return []Field{
		{"job_id", "string", "", "", "the job's id", patternRule(jobIDPattern)},
		{"queue", "string", "", "", "the job's queue", patternRule(queuePattern)},
		{"attempt", "integer", "", "", "the attempt that failed, counted from 1", countRule(0)},
		{"max_attempts", "integer", "", "", "how many attempts the job may have", countRule(1)},
		{"proxy", "string", "", "", "the proxy's id, empty of a direct attempt", textRule()},
		{"status", "integer", "", "", "status of the answer, 0 without one", countRule(0)},
		{"fault", "string", "", "", "who caused the failure", faultRule()},
		{"error", "string", "", "", "a sentence without credentials", textRule()},
		{"delay", "seconds", "", "", "the delay before the next attempt", with(numberRule(), rule{"minimum": 0})},
		{"next_attempt_at", "time", "", "", "when the next attempt begins at the earliest", timeRule()},
		{"kind", "string", "", "`inline`, `scheduled`", "whether the worker waits or the job is scheduled", choiceRule(RetryInline, RetryScheduled)},
		{"worker", "string", "", "", "the worker's name", textRule()},
		{"at", "time", "", "", "when the attempt failed", timeRule()},
	}
}

// BreakerEventFields describes the members of a breaker event.
func BreakerEventFields() []Field {
	state := func() rule { return choiceRule("closed", "open", "half_open") }
	return []Field{
		{"proxy_id", "string", "", "", "the proxy's id", patternRule(proxyIDPattern)},
		{"from_state", "string", "", "`closed`, `open`, `half_open`", "the state before", state()},
		{"to_state", "string", "", "`closed`, `open`, `half_open`", "the state after", state()},
		{"timestamp", "time", "", "", "when the state changed", timeRule()},
		{"reason", "string", "", "", "why", textRule()},
		{"failure_count", "integer", "", "", "failures within the window", countRule(0)},
		{"next_test_time", "time or null", "", "", "when an open breaker lets a test through; null in other states", nullTimeRule()},
		{"worker", "string", "", "", "the worker whose breaker it is", textRule()},
	}
}

// PoolEventFields describes the members of a pool event.
func PoolEventFields() []Field {
	return []Field{
		{"worker", "string", "", "", "the worker's name", textRule()},
		{"failing", "boolean", "", "", "whether all proxies that worked fail at once", booleanRule()},
		{"timestamp", "time", "", "", "when that changed", timeRule()},
		{"reason", "string", "", "", "a sentence", textRule()},
	}
}

// SiteEventFields describes the members of a site event.
func SiteEventFields() []Field {
	state := func() rule { return choiceRule("new", "up", "resting", "testing") }
	return []Field{
		{"site", "string", "", "", "host and port, the default port left out", textRule()},
		{"from_state", "string", "", "`new`, `up`, `resting`, `testing`", "the state before", state()},
		{"to_state", "string", "", "`new`, `up`, `resting`, `testing`", "the state after", state()},
		{"timestamp", "time", "", "", "when the state changed", timeRule()},
		{"reason", "string", "", "", "why", textRule()},
		{"next_test_time", "time or null", "", "", "when a resting site is tested; null in other states", nullTimeRule()},
		{"worker", "string", "", "", "the worker that saw it", textRule()},
	}
}

// DuplicateEventFields describes the members of a duplicate event.
func DuplicateEventFields() []Field {
	return []Field{
		{"job_id", "string", "", "", "the job's id", patternRule(jobIDPattern)},
		{"queue", "string", "", "", "the job's queue", patternRule(queuePattern)},
		{"job_seq", "integer", "", "", "sequence of the job that came too late", countRule(0)},
		{"stored_seq", "integer", "", "", "sequence of the job whose result is kept", countRule(0)},
		{"worker", "string", "", "", "the worker's name", textRule()},
		{"at", "time", "", "", "when the duplicate ended", timeRule()},
	}
}

// ProblemFields describes the payload of a job that did not succeed (RFC 9457).
func ProblemFields() []Field {
	return []Field{
		{"type", "string", "", "", "`urn:gofer:error:` and the code", patternRule("^urn:gofer:error:[a-z_]+$")},
		{"title", "string", "", "", "a sentence that goes with the code", textRule()},
		{"detail", "string", "if there is more to say", "", "a sentence about this job", textRule()},
		{"error", "string", "", "a code", "as `Gofer-Error`", choiceRule(ErrorCodes()...)},
		{"reasons", "list of strings", "of an invalid job", "", "what is wrong with the job", listRule(textRule())},
		{"attempts", "list of objects", "", "", "the attempts that were made", listRule(writtenRule(AttemptFields()))},
	}
}

// AttemptFields describes an attempt in the payload of a job that did not succeed.
func AttemptFields() []Field {
	return []Field{
		{"attempt", "integer", "", "", "counts from 1", countRule(1)},
		{"proxy", "string", "", "", "the proxy's id, empty of a direct attempt", textRule()},
		{"region", "string", "", "", "the proxy's region", textRule()},
		{"exit", "string", "through a gateway with words", "", "the word of its exit", textRule()},
		{"started_at", "time", "", "", "when it began", timeRule()},
		{"duration", "seconds", "", "", "how long it took", with(numberRule(), rule{"minimum": 0})},
		{"status", "integer", "", "", "status of the answer, 0 without one", countRule(0)},
		{"phase", "string", "", "", "how far it came", choiceRule("connect", "proxy", "tls", "send", "wait", "body", "done")},
		{"phases", "object of seconds", "if it came far enough", "", "how long each phase took", rule{"type": "object", "additionalProperties": numberRule()}},
		{"fault", "string", "", "", "who caused the failure", faultRule()},
		{"error", "string", "", "", "a sentence without credentials", textRule()},
		{"hedge", "boolean", "of an attempt that lost beside another one", "", "true", booleanRule()},
	}
}

// ResultFields describes the headers of a result, apart from those that begin with `Gofer-Meta-` or `Http-`. Values are text.
func ResultFields() []Field {
	decimal := func() rule { return patternRule(decimalPattern) }
	count := func() rule { return patternRule("^[0-9]+$") }
	return []Field{
		{HeaderJobID, "string", "", "", "the job's id, as in the subject", patternRule(jobIDPattern)},
		{HeaderQueue, "string", "", "", "the job's queue, as in the subject", patternRule(queuePattern)},
		{HeaderJobSeq, "integer", "unless nobody knows it", "", "the job's sequence in `GOFER_JOBS`", count()},
		{HeaderOutcome, "string", "", "", "`succeeded` (an answer, whatever its status), `failed`, `cancelled`", choiceRule(Succeeded, Failed, Cancelled)},
		{HeaderError, "string", "only when not succeeded", "", "the reason", choiceRule(ErrorCodes()...)},
		{HeaderStatus, "integer", "if there was an answer", "", "the last HTTP status of the target", patternRule("^[1-9][0-9]{2}$")},
		{HeaderURL, "string", "unless the job has none", "", "the final URL, after redirects", textRule()},
		{HeaderAttempts, "integer", "", "", "attempts made in all", count()},
		{HeaderBytes, "integer", "", "", "bytes received on connections to proxies in all, TLS and CONNECT included", count()},
		{HeaderProxy, "string", "if one was used", "", "the id of the last proxy", patternRule(proxyIDPattern)},
		{HeaderExit, "string", "if that proxy is a [gateway](../rotation/README.md#gateways) with words", "", "the word of the last exit", textRule()},
		{HeaderDuration, "seconds", "", "", "seconds from the first attempt to the end", decimal()},
		{HeaderWorker, "string", "if known", "", "the worker that ended the job, or the client that cancelled it", textRule()},
		{HeaderFinishedAt, "time", "", "", "when the job ended", timeRule()},
		{HeaderObject, "string", "of a body over 512 KiB, which is not in the payload", "", "`bucket/name`", textRule()},
		{HeaderObjectDigest, "string", "with `Gofer-Object`", "", "`SHA-256=` and base64url of its digest", patternRule("^SHA-256=[A-Za-z0-9_-]+=*$")},
		{HeaderHeadersTruncated, "boolean", "when response headers were left out", "", "`true`", choiceRule("true")},
		{HeaderOmitted, "string", "absent unless an owner lowered a limit", "", "what the stream refused for its size, comma separated: `headers`, `attempts`, `meta`, `url`, `body`", patternRule("^(headers|attempts|meta|url|body)(,(headers|attempts|meta|url|body))*$")},
		{HeaderTraceParent, "string", "if the job's message had a valid one", "", "W3C trace context of the job", patternRule("^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?$")},
		{HeaderTraceState, "string", "if the job's message had a valid one", "", "W3C trace state of the job", with(textRule(), rule{"maxLength": maxTraceState})},
	}
}

// faultRule lists the faults. The empty one is among them.
func faultRule() rule {
	return choiceRule(string(FaultNone), string(FaultProxy), string(FaultTarget), string(FaultPair), string(FaultUnclear))
}

// ErrorCodes are the values of Gofer-Error.
func ErrorCodes() []string {
	return []string{
		ErrInvalidJob, ErrExpired, ErrTimedOut, ErrNoProxy, ErrSiteDown, ErrAttemptsExhausted, ErrPermanent, ErrBodyTooLarge,
		ErrTooManyRedirects, ErrTargetDenied, ErrCancelled,
	}
}
