package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	wrap "github.com/jedib0t/go-pretty/v6/text"
	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/admin"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// The longest names that the contract allows, and a site.
var (
	longQueue, longID, longProxy = strings.Repeat("q", 32), strings.Repeat("j", 128), strings.Repeat("p", 64)
	longSite                     = strings.Repeat("s", 60) + "." + strings.Repeat("t", 60) + ".test:8443"
)

// TestEveryTableFitsAScreenOfEightyColumns, however long the names are that are in it, and no line ends with a blank. Sentences
// below a table, and lists of one name a line, are as long as they are.
func TestEveryTableFitsAScreenOfEightyColumns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.storeLongNames()
	w.answerLongNames()
	for verb, name := range map[string]string{
		"queues": "qqqq", "jobs ls": "qqqq", "dead ls": "qqqq", "sites ls": "ssss", "sites show " + longSite: "www", "proxies ls": "pppp", "breakers ls": "pppp", "workers": "www",
		"rollups": "2030-01-02 15:00", "config usage": "GOFER_QUEUES", "config show": "GOFER_QUEUES",
	} {
		printed := new(testenv.Log)
		onTerminal(t, printed, func(tty *os.File) {
			if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: 80, Row: 24}); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			run(ctx, environment(t), strings.Fields(verb), strings.NewReader(""), tty, tty)
		})
		if !strings.Contains(printed.String(), name) {
			t.Errorf("gofer %s shows no name %s…: %s", verb, name, printed)
		}
		for line := range strings.Lines(printed.String()) {
			line = strings.TrimRight(line, "\r\n")
			switch isTable := !strings.Contains(line, ": "); {
			case isTable && wrap.StringWidthWithoutEscSequences(line) > 80:
				t.Errorf("gofer %s: a line of %d columns: %s", verb, wrap.StringWidthWithoutEscSequences(line), line)
			case strings.HasSuffix(line, " "):
				t.Errorf("gofer %s: a line ends with a blank: %q", verb, line)
			}
		}
	}
}

// storeLongNames has a job and a dead letter with long names.
func (w *world) storeLongNames() {
	w.Helper()
	if code, _, errOut := gofer(w.T, "", "setup"); code != exitOK {
		w.Fatal(errOut)
	}
	result := jobs.Result{
		Queue: longQueue, ID: longID, Outcome: jobs.Failed, Error: "attempts_exhausted", URL: "http://" + longSite + "/", Proxy: longProxy, FinishedAt: time.Now(),
	}
	letter := result.Facts()
	letter[jobs.HeaderReason] = []string{strings.Repeat("the target answered nothing ", 10)}
	for subject, header := range map[string]nats.Header{
		"gofer.jobs." + longQueue + "." + longID: nil, "gofer.dead." + longQueue + "." + longID: letter,
	} {
		if _, err := w.client.JetStream().PublishMsg(w.Context(), &nats.Msg{Subject: subject, Header: header, Data: []byte("http://" + longSite + "/")}); err != nil {
			w.Fatal(err)
		}
	}
}

// answerLongNames answers as a worker all of whose names are long, and whose numbers are large.
func (w *world) answerLongNames() {
	w.Helper()
	soon := time.Now().Add(time.Minute).UTC()
	worker := strings.Repeat("w", 60)
	many := 123_456_789
	answer := func(fields map[string]any) []byte {
		fields["worker"], fields["total"], fields["known"] = worker, 1, true
		data, err := json.Marshal(fields)
		if err != nil {
			w.Fatal(err)
		}
		return data
	}
	answers := map[string][]byte{
		"workers": answer(map[string]any{
			"version": "1.0.0-rc.1+build.20301123", "started_at": time.Now().Add(-900 * time.Hour), "slots": many, "in_flight": map[string]int{longQueue: many}, "ready": false, "reasons": []string{strings.Repeat("no proxy, ", 20) + "none"},
			"proxies": map[string]int{"closed": many, "open": many, "half_open": many}, "queues": []any{map[string]any{"queue": longQueue, "weight": 6}},
		}),
		"sites": answer(map[string]any{"sites": []any{map[string]any{
			"site": longSite, "state": "resting", "reason": "failures", "next_test_time": soon, "last_state_change": soon, "attempts": many, "bans": many, "classes": map[string]int{"2xx": many, "5xx": many},
			"failures": map[string]int{"target": many, "proxy": many}, "last_error": strings.Repeat("no answer ", 20), "last_error_at": soon,
		}}}),
		"proxies": answer(map[string]any{"states": map[string]int{"open": 1}, "proxies": []any{map[string]any{
			"id": longProxy, "addr": "residential.example.co.uk:8000", "kind": "http", "tags": []string{strings.Repeat("tag", 20)}, "region": strings.Repeat("r", 60), "source": "file", "state": "open",
			"reason": "connect", "until": soon, "failures": many,
		}}}),
		"rollups": answer(map[string]any{"scope": "cluster", "data_points": []any{map[string]any{
			"timestamp": "2030-01-02T15:00:00Z", "total_requests": many, "total_retries": many, "success_rate": 0.5, "p50_latency": 12.345, "p95_latency": 123.4, "attempts": many, "bytes": many * many,
			"circuit_breaker_opens": many, "classes": map[string]int{"2xx": many, "3xx": many, "4xx": many, "5xx": many, "none": many},
		}}}),
		"breakers": answer(map[string]any{"circuit_breakers": []any{map[string]any{"proxy_id": longProxy, "state": "open", "failure_count": many, "next_test_time": soon}}}),
	}
	_, err := w.nc.Subscribe("gofer.ctl.>", func(msg *nats.Msg) {
		for verb, data := range answers {
			if strings.Contains(msg.Subject, verb) {
				_ = msg.Respond(data)
			}
		}
	})
	if err == nil {
		err = w.nc.Flush()
	}
	if err != nil {
		w.Fatal(err)
	}
}

