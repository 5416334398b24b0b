package fetch_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// BenchmarkExchange is a whole job of one attempt beside the same request through a bare http.Transport with a fixed proxy:
// 1 KiB, connections reused. The proxy and the origin run in the same process, so the CPU of both is in "cpu-us/op".
func BenchmarkExchange(b *testing.B) {
	for _, target := range []string{"http://shop.test/bytes/1024", "https://example.com/bytes/1024"} {
		name, _, _ := strings.Cut(target, ":")
		b.Run(name+"/gofer", func(b *testing.B) { benchmarkGofer(b, target) })
		b.Run(name+"/transport", func(b *testing.B) { benchmarkTransport(b, target) })
	}
}

func benchmarkProxy(b *testing.B) (proxy string, roots *x509.CertPool) {
	b.Helper()
	plain, secure := testenv.StartOrigin(b, false), testenv.StartOrigin(b, true)
	p := &testenv.Proxy{Resolve: func(target string) string {
		if strings.HasPrefix(target, "shop.test:") {
			return plain.Addr()
		}
		return secure.Addr()
	}}
	if err := p.Start("127.0.0.1:0"); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.Close)
	roots = x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	return p.URL("http"), roots
}

func benchmarkGofer(b *testing.B, target string) {
	b.Helper()
	line, roots := benchmarkProxy(b)
	list, err := proxylist.ParseList(strings.NewReader(line))
	if err != nil {
		b.Fatal(err)
	}
	pool := rotation.New(rotation.Config{})
	pool.Replace(list)
	policy := jobs.DefaultPolicy()
	f := fetch.New(fetch.Config{Pool: pool, Policy: func() jobs.Policy { return policy }, RootCAs: roots, Worker: "w"})
	b.Cleanup(f.Close)
	job, err := jobs.Decode("default", "j", []byte(target))
	if err != nil {
		b.Fatal(err)
	}
	measured(b, func() {
		if o := f.Do(b.Context(), &job, &jobs.Progress{}); len(o.Result.Body) != 1024 {
			b.Fatalf("%s %v", o.Result.Error, o.Result.Attempts)
		}
	})
}

func benchmarkTransport(b *testing.B, target string) {
	b.Helper()
	line, roots := benchmarkProxy(b)
	proxy, err := url.Parse(line)
	if err != nil {
		b.Fatal(err)
	}
	tr := &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true, DisableCompression: true}
	b.Cleanup(tr.CloseIdleConnections)
	measured(b, func() {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, target, nil)
		if err != nil {
			b.Fatal(err)
		}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			b.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if _ = resp.Body.Close(); err != nil || len(body) != 1024 {
			b.Fatal(len(body), err)
		}
	})
}

func measured(b *testing.B, do func()) {
	b.Helper()
	do() // dials
	b.ReportAllocs()
	before := cpu(b)
	for b.Loop() {
		do()
	}
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-us/op")
}

// cpu is what this process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
