package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv"
)

// What strangers put into each of their strings. A terminal takes it for its title and its colour, and turns the line around;
// a line end makes a line that gofer never wrote.
const (
	title  = "\x1b]0;pwned\a"
	marker = title + "\u009b31m\u202e\u2066\x7f\xff\r\nBAD forged\u2028"
	inJSON = `\u001b]0;pwned\u0007` + "\u009b31m\u202e\u2066\x7f\xff" + `\r\nBAD forged` + "\u2028" // the same, in a JSON string
	// Without what no subject can have.
	inKey = "\x1b]0;pwned\a\u009b31m\u202e\xff"
)

// obeyed lists what a terminal would obey in what was printed. Only line ends and tabs are gofer's own.
func obeyed(printed string) (found []string) {
	printed = strings.NewReplacer(green, "", yellow, "", red, "", plain, "").Replace(printed) // the program's own, on a terminal
	for i, r := range printed {
		_, size := utf8.DecodeRuneInString(printed[i:])
		switch {
		case r == utf8.RuneError && size == 1, r < ' ' && r != '\n' && r != '\t', r >= 0x7f && r < 0xa0,
			r == 0x61c, r == 0x200e, r == 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0xfeff:
			found = append(found, fmt.Sprintf("%q at %q", printed[i:i+size], printed[max(0, i-30):min(len(printed), i+30)]))
		}
	}
	if strings.Contains(printed, "\nBAD forged") {
		found = append(found, "a line of its own")
	}
	return found
}

// trial is one way to run a verb so that it prints what strangers wrote.
type trial struct {
	args  string // separated by blanks; MARK stands for the marker
	in    string
	env   string // a variable that is set
	until string // ends a verb that follows
	body  bool   // standard output is a response body, which a file gets unchanged
	lines bool   // the stranger's line ends stay
}

// trials has every verb. A new one needs an entry that shows the marker, or quiet if nothing that it prints is a stranger's.
func trials(dir string) map[string][]trial {
	file := filepath.Join(dir, "list"+inKey)
	one := func(args string) []trial { return []trial{{args: args}} }
	quiet := []trial(nil)
	const unknown = "GOFER_UNKNOWN" + inKey
	return map[string][]trial{
		"results": {
			{args: "results evil", body: true, lines: true}, {args: "results default/failed"}, {args: "results MARK"}, {args: "results --all", until: "zlast"}, {args: "results --limit 100"}, {args: "results --status MARK"},
		},
		"events":           {{args: "events --all --until-now"}, {args: "events --queue MARK"}},
		"job":              {{args: "job evil"}, {args: "job MARK"}},
		"cancel":           {{args: "cancel MARK"}, {args: "cancel evil"}},
		"jobs ls":          {{args: "jobs ls"}, {args: "jobs ls --state MARK"}, {args: "jobs ls --site MARK"}, {args: "jobs ls --url MARK"}},
		"queues":           one("queues"),
		"pause":            one("pause MARK"),
		"resume":           one("resume MARK"),
		"proxies ls":       one("proxies ls"),
		"proxies check":    {{args: "proxies check " + file}, {args: "proxies check -", in: "http://a.test:1 region=" + inKey}, {args: "proxies check --via MARK"}, {args: "proxies check --target MARK"}},
		"proxies import":   {{args: "proxies import " + file}, {args: "proxies import -", in: inKey + "\nhttp://a.test:1 id=" + inKey}, {args: "proxies import MARK"}},
		"proxies add":      {{args: "proxies add http://a.test:1 region=MARK"}, {args: "proxies add -", in: inKey + "\nhttp://a.test:1 id=" + inKey}, {args: "proxies add http://a.test:1", env: unknown}},
		"proxies rm":       one("proxies rm MARK"),
		"proxies strategy": {{args: "proxies strategy"}, {args: "proxies strategy MARK"}},
		"policy show":      one("policy show"),
		"policy set":       {{args: "policy set MARK"}, {args: "policy set -", in: `{"` + strings.ReplaceAll(inJSON, "\xff", "") + `":1}`}},
		"policy reset":     quiet,
		"deny ls":          one("deny ls"),
		"deny add":         {{args: "deny add MARK"}, {args: "deny add -", in: "a.test\nb" + inKey}},
		"deny rm":          one("deny rm MARK"),
		"dead ls":          one("dead ls"),
		"dead show":        {{args: "dead show evil", lines: true}, {args: "dead show MARK"}},
		"dead replay":      {{args: "dead replay MARK"}, {args: "dead replay nobody"}},
		"dead purge":       {{args: "dead purge MARK"}, {args: "dead purge nobody"}},
		"workers":          one("workers"),
		"drain":            {{args: "drain MARK"}, {args: "drain w1"}},
		"breakers ls":      one("breakers ls"),
		"breakers reset":   {{args: "breakers reset MARK"}, {args: "breakers reset p1"}},
		"sites ls":         one("sites ls"),
		"sites show":       {{args: "sites show MARK"}, {args: "sites show a.test"}},
		"sites reset":      {{args: "sites reset MARK"}, {args: "sites reset a.test"}},
		"rollups":          one("rollups"),
		"top":              {{args: "top --every 0.5s", until: "]0;pwned"}, {args: "top --every MARK"}},
		"setup":            {{args: "setup --dry-run"}, {args: "setup", env: unknown}},
		"doctor":           {{args: "doctor"}, {args: "doctor", env: unknown}},
		"health":           {{args: "health"}, {args: "health", env: unknown}},
		"config usage":     quiet,
		"config check":     {{args: "config check", env: unknown}},
		"config show":      {{args: "config show"}, {args: "config show", env: unknown}},
		"version":          quiet,
		"submit": {
			{args: "submit --queue fake --file " + file}, {args: "submit --queue fake --wait --file " + file}, {args: "submit --file nowhere" + inKey},
			{args: "submit --queue fake --wait http://a.test/?" + inKey, body: true, lines: true}, {args: "submit --at MARK http://a.test/"}, {args: "submit --id MARK http://a.test/"},
			{args: "submit --queue fake --output " + filepath.Join(dir, "out"+inKey) + " --file " + file}, {args: "submit --file " + dir},
		},
		"worker":                {{args: "worker", env: unknown}},
		"playground":            {{args: "playground", env: unknown}},
		"help":                  one("help MARK"),
		"completion bash":       quiet,
		"completion zsh":        quiet,
		"completion fish":       quiet,
		"completion powershell": quiet,
	}
}

