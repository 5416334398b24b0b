package main

import (
	"strings"
	"testing"
)

func TestTheDoctorNamesSettingsOfTheFleetThatWorkersCannotRead(t *testing.T) {
	w := newWorld(t, nil)
	w.named("w1")
	if code, out, _ := gofer(t, "", "doctor"); code != exitOK || !strings.Contains(out, "ok   settings ") {
		t.Fatalf("doctor: exit %d, want that the settings can be read:\n%s", code, out)
	}
	for key, value := range map[string]string{
		"gofer-policy.retry": `{"max_attempts":99}`, "gofer-policy.strategy": "fast", "gofer-proxies.p9": "http://u:hunter2@nowhere", "gofer-proxies.metrics": "http://127.0.0.1:1",
	} {
		if err := w.nc.Publish("$KV."+key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	code, out, _ := gofer(t, "", "doctor")
	for _, want := range []string{
		"BAD  settings         the policy in the bucket is not valid", "99 is not between 1 and 10", `strategy "fast" is none of`, "gofer proxies strategy reset",
		"proxy p9 in the bucket is not valid", "gofer proxies rm p9", "nats kv del gofer-proxies metrics",
	} {
		if code != exitFailed || !strings.Contains(out, want) || strings.Contains(out, "hunter2") {
			t.Errorf("doctor: exit %d, want %q and no password in:\n%s", code, want, out)
		}
	}
	if code, out, errOut := gofer(t, "", "proxies", "strategy"); code != exitFailed || out != "" || !strings.Contains(errOut, "workers keep the last good one") {
		t.Errorf("gofer proxies strategy: exit %d, %q, %q; want that the one in the bucket does not apply", code, out, errOut)
	}
}
