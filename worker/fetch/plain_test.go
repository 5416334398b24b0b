package fetch_test

import (
	"testing"

	"github.com/gofer-mq/gofer/jobs"
)

func TestWithoutATunnelWhatAProxySaysOfItselfDecidesToo(t *testing.T) {
	for answer, want := range map[string]struct {
		fault  jobs.Fault
		reason string
	}{
		"503 Service Unavailable\r\nX-Squid-Error: ERR_DNS_FAIL 0": {jobs.FaultTarget, "connect"},
		// This response may be the target's own.
		"502 Bad Gateway\r\nProxy-Status: p; error=proxy_internal_error": {jobs.FaultUnclear, "status_5xx"},
		"504 Gateway Timeout": {jobs.FaultUnclear, "status_5xx"},
	} {
		r := newRig(t, nil)
		r.use(r.replies("HTTP/1.1 "+answer+"\r\nContent-Length: 0\r\n\r\n") + " id=p")
		if a, reason := r.judged("http://shop.test/ok"); a.Fault != want.fault || reason != want.reason {
			t.Errorf("%q: fault %q, reason %q (%s), want %q, %q", answer, a.Fault, reason, a.Error, want.fault, want.reason)
		}
	}
}