// leaves are the verbs of the command tree that do something.
func leaves(c *cobra.Command) (names []string) {
	for _, sub := range c.Commands() {
		if !sub.Hidden && len(sub.Commands()) == 0 {
			names = append(names, strings.TrimPrefix(sub.CommandPath(), "gofer "))
		}
		names = append(names, leaves(sub)...)
	}
	return names
}

func TestNoVerbLetsATerminalObeyAStranger(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.invadeStreams()
	w.invadeWorkers()
	dir := t.TempDir()
	list := "not a URL" + inKey + "\nhttp://a.test/?" + inKey + "\n{\"url\":\"http://a.test/\",\"id\":\"" + inJSON + "\"}\n{\"url\":\"http://b.test/?\u009b31m\u202e\"}\nhttp://c.test/\n"
	if err := os.WriteFile(filepath.Join(dir, "list"+inKey), []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	setenv(t, "GOFER_DATA_DIR", "data"+inKey) // config show prints it
	root := (&app{out: &stream{to: io.Discard}, err: &stream{to: io.Discard}}).root()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	all := trials(dir)
	for _, verb := range leaves(root) {
		tries, known := all[verb]
		if !known {
			t.Errorf("verb %q has no trial: say in trials how it comes to print what strangers wrote", verb)
		}
		shown := tries == nil
		for _, try := range append(tries, trial{args: verb + " --" + inKey}) {
			for _, flags := range []string{"", " --json", " on a terminal"} {
				out, errOut := w.try(try, flags)
				printed := errOut
				if !try.body || flags != "" {
					printed += out
				}
				if try.lines {
					printed = strings.ReplaceAll(printed, "\nBAD", "\\nBAD")
				}
				if found := obeyed(printed); len(found) > 0 {
					t.Errorf("gofer %q%s, in %q: prints %s", try.args, flags, try.in, strings.Join(found, "\n\t"))
				}
				shown = shown || strings.Contains(printed, "]0;pwned") && !strings.Contains(printed, "unknown flag")
				if found := otherZone(out + errOut); len(found) > 0 {
					t.Errorf("gofer %q%s prints times that are not in UTC: %v", try.args, flags, found)
				}
			}
		}
		if !shown {
			t.Errorf("verb %q never showed the marker: its trials test nothing", verb)
		}
	}
}

// try runs a verb and returns what it printed.
func (w *world) try(c trial, flags string) (out, errOut string) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	var args []string
	for arg := range strings.SplitSeq(c.args, " ") {
		args = append(args, strings.ReplaceAll(arg, "MARK", inKey))
	}
	env := environment(w.T)
	if c.env != "" {
		env[c.env] = "x"
	}
	stdout, stderr := new(testenv.Log), new(testenv.Log)
	sink := writerFunc(func(p []byte) (int, error) {
		n, err := stdout.Write(p)
		if c.until != "" && strings.Contains(stdout.String(), c.until) {
			cancel()
		}
		return n, err
	})
	if flags == " on a terminal" {
		onTerminal(w.T, sink, func(tty *os.File) { run(ctx, env, args, strings.NewReader(c.in), tty, tty) })
		// A progress bar, a screen and colours are gofer's own.
		return regexp.MustCompile(`\r|\x1b\[(?:[0-9;]*[mKJH]|\?(?:1049|25|7)[hl])`).ReplaceAllString(stdout.String(), ""), ""
	}
	if flags != "" {
		args = append(args, strings.TrimSpace(flags))
	}
	run(ctx, env, args, strings.NewReader(c.in), sink, stderr)
	return stdout.String(), stderr.String()
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// otherZone finds times of day with an offset.
func otherZone(printed string) []string {
	return regexp.MustCompile(`\d\dT\d\d:\d\d:\d\d[.\d]*[+-]\d\d:\d\d`).FindAllString(printed, -1)
}

// invadeStreams stores what strangers may have written, in streams and buckets.
func (w *world) invadeStreams() {
	w.Helper()
	if code, _, errOut := gofer(w.T, "", "setup"); code != exitOK {
		w.Fatal(errOut)
	}
	js, err := jetstream.New(w.nc)
	if err != nil {
		w.Fatal(err)
	}
	store := func(subject string, header nats.Header, data string) {
		w.Helper()
		if _, err := js.PublishMsg(w.Context(), &nats.Msg{Subject: subject, Header: header, Data: []byte(data)}); err != nil {
			w.Fatalf("%q: %v", subject, err)
		}
	}
	problem := `{"detail":"` + inJSON + `","reasons":["` + inJSON + `"],"attempts":[{"attempt":1,"proxy":"` + inJSON + `","region":"` + inJSON +
		`","phase":"` + inJSON + `","fault":"` + inJSON + `","error":"` + inJSON + `"}]}`
	store("_gofer.results.default.evil", resultHeader("evil", jobs.Succeeded), marker)
	store("_gofer.results.default.failed", resultHeader("failed", jobs.Failed), problem)
	store("_gofer.results.default."+inKey, resultHeader(inKey, inKey), problem)
	store("_gofer.results.default.zlast", resultHeader("zlast", jobs.Succeeded), "")
	letter := resultHeader("evil", jobs.Failed)
	letter.Set(jobs.HeaderReason, inKey)
	store("gofer.dead.default.evil", letter, `{"url":`+marker+`}`)
	store("gofer.dead.default."+inKey, letter, inKey)
	store("gofer.jobs."+inKey+".x", nil, inKey)
	for kind, fields := range map[string]string{
		"retry.default.evil": "job_id queue proxy fault error kind worker", "breaker.evil": "proxy_id from_state to_state reason worker", "pool.evil": "worker reason",
		"duplicate.default.evil": "job_id queue worker", inKey + ".x": "what", "site.x": "site from_state to_state reason worker",
	} {
		event := map[string]string{}
		for field := range strings.FieldsSeq(fields) {
			event[field] = "MARK"
		}
		data, err := json.Marshal(event)
		if err != nil {
			w.Fatal(err)
		}
		store("gofer.events."+kind, nil, strings.ReplaceAll(string(data), "MARK", inJSON))
		store("gofer.events."+kind, nil, marker)
	}
	for bucket, entries := range map[string]map[string]string{
		"proxies": {"evil": "http://a.test:1 region=" + inKey, inKey: inKey}, "policy": {"retry": `{"backoff_strategy":"` + inJSON + `"}`, "strategy": inKey}, "deny": {inKey: ""},
	} {
		for key, value := range entries {
			store("$KV.gofer-"+bucket+"."+key, nil, value)
		}
	}
}

// resultHeader is a result's, all of whose texts are a stranger's.
func resultHeader(id, outcome string) nats.Header {
	h := nats.Header{}
	for _, name := range []string{
		jobs.HeaderError, jobs.HeaderURL, jobs.HeaderProxy, jobs.HeaderWorker, jobs.HeaderObjectDigest, jobs.HeaderReplayOf,
		"Gofer-Meta-note", "Http-X-Esc", "Http-Content-Type",
	} {
		h.Set(name, inKey)
		h[name] = []string{inKey} // Set writes other capitals
	}
	maps.Copy(h, nats.Header{
		jobs.HeaderJobID: {id}, jobs.HeaderQueue: {"default"}, jobs.HeaderOutcome: {outcome}, jobs.HeaderStatus: {"200"}, jobs.HeaderAttempts: {"1"},
		jobs.HeaderFinishedAt: {"2030-01-02T15:04:06.204Z"},
	})
	return h
}

// invadeWorkers starts what claims to be workers: one answers every verb with strings of a stranger, and one stores a result for
// each job of the queue fake.
func (w *world) invadeWorkers() {
	w.Helper()
	text := strings.ReplaceAll(`{"worker":"MARK","version":"MARK","reasons":["MARK"],"proxies":{"MARK":1},"queues":[{"queue":"MARK","weight":1}],"in_flight":{"MARK":1},
		"total":9,"circuit_breakers":[{"proxy_id":"MARK","state":"MARK","avoided_until":"2090-01-02T15:04:06Z","avoided_by":"MARK","reason":"MARK"}],
		"proxies_reset":1,"scope":"MARK","data_points":[],"backoff_strategy":"MARK","environment":{"backoff_strategy":"MARK"}}`, "MARK", inJSON)
	pool := strings.ReplaceAll(`{"worker":"MARK","total":9,"noted":1,"states":{"MARK":1},"pool":"MARK","failing_since":"2030-01-02T15:04:06Z","proxies":[{"id":"MARK",
		"addr":"MARK","kind":"MARK","tags":["MARK"],"region":"MARK","source":"MARK","state":"MARK","reason":"MARK","until":"2090-01-02T15:04:06Z"}]}`, "MARK", inJSON)
	answer := func(msg *nats.Msg) {
		reply := &nats.Msg{Subject: msg.Reply, Data: []byte(text)}
		if msg.Subject == "gofer.ctl.proxies" {
			reply.Data = []byte(pool)
		}
		if slices.Contains([]string{"gofer.ctl.drain", "gofer.ctl.breakers.reset"}, msg.Subject) {
			reply.Header = nats.Header{"Nats-Service-Error": {inKey}, "Nats-Service-Error-Code": {inKey}}
		}
		_ = w.nc.PublishMsg(reply)
	}
	var once sync.Mutex
	finish := func(msg *nats.Msg) {
		once.Lock()
		defer once.Unlock()
		id := msg.Subject[strings.LastIndexByte(msg.Subject, '.')+1:]
		header := resultHeader(id, jobs.Succeeded)
		header[jobs.HeaderQueue] = []string{"fake"}
		_ = w.nc.PublishMsg(&nats.Msg{Subject: "_gofer.results.fake." + id, Header: header, Data: []byte(marker)})
	}
	for subject, handle := range map[string]nats.MsgHandler{"gofer.ctl.>": answer, "gofer.jobs.fake.>": finish} {
		if _, err := w.nc.Subscribe(subject, handle); err != nil {
			w.Fatal(err)
		}
	}
	if err := w.nc.Flush(); err != nil {
		w.Fatal(err)
	}
}