func TestNumbersAreWholeAndColumnsThatSayNothingLeaveANarrowScreenFirst(t *testing.T) {
	t.Parallel()
	header, row := table.Row{"name"}, table.Row{strings.Repeat("n", 40)}
	for i := range 12 {
		header, row = append(header, fmt.Sprint("count", i)), append(row, 1_234_567*(i%2))
	}
	header, row = append(header, "state"), append(row, "served")
	for width, want := range map[int]string{
		200: "name count0 count1 count2 count3 count4 count5 count6 count7 count8 count9 count10 count11 state", 80: "name count0 count1 count2 count3 count5 count7 count9 count11 state",
		50: "name count1 count3 count5 count7 state",
	} {
		got, rows, gap := narrow(header, []table.Row{row}, width)
		if strings.Trim(fmt.Sprint(got), "[]") != want || len(rows[0]) != len(got) {
			t.Errorf("%d columns: got %v and %d cells, want %s", width, got, len(rows[0]), want)
		}
		total := 0
		for _, w := range fitWidths(got, rows, width, gap) {
			total += w + gap
		}
		if total > width {
			t.Errorf("%d columns: the table needs %d", width, total)
		}
	}
}

// TestEightyColumnsShowTheQueuesAndSitesWhole: one blank between two columns makes the room that the headers need.
func TestEightyColumnsShowTheQueuesAndSitesWhole(t *testing.T) {
	t.Parallel()
	queues, queueRows := queueTable([]queueRow{{QueueState: client.QueueState{Queue: "default", Running: 5}, Served: true, NoProxy: 1234}, {QueueState: client.QueueState{Queue: "reports"}}})
	sites, siteRows := siteTable([]*admin.FleetSite{{Site: "gone.test", State: "resting", Workers: map[string]int{"resting": 1}, Attempts: 1234, Reason: "test_failed",
		Classes: rollup.Classes{Status2xx: 1445, Status4xx: 60, Status5xx: 21, None: 34}, Failures: map[string]int64{"proxy": 12, "unclear": 345}}})
	// The name would be cut for the sake of blanks.
	if _, _, gap := narrow(table.Row{"job", "state"}, []table.Row{{strings.Repeat("j", 60), strings.Repeat("r", 100)}}, 82); gap != 1 {
		t.Errorf("%d blanks between columns that do not fit, want 1", gap)
	}
	for name, c := range map[string]struct {
		header table.Row
		rows   []table.Row
	}{"queues": {queues, queueRows}, "sites": {sites, siteRows}} {
		text := render(c.header, c.rows, look{width: 80})
		for _, column := range c.header {
			if !strings.Contains(text, strings.ToUpper(fmt.Sprint(column))) {
				t.Errorf("%s: the header %q is cut or missing:\n%s", name, column, text)
			}
		}
		for _, word := range map[string][]string{"queues": {"default", "not served"}, "sites": {"gone.test", "resting"}}[name] {
			if !strings.Contains(text, word) {
				t.Errorf("%s: %q is cut:\n%s", name, word, text)
			}
		}
	}
}
