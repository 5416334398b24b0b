package main

import (
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/testenv"
)

func TestSetupEndsWhenNewReplicasAreCurrent(t *testing.T) {
	t.Parallel()
	testenv.Long(t)
	cluster := testenv.StartCluster(t)
	setenv(t, "GOFER_NATS_URL", cluster.URL(0))
	if code, out, errOut := gofer(t, "", "setup"); code != exitOK || strings.Contains(out, "replicas are current") {
		t.Fatalf("one replica: exit %d, %q, %q", code, out, errOut)
	}
	setenv(t, "GOFER_REPLICAS", "3")
	code, out, errOut := gofer(t, "", "setup", "--timeout", "0.1s")
	if code != exitFailed || !strings.Contains(errOut, "the replicas are not current yet") || !strings.Contains(errOut, "stop no server") {
		t.Errorf("for 0.1 s: exit %d, %q, %q; want it to fail and say what must not be done", code, out, errOut)
	}
	if code, out, errOut := gofer(t, "", "setup"); code != exitOK || !strings.Contains(out, "All replicas are current.") {
		t.Errorf("again: exit %d, %q, %q; want it to wait for the change of the first one", code, out, errOut)
	}
	cluster.Kill(2)
	if code, out, errOut := gofer(t, "", "setup"); code != exitOK || strings.Contains(out, "replicas are current") {
		t.Errorf("without a server: exit %d, %q, %q; want no wait for it", code, out, errOut)
	}
}
