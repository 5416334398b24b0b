package peers_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/gofer-mq/gofer/testenv"
)

// The work is that of BenchmarkThroughput in testenv/bench: the same number of slots, proxies and bytes.
const (
	slots        = 64
	forwarders   = 20
	bodyBytes    = 1 << 10
	redisEnv     = "PEERS_REDIS"
	forwarderEnv = "PEERS_PROXIES"
)

// TestMain makes this binary a worker of asynq when it is started as that.
func TestMain(m *testing.M) {
	if os.Getenv(redisEnv) != "" {
		if err := asynqWorker(os.Getenv(redisEnv), strings.Split(os.Getenv(forwarderEnv), ",")); err != nil {
			fmt.Fprintln(os.Stderr, "asynq:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// BenchmarkAsynq fetches the jobs of BenchmarkThroughput with asynq and Redis: b.N of them, so run it with -benchtime=20000x. A
// result is kept with its task for an hour. CPU is that of the worker's process; Redis, the proxies and the origin run elsewhere.
func BenchmarkAsynq(b *testing.B) {
	redis := startRedis(b)
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Repeat([]byte("x"), bodyBytes)) }))
	b.Cleanup(origin.Close)
	var proxies []string
	for range forwarders {
		transport := &http.Transport{MaxIdleConnsPerHost: slots}
		b.Cleanup(transport.CloseIdleConnections)
		proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(*httputil.ProxyRequest) {}, Transport: transport})
		b.Cleanup(proxy.Close)
		proxies = append(proxies, proxy.URL)
	}
	client := asynq.NewClient(asynq.RedisClientOpt{Addr: redis})
	defer func() { _ = client.Close() }()
	for i := range b.N {
		if _, err := client.Enqueue(asynq.NewTask("fetch", []byte(origin.URL+"/")), asynq.TaskID(fmt.Sprint(i)), asynq.Retention(time.Hour)); err != nil {
			b.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.CommandContext(b.Context(), self)
	cmd.Env = append(os.Environ(), redisEnv+"="+redis, forwarderEnv+"="+strings.Join(proxies, ","))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	first := awaitCompleted(b, redis, 1)
	last := awaitCompleted(b, redis, b.N)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		b.Error(err)
	}
	_ = cmd.Wait()
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	b.ReportMetric(float64(b.N-1)/last.Sub(first).Seconds(), "jobs/s")
	b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "cpu-µs/job")
	b.ReportMetric(0, "ns/op") // it includes the time in which the tasks were published
}

// asynqWorker fetches the URLs of tasks through the proxies in turn, until SIGTERM.
func asynqWorker(redis string, list []string) error {
	var proxies []*url.URL
	for _, text := range list {
		u, err := url.Parse(text)
		if err != nil {
			return err
		}
		proxies = append(proxies, u)
	}
	var next atomic.Uint64
	client := &http.Client{Transport: &http.Transport{
		Proxy:               func(*http.Request) (*url.URL, error) { return proxies[next.Add(1)%uint64(len(proxies))], nil },
		MaxIdleConnsPerHost: slots,
	}}
	server := asynq.NewServer(asynq.RedisClientOpt{Addr: redis}, asynq.Config{Concurrency: slots, LogLevel: asynq.ErrorLevel})
	return server.Run(asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, string(task.Payload()), http.NoBody)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			return err
		}
		_, err = task.ResultWriter().Write(body)
		return err
	}))
}

// awaitCompleted polls until n tasks have their results, and returns when it saw that.
func awaitCompleted(b *testing.B, redis string, n int) time.Time {
	b.Helper()
	inspector := asynq.NewInspector(asynq.RedisClientOpt{Addr: redis})
	defer func() { _ = inspector.Close() }()
	testenv.Eventually(b, "the tasks to complete", func() bool {
		info, err := inspector.GetQueueInfo("default")
		return err == nil && info.Completed >= n
	})
	return time.Now()
}

// startRedis runs a Redis server that keeps what it acknowledges, as asynq needs it, until the benchmark ends.
func startRedis(b *testing.B) (address string) {
	b.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		b.Skip("redis-server is not installed (Debian: redis-server)")
	}
	port := freePort(b)
	cmd := exec.CommandContext(b.Context(), path, "--bind", "127.0.0.1", "--port", port, "--dir", b.TempDir(), "--appendonly", "yes", "--save", "", "--loglevel", "warning")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Wait() })
	address = net.JoinHostPort("127.0.0.1", port)
	testenv.Eventually(b, "Redis to listen", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return address
}

// freePort returns a port of loopback that nothing listens on.
func freePort(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}
