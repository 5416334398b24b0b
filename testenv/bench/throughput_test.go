// Package bench measures gofer as a whole: the built program, in a process of its own, beside the fewest steps that could do
// the same work, on the same servers in the same run.
package bench_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

const (
	proxies   = 20
	bodyBytes = 1 << 10
	httpAddr  = "127.0.0.1:19090"
)

// TestMain makes this binary the loop when it is started as that.
func TestMain(m *testing.M) {
	if os.Getenv("BENCH_NATS_URL") != "" {
		if err := loop(); err != nil {
			fmt.Fprintln(os.Stderr, "loop:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// BenchmarkThroughput fetches jobs of 1 KiB through 20 local proxies: b.N of them, so run it with -benchtime=20000x. The
// jobs wait already when the worker starts. CPU and peak memory are those of the worker's process, as the kernel counts
// them; the servers, the proxies and the origin run in this one.
func BenchmarkThroughput(b *testing.B) {
	w := work{slots: 64}
	b.Run("loop", func(b *testing.B) { measure(b, loopCommand(), w) })
	// What the promise of one result costs: the same loop with a guard on the result and a confirmed ack.
	b.Run("loop-guarded", func(b *testing.B) { measure(b, loopCommand("BENCH_GUARDED=true"), w) })
	// What no worker with this promise can save.
	b.Run("limit", func(b *testing.B) { measure(b, loopCommand("BENCH_LIMIT=true"), w) })
	b.Run("gofer", func(b *testing.B) { measure(b, goferCommand(b), w) })
	w.payload = jsonJob
	b.Run("gofer-json", func(b *testing.B) { measure(b, goferCommand(b), w) })
}

// BenchmarkSlowAnswers has 5,000 jobs in flight whose answers take 2 s, so run it with -benchtime=20000x.
func BenchmarkSlowAnswers(b *testing.B) {
	w := work{slots: 5000, delay: 2 * time.Second}
	b.Run("loop", func(b *testing.B) { measure(b, loopCommand(), w) })
	b.Run("gofer", func(b *testing.B) { measure(b, goferCommand(b), w) })
}

// work is what a contender has to do.
type work struct {
	slots   int                        // jobs at once
	delay   time.Duration              // of each answer
	payload func(target string) string // of each job; nil means bareURL
	behind  int                        // jobs that wait behind those that are measured
}

// bareURL and jsonJob are what a job is.
func bareURL(target string) string { return target }

func jsonJob(target string) string {
	return `{"url":"` + target + `","headers":{"Accept-Language":"en","X-Trace":["a","b"]},"meta":{"order":"4711"},"retry":{"max_attempts":5,"base_delay":"1s"}}`
}

// BenchmarkBacklog is the same work with little and with much waiting behind it.
func BenchmarkBacklog(b *testing.B) {
	for _, waiting := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprint("waiting=", waiting), func(b *testing.B) { measure(b, goferCommand(b), work{slots: 64, behind: waiting}) })
	}
}

// contender makes the command that works off the jobs.
type contender func(ctx context.Context, w work, nats string, proxies []string) *exec.Cmd

func loopCommand(env ...string) contender {
	return func(ctx context.Context, w work, nats string, list []string) *exec.Cmd {
		self, _ := os.Executable()
		cmd := exec.CommandContext(ctx, self)
		cmd.Env = append(append(os.Environ(), env...), "BENCH_NATS_URL="+nats, fmt.Sprint("BENCH_SLOTS=", w.slots), "GOFER_PROXIES="+strings.Join(list, ","))
		return cmd
	}
}

// goferCommand runs the program that BENCH_GOFER names, or builds it. So two builds can be measured in turn.
func goferCommand(b *testing.B) contender {
	b.Helper()
	path := os.Getenv("BENCH_GOFER")
	if path == "" {
		path = filepath.Join(b.TempDir(), "gofer")
		build := exec.CommandContext(b.Context(), "go", "build", "-o", path, "github.com/gofer-mq/gofer/cmd/gofer")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			b.Fatal(err)
		}
	}
	return func(ctx context.Context, w work, nats string, list []string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, path, "worker")
		cmd.Env = append(os.Environ(), "GOFER_NATS_URL="+nats, "GOFER_PROXIES="+strings.Join(list, ","), "GOFER_HTTP_ADDR="+httpAddr,
			"GOFER_ALLOW_PRIVATE_TARGETS=true", "GOFER_LOG_LEVEL=warn", fmt.Sprint("GOFER_CONCURRENCY=", w.slots))
		return cmd
	}
}

