package interop_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv"
)

// record is what a run has published, each message under the name of its schema. It may be used by several goroutines.
type record struct {
	mu       sync.Mutex
	messages map[string][]json.RawMessage // guarded by mu
}

func (r *record) add(schema string, message any) {
	data, ok := message.([]byte)
	if !ok {
		data, _ = json.Marshal(message)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages[schema] = append(r.messages[schema], data)
}

func (r *record) count(schema string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.messages[schema])
}

// take records a result, a dead letter or an event.
func (r *record) take(msg *nats.Msg) {
	switch kind := strings.Split(msg.Subject, "."); kind[1] {
	case "events":
		r.add(kind[2]+"-event", msg.Data)
	case "results":
		r.add("result", msg.Header)
		if msg.Header.Get(jobs.HeaderOutcome) != jobs.Succeeded {
			r.add("problem", msg.Data)
		}
	case "dead":
		r.add("result", msg.Header)
	}
}

// busyRun is a worker with six proxies, and one where nobody listens, in front of a site.
type busyRun struct {
	*fleet
	t       *testing.T
	js      jetstream.JetStream
	seen    record
	proxies []*testenv.Proxy
}

func startBusyRun(t *testing.T) *busyRun {
	t.Helper()
	origin := testenv.StartOrigin(t, false)
	b := &busyRun{t: t, seen: record{messages: map[string][]json.RawMessage{}}}
	lines := []string{"http://" + testenv.FreeAddr(t) + " id=nobody"}
	for i := range 6 {
		p := &testenv.Proxy{Resolve: func(string) string { return origin.Addr() }}
		if err := p.Start("127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		b.proxies = append(b.proxies, p)
		lines = append(lines, fmt.Sprintf("%s id=p%d", p.URL("http"), i))
	}
	b.fleet = startFleet(t, strings.Join(lines, ","), "GOFER_BREAKER_FAILURE_THRESHOLD=1")
	var err error
	if b.js, err = jetstream.New(b.nats.Connect()); err != nil {
		t.Fatal(err)
	}
	nc := b.nats.Connect()
	if _, err := nc.Subscribe("gofer.*.>", b.seen.take); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return b
}

// submit publishes a job, which is recorded if it is valid.
func (b *busyRun) submit(id, payload string, valid bool) {
	b.t.Helper()
	if _, err := b.js.Publish(b.t.Context(), "gofer.jobs.default."+id, []byte(payload)); err != nil {
		b.t.Fatalf("publish %s: %v", payload, err)
	}
	if valid {
		b.seen.add("job", []byte(payload))
	}
}

// until waits for a message of a kind and does something as long as there is none.
func (b *busyRun) until(schema string, do func(n int)) {
	b.t.Helper()
	n := 0
	testenv.Eventually(b.t, "a message of "+schema, func() bool {
		if b.seen.count(schema) > 0 {
			return true
		}
		if n < 2000 {
			do(n)
			n++
		}
		return false
	})
}

// work makes the worker publish every kind of message.
func (b *busyRun) work() {
	b.t.Helper()
	policy, err := http.NewRequestWithContext(b.t.Context(), http.MethodPut, "http://"+b.addr+"/api/v1/retry/policy", strings.NewReader(`{"base_delay":"100ms","hedge":"auto"}`))
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(policy)
	if err != nil || resp.StatusCode != http.StatusOK {
		b.t.Fatalf("set the policy: %v %v", resp, err)
	}
	_ = resp.Body.Close()
	bucket, err := b.js.KeyValue(b.t.Context(), "gofer-policy")
	if err != nil {
		b.t.Fatal(err)
	}
	entry, err := bucket.Get(b.t.Context(), "retry")
	if err != nil {
		b.t.Fatal(err)
	}
	b.seen.add("policy", entry.Value())

	b.submit("full", `{"url":"http://shop.test/echo?q=tea","method":"POST","headers":{"Accept-Language":"en","X-Trace":["a","b"]},"body":"page=2",`+
		`"timeout":"20s","first_byte_timeout":"auto","not_before":"2025-01-02T15:04:05Z","deadline":"2260-01-02T16:00:00Z","retry":{"max_attempts":5,`+
		`"backoff_strategy":"linear","base_delay":1,"multiplier":2,"max_backoff_delay":"30s","jitter":true,"retry_status_codes":[429],"timeout":"5m",`+
		`"retry_non_idempotent":true,"hedge":"off"},"proxy":{"session":"cart-7"},"ban":{"statuses":[999],"body_regexp":"(?i)captcha"},`+
		`"when_no_proxy":"wait","when_site_down":"wait","follow_redirects":10,"max_body_bytes":1048576,"meta":{"order":"4711"}}`, true)
	b.submit("large", `{"url":"http://shop.test/bytes/600000"}`, true)
	b.submit("invalid", `{"url":1,"colour":"red"}`, false)
	b.submit("exhausted", `{"url":"http://shop.test/status/503","retry":{"base_delay":2.5,"jitter":false,"max_attempts":2}}`, true)
	for i := range 30 {
		b.submit(fmt.Sprint("ok", i), `{"url":"http://shop.test/ok","meta":{"n":"`+fmt.Sprint(i)+`"}}`, true)
	}
	testenv.Eventually(b.t, "all results", func() bool { return b.seen.count("result") >= 36 }) // two are dead letters
	b.until("breaker-event", func(n int) { b.submit(fmt.Sprint("more", n), `{"url":"http://shop.test/ok"}`, true) })
	b.submit("ok0", `{"url":"http://shop.test/ok"}`, true)
	b.until("duplicate-event", func(int) {})
	b.until("site-event", func(n int) {
		b.submit(fmt.Sprint("down", n), `{"url":"http://down.test/status/502","retry":{"max_attempts":1}}`, true)
	})
	for _, p := range b.proxies {
		p.Close()
	}
	b.until("pool-event", func(n int) { b.submit(fmt.Sprint("out", n), `{"url":"http://shop.test/ok"}`, true) })
}

// lines are the messages, and variants of them that lack a member or have one of a wrong type, as [schema, message].
func (r *record) lines(t *testing.T) (messages, variants [][]byte) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range jobs.SchemaNames() {
		if len(r.messages[name]) == 0 {
			t.Errorf("the run published no message of %s", name)
		}
		for i, message := range r.messages[name] {
			messages = append(messages, fmt.Appendf(nil, "[%q,%s]", name, message))
			if i > 0 {
				continue // variants of one message are enough
			}
			var members map[string]any
			if err := json.Unmarshal(message, &members); err != nil {
				t.Fatal(err)
			}
			for member, value := range members {
				for _, odd := range []any{nil, 7, "", "x", []any{}, map[string]any{}, -1, []any{""}} {
					members[member] = odd
					data, _ := json.Marshal([]any{name, members})
					variants = append(variants, data)
				}
				delete(members, member)
				data, _ := json.Marshal([]any{name, members})
				variants = append(variants, data)
				members[member] = value
			}
		}
	}
	return messages, variants
}

