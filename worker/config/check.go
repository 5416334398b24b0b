package config

import (
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/text"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/worker/admin"
)

// check lists what is out of range. fill ran before it, so every value has its type, and one that had none has its default. A
// reason names the variable and the bound, never the value: a secret may have been pasted into the wrong variable.
func (c *Config) check() (reasons []string) {
	// The name is the first word of each reason, so that a reader can go through the environment from top to
	// bottom.
	bad := func(ok bool, name, why string) {
		if !ok {
			reasons = append(reasons, name+": "+why)
		}
	}
	// The rules of the prefix, the strategies and the retry policy stand in the packages that enforce them.
	_, err := jobs.NewNames(c.Prefix)
	bad(err == nil, "GOFER_PREFIX", "does not match [a-z][a-z0-9_-]{0,31}")
	bad(c.Concurrency >= 1 && c.Concurrency <= 10000, "GOFER_CONCURRENCY", "not between 1 and 10000")
	_, err = rotation.ParseStrategy(c.Strategy)
	bad(err == nil, "GOFER_STRATEGY", "none of round_robin, random, weighted, least_used, performance")
	bad(text.Printable(c.UserAgent) == strings.TrimSpace(c.UserAgent) && len(c.UserAgent) <= 1024, "GOFER_USER_AGENT", "it is no header value: printable characters, at most 1024 bytes")
	bad(c.MaxBodyBytes >= 1 && c.MaxBodyBytes <= 1<<30, "GOFER_MAX_BODY_BYTES", "not between 1 and 1073741824")
	bad(slices.Contains([]string{"debug", "info", "warn", "error"}, strings.ToLower(c.LogLevel)), "GOFER_LOG_LEVEL", "none of debug, info, warn, error")
	bad(slices.Contains([]string{"", "text", "json"}, c.LogFormat), "GOFER_LOG_FORMAT", "neither text nor json")
	bad(c.WorkerName == "" || jobs.ValidID(c.WorkerName), "GOFER_WORKER_NAME", "does not match [A-Za-z0-9_-]{1,128}")
	bad(loopback(c.EmbeddedAddr), "GOFER_EMBEDDED_ADDR", "not a loopback host and a port, such as 127.0.0.1:4222; run a nats-server of your own to serve others")
	bad(!strings.ContainsFunc(c.NATSJSDomain, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(".*>", r) }), "GOFER_NATS_JS_DOMAIN", "not a single token of a subject, such as hub")
	bad(c.HostRate == 0 || c.HostRate >= 0.001 && c.HostRate <= 1e6, "GOFER_HOST_RATE", "neither 0 nor between 0.001 and 1000000")
	bad(c.HostConcurrency >= 0 && c.HostConcurrency <= 10000, "GOFER_HOST_CONCURRENCY", "not between 0 and 10000")
	bad(c.Retry.Budget >= 0 && c.Retry.Budget <= 10, "GOFER_RETRY_BUDGET", "not between 0 and 10")
	reasons = append(reasons, c.checkDurations()...)
	if _, err := c.proxiesURL(); err != nil {
		reasons = append(reasons, err.Error())
	}
	reasons = append(reasons, c.Breaker.check()...)
	reasons = append(reasons, c.Health.check()...)
	reasons = append(reasons, c.Streams.check()...)
	for _, reason := range c.Policy().Reasons() {
		// The reasons of a policy name its fields in JSON.
		field, rest, _ := strings.Cut(reason, ":")
		if _, told := durationBound(retryVariable(field)); !told {
			reasons = append(reasons, retryVariable(field)+":"+rest)
		}
	}
	if err := admin.CheckBind(c.HTTPAddr, c.AdminToken); err != nil {
		reasons = append(reasons, "GOFER_HTTP_ADDR: "+Explain(err))
	}
	// CheckBind has refused what is not a host and a port, so nothing is said twice.
	if _, port, err := net.SplitHostPort(c.HTTPAddr); err == nil {
		n, err := strconv.Atoi(port)
		bad(err != nil || n >= 0 && n <= 65535, "GOFER_HTTP_ADDR", "the port is not between 0 and 65535")
	}
	unsendable := func(r rune) bool { return r <= ' ' || r >= 0x7f }
	bad(len(c.AdminToken) <= 1024 && !strings.ContainsFunc(c.AdminToken, unsendable), "GOFER_ADMIN_TOKEN",
		"longer than 1024 bytes, or with characters that no header can carry: blanks, line ends, others than ASCII")
	return append(reasons, c.checkNATS()...)
}

