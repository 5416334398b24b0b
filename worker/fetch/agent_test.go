package fetch_test

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// TestARequestHasTheAgentOfTheJobOrOfTheWorker looks at what the proxy receives, of a CONNECT too.
func TestARequestHasTheAgentOfTheJobOrOfTheWorker(t *testing.T) {
	for payload, want := range map[string]string{
		`{"url":"http://example.com/"}`:                                          "crawler/1",
		`{"url":"http://example.com/","headers":{"user-agent":"mine"}}`:          "mine",
		`{"url":"https://example.com/","headers":{"User-Agent":"for the site"}}`: "crawler/1",
	} {
		if got := agentOf(t, payload); got != want {
			t.Errorf("%s: User-Agent %q, want %q", payload, got, want)
		}
	}
}

// agentOf returns the User-Agent of the first request that a job sends to its proxy.
func agentOf(t *testing.T, payload string) (agent string) {
	t.Helper()
	pool := rotation.New(rotation.Config{})
	p, err := proxylist.ParseLine("http://proxy.test:3128 id=p")
	if err != nil {
		t.Fatal(err)
	}
	pool.Replace([]proxylist.Proxy{p})
	policy := jobs.DefaultPolicy()
	policy.MaxAttempts = 1
	var serving sync.WaitGroup
	f := fetch.New(fetch.Config{
		Pool: pool, Policy: func() jobs.Policy { return policy }, UserAgent: "crawler/1",
		Dial: func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			serving.Go(func() {
				defer func() { _ = server.Close() }()
				if req, err := http.ReadRequest(bufio.NewReader(server)); err == nil {
					agent = req.UserAgent()
				}
			})
			return client, nil
		},
	})
	job, err := jobs.Decode("default", "j", []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	f.Do(t.Context(), &job, &jobs.Progress{})
	f.Close()
	serving.Wait()
	return agent
}
