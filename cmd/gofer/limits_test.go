package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/testenv"
)

// configured makes a test's server from a configuration as its owner writes it: what is in the block of JetStream, and in that of
// an account's.
func configured(t *testing.T, jetStream, account string) func(*server.Options) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "server.conf")
	text := fmt.Sprintf(`jetstream { store_dir: %q, %s }
		accounts { A { jetstream: { %s }, users: [ { user: u, password: p } ] } }
		no_auth_user: u`, t.TempDir(), jetStream, account)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(o *server.Options) {
		opts, err := server.ProcessConfigFile(file)
		if err != nil {
			t.Fatal(err)
		}
		opts.ServerName, opts.Host, opts.Port, opts.NoSigs, opts.NoLog = o.ServerName, o.Host, o.Port, true, true
		*o = *opts
	}
}

// TestLimitOfAnAccountIsNamedWithItsRemedy has a server for each limit that keeps gofer from its streams and consumers. A worker
// ends with exit code 78; doctor promises nothing that gofer setup cannot do.
func TestLimitOfAnAccountIsNamedWithItsRemedy(t *testing.T) {
	t.Parallel()
	const unlimited = "max_mem: -1, max_file: -1"
	for name, c := range map[string]struct {
		jetStream, account string
		env                map[string]string
		reason, remedy     string
		hidden             bool // the limit is the server's, which says nothing about it to this user
	}{
		"a bound for every stream": {account: "max_bytes_required: true", reason: "account requires a stream config to have max bytes set", remedy: "set GOFER_JOBS_MAX_BYTES and GOFER_RESULTS_MAX_BYTES"},
		"few streams":              {account: "max_streams: 5", reason: "maximum number of streams reached", remedy: "max_streams: gofer needs 11"},
		"few consumers":            {account: "max_consumers: 1", env: map[string]string{"GOFER_QUEUES": "a,b"}, reason: "maximum consumers limit reached", remedy: "GOFER_QUEUES"},
		"little room for a stream": {
			account: "store_max_stream_bytes: 1MB", env: map[string]string{"GOFER_RESULTS_MAX_BYTES": "2000000"},
			reason: "stream max bytes exceeds account limit max stream bytes", remedy: "set GOFER_JOBS_MAX_BYTES and GOFER_RESULTS_MAX_BYTES, both of them and lower",
		},
		"little room": {
			account: "max_file: 40MB", env: map[string]string{"GOFER_RESULTS_MAX_BYTES": "30000000", "GOFER_JOBS_MAX_BYTES": "30000000"},
			reason: "insufficient storage resources available", remedy: "set GOFER_JOBS_MAX_BYTES and GOFER_RESULTS_MAX_BYTES, both of them and lower",
		},
		"little room on the server": {
			jetStream: "max_file_store: 40MB", account: unlimited, env: map[string]string{"GOFER_RESULTS_MAX_BYTES": "30000000", "GOFER_JOBS_MAX_BYTES": "30000000"},
			reason: "insufficient storage resources available", remedy: "set GOFER_JOBS_MAX_BYTES and GOFER_RESULTS_MAX_BYTES, both of them and lower", hidden: true,
		},
		"replicas without a cluster": {
			account: unlimited, env: map[string]string{"GOFER_REPLICAS": "3"}, reason: "replicas > 1 not supported in non-clustered mode", remedy: "set GOFER_REPLICAS=1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, configured(t, c.jetStream, c.account))
			for name, value := range c.env {
				setenv(t, name, value)
			}
			said := func(where, text string) {
				t.Helper()
				if !strings.Contains(text, c.reason) || !strings.Contains(text, c.remedy) {
					t.Errorf("%s says\n%s\nwant %q and %q in it", where, text, c.reason, c.remedy)
				}
			}
			code, out, _ := gofer(t, "", "doctor")
			if !c.hidden {
				said("doctor", out)
			}
			if code != exitFailed {
				t.Errorf("doctor: exit %d, want %d", code, exitFailed)
			}
			code, _, errOut := gofer(t, "", "setup")
			said("setup", errOut)
			if code != exitConfig {
				t.Errorf("setup: exit %d, want %d", code, exitConfig)
			}
			p := w.start("worker")
			testenv.Eventually(t, "the worker to end", func() bool { return len(p.code) > 0 })
			said("the worker", p.log.String())
			if code := p.wait(t); code != exitConfig {
				t.Errorf("worker: exit %d, want %d", code, exitConfig)
			}
			if _, out, _ := gofer(t, "", "doctor"); !c.hidden && strings.Contains(out, "creates it") {
				t.Errorf("setup has done what it can, and doctor promises more:\n%s", out)
			}
		})
	}
}

