package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/control"
)

// TestNothingThatAWorkerWritesIsObeyed: not its log, its HTTP answers, its answers over NATS, its events, nor the results of
// invalid jobs, whatever strangers send.
func TestNothingThatAWorkerWritesIsObeyed(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			w := newWorld(t, nil)
			setenv(t, "GOFER_LOG_FORMAT", format)
			setenv(t, "GOFER_LOG_LEVEL", "debug")
			w.invadeStreams()
			addr := freeAddr(t)
			p := w.worker(addr)
			w.sendForeignJobs()
			said := w.askWorker(addr)
			p.wait(t)
			said["the log"] = p.log.String()
			w.readStreams(said)
			for who, text := range said {
				if found := obeyed(text); text == "" || len(found) > 0 {
					t.Errorf("%s, %d bytes: %s", who, len(text), strings.Join(found, "\n\t"))
				}
				if found := otherZone(text); len(found) > 0 {
					t.Errorf("%s: times that are not in UTC: %v", who, found)
				}
			}
			if !strings.Contains(said["the log"], "pwned") {
				t.Errorf("the log never showed the marker:\n%s", said["the log"])
			}
		})
	}
}

// sendForeignJobs publishes jobs of a stranger, one of each kind, and waits until all of them have ended.
func (w *world) sendForeignJobs() {
	w.Helper()
	field := func(name string) string { return `{"url":"http://shop.test/ok","` + name + `":"` + inJSON + `"}` }
	payloads := []string{
		inKey, `{"url":` + inKey + `}`, `{"url":"http://shop.test/?\u009b31m\u202e` + inJSON + `"}`, `{"` + inJSON + `":1}`, field("method"), field("timeout"), field("not_before"),
		field("when_no_proxy"), field("follow_redirects"), `{"url":"http://shop.test/ok","proxy":{"id":"` + inJSON + `","tags":["` + inJSON + `"],"session":"` + inJSON + `"}}`,
		`{"url":"http://shop.test/ok","headers":{"` + inJSON + `":"` + inJSON + `"}}`, `{"url":"http://shop.test/ok","meta":{"` + inJSON + `":"` + inJSON + `"}}`,
		`{"url":"http://shop.test/ok","ban":{"body_regexp":"(` + inJSON + `\\q"}}`, `{"url":"http://shop.test/ok","retry":{"backoff_strategy":"` + inJSON + `"}}`,
		`{"url":"http://shop.test/status/503","meta":{"note":"` + "\u009b31m\u202e" + `"},"retry":{"max_attempts":2,"base_delay":0.1}}`,
	}
	payloads = append(payloads, `{"url":"http://shop.test/?`+"\u009b31m\u202e"+`","proxy":{"id":"nobody"}}`, "http://shop.test/?\u009b31m\u202e",
		`{"url":"http://shop.test/?`+"\u009b31m\u202e"+`","deadline":"2020-01-02T15:04:05Z"}`)
	for i, payload := range payloads {
		// UTF-8 of its own, so that more than the first look at the payload sees it.
		w.publish(fmt.Sprint("valid", i), strings.ReplaceAll(payload, "\xff", ""))
		w.publish(fmt.Sprint("bytes", i), payload)
	}
	w.publish("named"+inKey, "http://shop.test/ok")
	for i := range payloads {
		w.result(fmt.Sprint("valid", i))
		w.result(fmt.Sprint("bytes", i))
	}
}

