package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs/bus"
)

func TestEventThatIsNoJSONEndsNoFollower(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(w.nc)
	if err != nil {
		t.Fatal(err)
	}
	for _, payload := range []string{"none", "", `{"worker":"w1","failing":true}`} {
		if _, err := js.Publish(t.Context(), "gofer.events.pool.w1", []byte(payload)); err != nil {
			t.Fatal(err)
		}
	}
	code, out, errOut := gofer(t, "", "events", "--all", "--until-now", "--json")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != exitOK || len(lines) != 3 || !strings.Contains(out, `"payload":"none"`) {
		t.Errorf("exit %d, %s, %s; want three events", code, out, errOut)
	}
	for _, line := range lines {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %s", line)
		}
	}
}

func TestAQueueThatNobodyEverServedIsSaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{Queues: []string{"default"}}); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]bool{
		"events --queue nope --until-now": true, "results --queue nope --limit 3": true,
		"events --queue default --until-now": false, "results --queue default --limit 3": false, "events --until-now": false,
	} {
		code, _, errOut := gofer(t, "", strings.Fields(args)...)
		if said := strings.Contains(errOut, "no worker has ever served it"); code != exitOK || said != want {
			t.Errorf("gofer %s: exit %d, %q; want it said: %t", args, code, errOut, want)
		}
	}
}
