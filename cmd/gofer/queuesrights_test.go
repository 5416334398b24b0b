package main

import (
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

// TestQueuesAreListedForAUserWhoMayNotAskWorkers: the table comes, and what is left out is said.
func TestQueuesAreListedForAUserWhoMayNotAskWorkers(t *testing.T) {
	w := newWorld(t, func(o *server.Options) {
		o.NoAuthUser = "all"
		o.Users = []*server.User{{Username: "all", Password: "p"}, {Username: "reader", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"gofer.ctl.>"}},
		}}}
	})
	w.named("w1")
	setenv(t, "GOFER_NATS_USER", "reader")
	setenv(t, "GOFER_NATS_PASSWORD", "p")
	code, out, errOut := gofer(t, "", "queues")
	if code != exitOK || !strings.Contains(out, " default ") || !strings.Contains(errOut, `not allowed to publish to "gofer.ctl.workers"`) {
		t.Errorf("gofer queues: exit %d, %q, %q; want the queues, and the right that is missing", code, out, errOut)
	}
	if code, out, errOut := gofer(t, "", "proxies", "ls"); code != exitOK || !strings.Contains(errOut, `not allowed to publish to "gofer.ctl.proxies"`) {
		t.Errorf("gofer proxies ls: exit %d, %q, %q; want what is configured, and the right that is missing", code, out, errOut)
	}
}