// askWorker is what a worker answers to a stranger's requests.
func (w *world) askWorker(addr string) map[string]string {
	w.Helper()
	said := map[string]string{}
	mark := url.PathEscape(inKey)
	for _, path := range []string{
		"/readyz?verbose", "/metrics?proxies=all", "/metrics?proxies=" + mark, "/" + mark, "/page/" + mark, "/api/v1/circuit-breakers", "/api/v1/circuit-breakers/" + mark,
		"/api/v1/circuit-breakers/metrics?hours=" + mark, "/api/v1/circuit-breakers/metrics", "/api/v1/metrics/retries?scope=" + mark, "/api/v1/metrics/retries",
		"/api/v1/metrics/retries/timeseries", "/api/v1/metrics/retries/by-proxy", "/api/v1/metrics/retries/by-policy", "/api/v1/retry/policy",
		"/api/v1/sites", "/api/v1/sites?limit=" + mark,
	} {
		_, said["GET "+path] = w.get("http://" + addr + path)
	}
	said["PUT of a policy"] = w.send(http.MethodPut, "http://"+addr+"/api/v1/retry/policy", `{"backoff_strategy":"`+inJSON+`","`+strings.ReplaceAll(inJSON, "\xff", "")+`":1}`)
	said["PUT of a policy in UTF-8"] = w.send(http.MethodPut, "http://"+addr+"/api/v1/retry/policy", `{"backoff_strategy":"`+strings.ReplaceAll(inJSON, "\xff", "")+`"}`)
	said["POST of a site's reset"] = w.send(http.MethodPost, "http://"+addr+"/api/v1/sites/"+mark+"/reset", "")
	said["POST of a reset"] = w.send(http.MethodPost, "http://"+addr+"/api/v1/circuit-breakers/"+mark+"/reset", "")
	resp, err := http.Get("http://" + addr + "/api/v1/live")
	if err != nil {
		w.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	said["the live stream"], _ = bufio.NewReader(resp.Body).ReadString('\n')
	for _, verb := range []string{control.Workers, control.Breakers, control.Policy, control.Rollups, control.Pause, control.ResetBreakers, control.Sites, control.ResetSite} {
		for _, request := range []string{"", inKey, `{"` + inJSON + `":1}`, `{"queue":"` + inJSON + `","proxy_id":"` + inJSON + `"}`} {
			msg, err := w.nc.Request("gofer.ctl."+verb, []byte(request), patience)
			if err != nil {
				w.Fatalf("%s %q: %v", verb, request, err)
			}
			said[fmt.Sprintf("%s of %q", verb, request)] = fmt.Sprint(msg.Header, string(msg.Data))
		}
	}
	return said
}

// net/http has a log of its own, for what comes when no answer is expected.
func TestWhatATargetSendsOutOfTurnIsNotLogged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	proxy := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		c, _, err := rw.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npwned\n")
	})}
	defer func() { _ = proxy.Close() }()
	go func() { _ = proxy.Serve(l) }()
	setenv(t, "GOFER_PROXIES", "http://"+l.Addr().String()+" id=p")
	setenv(t, "GOFER_LOG_LEVEL", "debug")
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil { // the worker may come to it later than the jobs
		t.Fatal(err)
	}
	p := launch(t, command(t, "", "worker"), nil)
	for i := range 20 {
		id := fmt.Sprint("head", i)
		w.publish(id, `{"url":"http://shop.test/","method":"HEAD"}`)
		if r := w.result(id); r.Outcome != jobs.Succeeded {
			t.Errorf("job %s: %s %s", id, r.Error, r.Detail)
		}
	}
	p.signal(syscall.SIGTERM)
	p.end(patience)
	if text := p.err.String(); !strings.Contains(text, "worker started") || strings.Contains(text, "pwned") {
		t.Errorf("the log:\n%s", text)
	}
}

func (w *world) send(method, url, body string) string {
	w.Helper()
	req, err := http.NewRequestWithContext(w.Context(), method, url, strings.NewReader(body))
	if err != nil {
		w.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		w.Fatal(err)
	}
	return string(data)
}

// readStreams adds each message that the worker stored: not those of invadeStreams, and not the jobs themselves.
func (w *world) readStreams(said map[string]string) {
	w.Helper()
	js, err := jetstream.New(w.nc)
	if err != nil {
		w.Fatal(err)
	}
	for _, name := range []string{"GOFER_RESULTS", "GOFER_EVENTS", "GOFER_DEAD"} {
		stream, err := js.Stream(w.Context(), name)
		if err != nil {
			w.Fatal(err)
		}
		state := stream.CachedInfo().State
		for seq := state.FirstSeq; seq <= state.LastSeq; seq++ {
			msg, err := stream.GetMsg(w.Context(), seq)
			if err != nil {
				continue // removed
			}
			data := string(msg.Data)
			if name == "GOFER_DEAD" {
				data = ""
			}
			id := msg.Header.Get(jobs.HeaderJobID)
			var event struct {
				ID string `json:"job_id"`
			}
			_ = json.Unmarshal(msg.Data, &event)
			if strings.HasPrefix(id+event.ID, "valid") || strings.HasPrefix(id+event.ID, "bytes") || strings.HasPrefix(id+event.ID, "invalid-") {
				delete(msg.Header, "Gofer-Meta-note") // the publisher gets back what it sent
				said[fmt.Sprint("message ", seq, " of ", name)] = fmt.Sprint(msg.Subject, msg.Header, data)
			}
		}
	}
}