// TestLimitThatGoferCanKeepToIsKept has limits that leave gofer enough, if it asks for no more.
func TestLimitThatGoferCanKeepToIsKept(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		jetStream, account string
		env                map[string]string
	}{
		"a bound for every stream": {
			account: "max_bytes_required: true, max_file: 128MB", env: map[string]string{"GOFER_JOBS_MAX_BYTES": "8000000", "GOFER_RESULTS_MAX_BYTES": "8000000"},
		},
		"little room for a stream": {
			account: "store_max_stream_bytes: 8MB", env: map[string]string{"GOFER_JOBS_MAX_BYTES": "8000000", "GOFER_RESULTS_MAX_BYTES": "8000000"},
		},
		"few jobs in hand":       {account: "max_ack_pending: 20"},
		"few jobs on the server": {jetStream: "limits: { max_ack_pending: 30 }", account: "max_mem: -1"},
		"small pulls":            {jetStream: "limits: { max_request_batch: 2 }", account: "max_mem: -1"},
		"short windows":          {jetStream: "limits: { duplicate_window: 1s }", account: "max_mem: -1"},
		"as many as are needed":  {account: "max_streams: 12, max_consumers: 4"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, configured(t, c.jetStream, c.account))
			for name, value := range c.env {
				setenv(t, name, value)
			}
			w.worker(freeAddr(t))
			for i := range 5 {
				w.publish(fmt.Sprint("j", i), job("/ok", nil))
			}
			for i := range 5 {
				w.result(fmt.Sprint("j", i))
			}
			if code, out, _ := gofer(t, "", "doctor"); code != exitOK {
				t.Errorf("doctor: exit %d\n%s", code, out)
			}
			if code, _, errOut := gofer(t, "", "setup"); code != exitOK {
				t.Errorf("setup: exit %d\n%s", code, errOut)
			}
		})
	}
}

func TestConsumerInTheWayIsNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if code, _, errOut := gofer(t, "", "setup"); code != exitOK {
		t.Fatal(errOut)
	}
	js, err := jetstream.New(w.nc)
	if err != nil {
		t.Fatal(err)
	}
	_, err = js.CreateConsumer(t.Context(), "GOFER_JOBS", jetstream.ConsumerConfig{
		Durable: "peek", FilterSubject: "gofer.jobs.fresh.>", AckPolicy: jetstream.AckExplicitPolicy,
	})
	if err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	running := w.worker(addr)
	setenv(t, "GOFER_QUEUES", "fresh")
	const want = "consumer peek of stream GOFER_JOBS (filter gofer.jobs.fresh.>) is in the way"
	_, doctor, _ := gofer(t, "", "doctor")
	code, _, setup := gofer(t, "", "setup")
	if code != exitConfig {
		t.Errorf("setup: exit %d, want %d", code, exitConfig)
	}
	setenv(t, "GOFER_HTTP_ADDR", freeAddr(t))
	p := w.start("worker")
	testenv.Eventually(t, "the worker to end", func() bool { return len(p.code) > 0 })
	if code := p.wait(t); code != exitConfig {
		t.Errorf("worker: exit %d, want %d", code, exitConfig)
	}
	for where, text := range map[string]string{"doctor": doctor, "setup": setup, "the worker": p.log.String()} {
		if !strings.Contains(text, want) || !strings.Contains(text, "nats consumer rm") {
			t.Errorf("%s says\n%s\nwant %q and what to do", where, text, want)
		}
	}
	// Under a worker that runs, too.
	if err := js.DeleteConsumer(t.Context(), "GOFER_JOBS", "worker-default"); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "another consumer to be in the way", func() bool {
		_, err := js.CreateConsumer(t.Context(), "GOFER_JOBS", jetstream.ConsumerConfig{
			Durable: "peek2", FilterSubject: "gofer.jobs.default.>", AckPolicy: jetstream.AckExplicitPolicy,
		})
		if err != nil {
			_ = js.DeleteConsumer(t.Context(), "GOFER_JOBS", "worker-default")
		}
		return err == nil
	})
	testenv.Eventually(t, "the running worker to name it", func() bool {
		_, body := w.get("http://" + addr + "/readyz?verbose")
		return strings.Contains(body, "consumer peek2 of stream GOFER_JOBS (filter gofer.jobs.default.>) is in the way")
	})
	running.wait(t)
}

func TestStreamInTheWayIsNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	js, err := jetstream.New(w.nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "AUDIT", Subjects: []string{"gofer.events.>"}}); err != nil {
		t.Fatal(err)
	}
	_, doctor, _ := gofer(t, "", "doctor")
	code, _, setup := gofer(t, "", "setup")
	for where, text := range map[string]string{"doctor": doctor, "setup": setup} {
		if code != exitConfig || !strings.Contains(text, "stream AUDIT is in the way") || !strings.Contains(text, "GOFER_PREFIX") {
			t.Errorf("%s (exit %d) says\n%s\nwant the stream named and what to do", where, code, text)
		}
	}
}