// checkNATS lists what is wrong with how NATS is reached, before a connection is tried. Files with credentials are read.
func (c *Config) checkNATS() (reasons []string) {
	// Dial puts the embedded address in the place of a missing URL.
	if c.NATSURL == "" && !loopback(c.EmbeddedAddr) {
		return nil // the address that stands in for the URL is named already
	}
	// The empty name is enough for a check.
	dial := c.Dial("")
	if c.NATSURL == "" {
		dial.URL = contextServer // any that is valid: the embedded server may be asked to choose its port
	}
	// The prefix of bus.ErrConfig tells nothing here, where every reason is about the configuration.
	if err := dial.Check(); err != nil {
		for _, line := range Lines(err) {
			reasons = append(reasons, strings.TrimPrefix(line, bus.ErrConfig.Error()+": "))
		}
	}
	return reasons
}

// check accepts a page that a job could fetch as well, because a probe is a job.
func (h healthConfig) check() (reasons []string) {
	if _, err := jobs.PageJob(h.URL); h.URL != "" && err != nil {
		reasons = append(reasons, "GOFER_HEALTH_CHECK_URL: not an absolute http or https URL without user information")
	}
	return reasons
}

// check bounds the threshold, because a breaker keeps a time for each failure in its window. The longest open time may equal the
// first, which switches the doubling off.
func (b breakerConfig) check() (reasons []string) {
	if b.FailureThreshold < 1 || b.FailureThreshold > 1000 {
		reasons = append(reasons, "GOFER_BREAKER_FAILURE_THRESHOLD: not between 1 and 1000")
	}
	if longest, _ := durationBound("GOFER_BREAKER_MAX_TIMEOUT"); b.MaxTimeout < b.Timeout && longest.holds(b.MaxTimeout.Std()) {
		reasons = append(reasons, "GOFER_BREAKER_MAX_TIMEOUT: below GOFER_BREAKER_TIMEOUT")
	}
	return reasons
}

// check accepts the replicas that JetStream can have, except even numbers: four replicas bear no more failures than
// three. Numbers below zero are refused, although JetStream reads -1 as no bound: here that is 0.
func (s streamConfig) check() (reasons []string) {
	for _, limit := range []struct {
		name  string
		value int64
	}{{"GOFER_RESULTS_MAX_BYTES", s.ResultsMaxBytes}, {"GOFER_JOBS_MAX_MSGS", s.JobsMaxMsgs}, {"GOFER_JOBS_MAX_BYTES", s.JobsMaxBytes}} {
		if limit.value < 0 {
			reasons = append(reasons, limit.name+": below zero; 0 means no bound")
		}
	}
	if !slices.Contains([]int{1, 3, 5}, s.Replicas) {
		reasons = append(reasons, "GOFER_REPLICAS: none of 1, 3, 5")
	}
	return reasons
}

// retryVariable returns the variable of a policy's field, by the field's name in JSON. A field that Policy gains
// needs no entry here if its variable has the usual name.
func retryVariable(field string) string {
	if field == "ban_status_codes" {
		return "GOFER_BAN_STATUS_CODES"
	}
	name := strings.TrimPrefix(strings.ToUpper(field), "RETRY_")
	return "GOFER_RETRY_" + name
}

// loopback reports whether addr is a host and a port that only this machine reaches. The embedded server has no users,
// so every client that reaches it may do everything.
func loopback(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	// net.ParseIP does not look a name up, so only localhost counts as a name.
	n, err := strconv.Atoi(port)
	ip := net.ParseIP(host)
	return err == nil && n >= 0 && n <= 65535 && (host == "localhost" || ip != nil && ip.IsLoopback())
}
