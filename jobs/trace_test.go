package jobs_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
)

const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestOnlyAValidTraceParentIsRead(t *testing.T) {
	for value, valid := range map[string]bool{
		parent: true,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00": true,
		"cc" + parent[2:]:             true, // a later version may be longer
		"cc" + parent[2:] + "-what.x": true,
		"":                            false,
		parent[:54]:                   false,
		parent + "-x":                 false,
		"cc" + parent[2:] + "x":       false,
		"cc" + parent[2:] + "-\x01":   false,
		"cc" + parent[2:] + "-" + strings.Repeat("x", 80): false,
		"cc" + parent[2:] + "-NATS-ScheduleNats-Schedule": false,
		"ff" + parent[2:]:                                         false,
		strings.ToUpper(parent):                                   false,
		strings.Replace(parent, "-", "_", 1):                      false,
		"00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01":  false,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01": false,
		"00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01": false,
	} {
		for _, name := range []string{"traceparent", "Traceparent"} {
			got := jobs.ParseTrace(map[string][]string{name: {value}, "tracestate": {"a=b"}})
			want := jobs.Trace{}
			if valid {
				want = jobs.Trace{Parent: value, State: "a=b"}
			}
			if got != want {
				t.Errorf("%s: %q: got %+v, want %+v", name, value, got, want)
			}
		}
	}
	for _, header := range []map[string][]string{nil, {"traceparent": {parent, parent}}, {"traceparent": {parent}, "Traceparent": {parent}}, {"tracestate": {"a=b"}}} {
		if got := jobs.ParseTrace(header); got != (jobs.Trace{}) {
			t.Errorf("%v: got %+v, want none", header, got)
		}
	}
}

func TestOnlyAValidTraceStateIsRead(t *testing.T) {
	items := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf("k%d=v", i))
		}
		return strings.Join(list, ",")
	}
	for value, valid := range map[string]bool{
		"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE": true, "fw529a3039@dt=FfffffeeeE, a/b=c d": true, items(32): true, "a=" + strings.Repeat("v", 256): true,
		"": false, ",": false, "a": false, "a=": false, "A=b": false, "a=b=c": false, "a=\x01": false, "a=é": false, "a=b,a=c": false, items(33): false,
		"a=" + strings.Repeat("v", 257): false, items(30) + ",z=" + strings.Repeat("v", 256) + ",y=" + strings.Repeat("v", 256): false,
		"a=Nats-ScheduleNats-Schedule": false, "a=nats-schedule": false,
	} {
		got := jobs.ParseTrace(map[string][]string{"traceparent": {parent}, "tracestate": {value}})
		want := jobs.Trace{Parent: parent}
		if valid {
			want.State = value
		}
		if got != want {
			t.Errorf("%.80q: got %+v, want %+v", value, got, want)
		}
	}
	both := jobs.ParseTrace(map[string][]string{"traceparent": {parent}, "tracestate": {"a=b", "c=d"}})
	if both.State != "a=b,c=d" {
		t.Errorf("two headers: got %q, want them joined", both.State)
	}
}

func TestATraceIsWrittenAsItWasRead(t *testing.T) {
	want := map[string][]string{"traceparent": {parent}, "tracestate": {"a=b"}}
	got := map[string][]string{}
	jobs.ParseTrace(want).AddTo(got)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, trace := range []jobs.Trace{{}, {Parent: "x", State: "a=b"}, {State: "a=b"}} {
		header := map[string][]string{}
		if trace.AddTo(header); len(header) > 0 {
			t.Errorf("%+v: wrote %v", trace, header)
		}
	}
	r := jobs.Result{Queue: "default", ID: "j1", Outcome: jobs.Succeeded, Trace: jobs.Trace{Parent: parent, State: "a=b"}}
	header, payload, err := r.Message()
	if err != nil || jobs.ParseResult(header, payload).Trace != r.Trace {
		t.Errorf("result: got %v, %v", header, err)
	}
}