// validate is what the Go library says of each line; "" if the message fits its schema, as the worker serves it.
func (f *fleet) validate(t *testing.T, lines [][]byte) (said []string) {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	for _, name := range jobs.SchemaNames() {
		resp, err := http.Get("http://" + f.addr + "/api/v1/schemas/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		document, err := jsonschema.UnmarshalJSON(resp.Body)
		_ = resp.Body.Close()
		if err == nil {
			err = compiler.AddResource("test:"+name, document)
		}
		if err != nil {
			t.Fatalf("schema %s: %v", name, err)
		}
	}
	for _, line := range lines {
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		pair := value.([]any)
		schema, err := compiler.Compile("test:" + pair[0].(string))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(pair[1]); err != nil {
			said = append(said, err.Error())
		} else {
			said = append(said, "")
		}
	}
	return said
}

// TestTheMessagesOfARealRunFitTheirSchemas validates them in Go and in Node, which also agree on what does not fit.
func TestTheMessagesOfARealRunFitTheirSchemas(t *testing.T) {
	b := startBusyRun(t)
	b.work()
	messages, variants := b.seen.lines(t)
	lines := slices.Concat(messages, variants)
	said := b.validate(t, lines)
	for i, line := range messages {
		if said[i] != "" {
			t.Errorf("%.300s\n%s", line, said[i])
		}
	}
	if refused := slices.IndexFunc(said, func(s string) bool { return s != "" }); refused < 0 {
		t.Error("no variant is refused")
	}
	node := testenv.Need(t, "node")
	if _, err := os.Stat("node/node_modules/ajv"); err != nil {
		t.Skip("skipped: ajv is not installed: npm --prefix testenv/interop/node ci")
	}
	testenv.DependOn(t, "node")
	cmd := exec.CommandContext(t.Context(), node, "node/validate.mjs", "http://"+b.addr)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(bytes.Join(lines, []byte("\n"))), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node: %v", err)
	}
	answers := bufio.NewScanner(bytes.NewReader(out))
	answers.Buffer(nil, 1<<20)
	for i, line := range lines {
		var ajv string
		if !answers.Scan() || json.Unmarshal(answers.Bytes(), &ajv) != nil {
			t.Fatalf("node has no answer for %s", line)
		}
		if (ajv == "") != (said[i] == "") {
			t.Errorf("%.300s\nGo says %q, Node %q", line, said[i], ajv)
		}
	}
}
