package experiments_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// fleet is real proxies on loopback, and a site behind them.
type fleet struct {
	proxies []*testenv.Proxy
	list    []proxylist.Proxy
	pool    *rotation.Pool
}

func startFleet(t *testing.T, size int) *fleet {
	t.Helper()
	site := testenv.StartOrigin(t, false)
	f := &fleet{pool: rotation.New(rotation.Config{})}
	var lines []string
	for range size {
		p := &testenv.Proxy{Resolve: func(string) string { return site.Addr() }}
		if err := p.Start("127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		f.proxies = append(f.proxies, p)
		lines = append(lines, p.URL("http"))
	}
	list, err := proxylist.ParseList(strings.NewReader(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	f.list = list
	f.pool.Replace(list)
	return f
}

// id is a proxy's in the pool.
func (f *fleet) id(p *testenv.Proxy) string {
	for _, s := range f.pool.Status() {
		if strings.HasSuffix(s.Addr, p.Addr()) {
			return s.ID
		}
	}
	return ""
}

// urls are where the proxies are.
func (f *fleet) urls(t *testing.T) (urls []*url.URL) {
	t.Helper()
	for _, p := range f.proxies {
		u, err := url.Parse(p.URL("http"))
		if err != nil {
			t.Fatal(err)
		}
		urls = append(urls, u)
	}
	return urls
}

// fetcher has room for every connection, so that none is opened twice.
func (f *fleet) fetcher(t *testing.T, cfg fetch.Config) *fetch.Fetcher {
	t.Helper()
	cfg.Pool, cfg.Worker, cfg.MaxIdle, cfg.IdlePerKey = f.pool, "w", 4096, 512
	if cfg.Policy == nil {
		cfg.Policy = jobs.DefaultPolicy
	}
	fetcher := fetch.New(cfg)
	t.Cleanup(fetcher.Close)
	return fetcher
}

func decode(t *testing.T, target string) *jobs.Job {
	t.Helper()
	job, err := jobs.Decode("default", "j", []byte(target))
	if err != nil {
		t.Fatal(err)
	}
	return &job
}