// pass lets a time pass, and returns sooner if ctx ends.
func pass(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// measure lets a contender work off b.N jobs.
func measure(b *testing.B, command contender, w work) {
	b.Helper()
	origin := serve(b, http.HandlerFunc(func(response http.ResponseWriter, r *http.Request) {
		pass(r.Context(), w.delay)
		_, _ = response.Write(bytes.Repeat([]byte("x"), bodyBytes))
	}))
	list := forwardProxies(b, w.slots)
	srv, js := startServer(b)
	payload := bareURL
	if w.payload != nil {
		payload = w.payload
	}
	publish(b, js, "job", payload("http://"+origin+"/"), b.N+w.behind)

	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Minute)
	defer cancel()
	cmd := command(ctx, w, srv.ClientURL(), list)
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	first := await(ctx, b, js, 1)
	profiled := profile(ctx, b)
	last := await(ctx, b, js, uint64(b.N))
	profiled()
	peak := peakMemory(b, cmd.Process.Pid)
	cancel()
	_ = cmd.Wait()

	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	b.ReportMetric(float64(b.N-1)/last.Sub(first).Seconds(), "jobs/s")
	b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "cpu-µs/job")
	b.ReportMetric(peak, "peak-MiB")
	b.ReportMetric(0, "ns/op") // the time of b.N jobs together says nothing that jobs/s does not
}

// peakMemory is the most memory, in MiB, that a process has held. The kernel's other figure for it, that of wait, begins with
// the memory of the parent.
func peakMemory(b *testing.B, pid int) (mib float64) {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Log("peak memory is not known here:", err)
		return 0
	}
	_, line, _ := strings.Cut(string(status), "VmHWM:")
	_, _ = fmt.Sscan(line, &mib)
	return mib / 1024
}

// profile takes a CPU profile of gofer while it works, and writes it to the file that BENCH_CPU_PROFILE names.
func profile(ctx context.Context, b *testing.B) (wait func()) {
	b.Helper()
	path := os.Getenv("BENCH_CPU_PROFILE")
	if path == "" || !strings.HasSuffix(b.Name(), "/gofer") {
		return func() {}
	}
	done := make(chan error, 1)
	go func() { done <- download(ctx, "http://"+httpAddr+"/debug/pprof/profile?seconds=4", path) }()
	return func() {
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
}

func download(ctx context.Context, url, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

// await polls until the result stream holds n results, and returns when it saw that.
func await(ctx context.Context, b *testing.B, js jetstream.JetStream, n uint64) time.Time {
	b.Helper()
	for {
		stream, err := js.Stream(ctx, "GOFER_RESULTS")
		if err != nil {
			b.Fatal(err)
		}
		if stream.CachedInfo().State.Msgs >= n {
			return time.Now()
		}
		select {
		case <-ctx.Done():
			b.Fatalf("%d of %d results in time", stream.CachedInfo().State.Msgs, n)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func publish(b *testing.B, js jetstream.JetStream, prefix, payload string, count int) {
	b.Helper()
	var last jetstream.PubAckFuture
	for i := range count {
		f, err := js.PublishAsync(fmt.Sprintf("gofer.jobs.default.%s-%d", prefix, i), []byte(payload), jetstream.WithStallWait(time.Minute))
		if err != nil {
			b.Fatal(err)
		}
		last = f
	}
	select {
	case <-js.PublishAsyncComplete():
	case err := <-last.Err():
		b.Fatal(err)
	case <-time.After(time.Minute):
		b.Fatal("the jobs were not accepted within a minute")
	}
}

func startServer(b *testing.B) (*server.Server, jetstream.JetStream) {
	b.Helper()
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: b.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		b.Fatal(err)
	}
	srv.Start()
	b.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	nc, err := nats.Connect(srv.ClientURL())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(nc.Close)
	names, err := jobs.NewNames("")
	if err != nil {
		b.Fatal(err)
	}
	client, err := bus.New(nc, names)
	if err != nil {
		b.Fatal(err)
	}
	if err := client.Ensure(b.Context(), bus.Settings{}); err != nil {
		b.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		b.Fatal(err)
	}
	return srv, js
}

func forwardProxies(b *testing.B, slots int) []string {
	b.Helper()
	out := make([]string, proxies)
	for i := range out {
		transport := &http.Transport{MaxIdleConnsPerHost: slots}
		b.Cleanup(transport.CloseIdleConnections)
		out[i] = "http://" + serve(b, forward(transport))
	}
	return out
}

// forward is a forward proxy for plain HTTP, and no more than that.
func forward(transport *http.Transport) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RequestURI = ""
		resp, err := transport.RoundTrip(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer func() { _ = resp.Body.Close() }()
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	})
}

func serve(b *testing.B, h http.Handler) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	b.Cleanup(func() { _ = s.Close(); <-done })
	return l.Addr().String()
}
