package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv"
)

// TestPolicyShowPrintsWhatWorkersUse: what a document in the bucket lacks comes from the worker's environment, not from that of
// whoever asks.
func TestPolicyShowPrintsWhatWorkersUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	setenv(t, "GOFER_RETRY_BASE_DELAY", "7s")
	addr := freeAddr(t)
	p := w.worker(addr)
	setenv(t, "GOFER_RETRY_BASE_DELAY", "9s")
	js, err := jetstream.New(w.nc)
	if err != nil {
		t.Fatal(err)
	}
	put := func(document string) {
		t.Helper()
		if _, err := js.Publish(t.Context(), "$KV.gofer-policy.retry", []byte(document)); err != nil {
			t.Fatal(err)
		}
	}
	show := func(base float64, attempts int) {
		t.Helper()
		got := read[jobs.Policy](t, "policy", "show")
		if got.BaseDelay.Seconds() != base || got.MaxAttempts != attempts {
			t.Errorf("shown are %d attempts with %s, want %d with %v s", got.MaxAttempts, got.BaseDelay, attempts, base)
		}
	}
	show(7, 3)
	put("\ufeff{\"max_attempts\":5}\r\n")
	show(7, 5)
	testenv.Eventually(t, "the worker to have the policy", func() bool {
		_, body := w.get("http://" + addr + "/api/v1/retry/policy")
		return strings.Contains(body, `"max_attempts":5`) && strings.Contains(body, `"base_delay":7`)
	})
	put(`{"max_attempts":99}`)
	code, out, errOut := gofer(t, "", "policy", "show")
	if code != exitFailed || !strings.Contains(out, `"max_attempts":5`) || !strings.Contains(errOut, "99 is not between 1 and 10") {
		t.Errorf("policy show of an invalid document: exit %d, %s, %s; want the last good policy and the reason", code, out, errOut)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, "http://"+addr+"/api/v1/retry/policy", nil)
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := http.DefaultClient.Do(request); err != nil || answer.StatusCode != http.StatusNoContent {
		t.Fatalf("DELETE of the policy: %v, %v", answer, err)
	}
	if _, body := w.get("http://" + addr + "/api/v1/retry/policy"); !strings.Contains(body, `"max_attempts":3`) || !strings.Contains(body, `"updated_at":null`) {
		t.Errorf("after DELETE the policy is %s, want that of the environment at once", body)
	}
	put(`{"max_attempts":4}`)
	p.wait(t)
	show(9, 4) // as a worker would have it that starts here
}
