package fetch_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// rawRequest is the head of a request, line by line, and its body.
type rawRequest struct {
	lines []string
	body  []byte
}

// readRaw reads a request with a body of a known length.
func readRaw(in *bufio.Reader) (r rawRequest, err error) {
	length := 0
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return r, err
		}
		if line == "\r\n" {
			break
		}
		r.lines = append(r.lines, strings.TrimSuffix(line, "\r\n"))
		_, _ = fmt.Sscanf(line, "Content-Length: %d\r\n", &length)
	}
	r.body = make([]byte, length)
	_, err = io.ReadFull(in, r.body)
	return r, err
}

// has reports whether the head has each line.
func (r rawRequest) has(lines ...string) bool {
	return !slices.ContainsFunc(lines, func(line string) bool { return !slices.Contains(r.lines, line) })
}

// What a job says of its request is what the target gets, twice in the same bytes.
func TestTheRequestOfAJobArrivesAsItWasGiven(t *testing.T) {
	pool := rotation.New(rotation.Config{})
	pool.Replace([]proxylist.Proxy{{ID: "p", URL: &url.URL{Scheme: "http", Host: "p.test:80"}}})
	rapid.Check(t, func(t *rapid.T) {
		method := rapid.SampledFrom([]string{"GET", "POST", "PUT", "DELETE", "purge", "M-SEARCH"}).Draw(t, "method")
		target := "/" + rapid.StringMatching(`[a-z%|.;=]{0,10}(\?[a-z%&=|]{0,10})?`).Draw(t, "target")
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[xX]-[a-zA-Z_.]{1,6}`), 0, 5, rapid.ID).Draw(t, "names")
		value := rapid.StringMatching(`[!-~]([ -~]{0,10}[!-~])?`)
		headers := map[string][]string{}
		var want []string
		for _, name := range names {
			headers[name] = rapid.SliceOfN(value, 1, 3).Draw(t, "values")
			for _, v := range headers[name] {
				want = append(want, name+": "+v)
			}
		}
		body := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "body")
		payload, err := json.Marshal(map[string]any{"url": "http://a.test" + target, "method": method, "headers": headers, "body_base64": body})
		if err != nil {
			t.Fatal(err)
		}
		var got []rawRequest
		for range 2 {
			got = append(got, requestsOf(t, pool, payload)...)
		}
		if len(got) != 2 || !got[0].has(append(want, method+" http://a.test"+target+" HTTP/1.1", "Host: a.test")...) || !bytes.Equal(got[0].body, body) {
			t.Fatalf("job %s: got %q", payload, got)
		}
		if strings.Join(got[0].lines, "\n") != strings.Join(got[1].lines, "\n") {
			t.Fatalf("job %s: got %q, and then %q", payload, got[0].lines, got[1].lines)
		}
	})
}

// requestsOf runs a job and returns the requests that it makes.
func requestsOf(t *rapid.T, pool *rotation.Pool, payload []byte) (requests []rawRequest) {
	job, err := jobs.Decode("default", "j", payload)
	if err != nil {
		t.Fatalf("%s: %v", payload, err)
	}
	var served sync.WaitGroup
	fetcher := fetch.New(fetch.Config{Pool: pool, Policy: jobs.DefaultPolicy, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		served.Go(func() {
			defer func() { _ = server.Close() }()
			if request, err := readRaw(bufio.NewReader(server)); err == nil {
				requests = append(requests, request)
				_, _ = io.WriteString(server, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			}
		})
		return client, nil
	}})
	if o := fetcher.Do(t.Context(), &job, &jobs.Progress{}); o.Result.Status != http.StatusOK {
		t.Errorf("%s: %s %s", payload, o.Result.Error, o.Result.Detail)
	}
	fetcher.Close()
	served.Wait()
	return requests
}
