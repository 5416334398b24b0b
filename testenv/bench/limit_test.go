package bench_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/fetch/http1"
)

// limit is the guarded loop with the cheapest parts that are known: gofer's own exchange on connections that are kept, gofer's
// guarded publish, and acks that are sent in groups. It writes the whole result that the contract asks for. It shows how much of
// gofer's cost no worker with the same guarantee can save.
type limit struct {
	client *bus.Client
	pool   []*peer
	next   chan int // numbers of the proxies, in turn
}

// peer is a proxy with its idle connections.
type peer struct {
	address string
	buffers *http1.Buffers
	mu      sync.Mutex // guards idle
	idle    []*http1.Conn
}

// newLimit prepares it for the installation that the connection leads to.
func newLimit(nc *nats.Conn, proxies []string) (*limit, error) {
	names, err := jobs.NewNames("")
	if err != nil {
		return nil, err
	}
	client, err := bus.New(nc, names)
	if err != nil {
		return nil, err
	}
	l := &limit{client: client, next: make(chan int, len(proxies))}
	buffers := &http1.Buffers{}
	for i, proxy := range proxies {
		l.pool = append(l.pool, &peer{address: strings.TrimPrefix(proxy, "http://"), buffers: buffers})
		l.next <- i
	}
	return l, nil
}

// fetchOnce fetches and settles one job.
func (l *limit) fetchOnce(msg jetstream.Msg) error {
	i := <-l.next
	l.next <- i
	began := time.Now()
	resp, body, err := l.pool[i].get(string(msg.Data()))
	if err != nil {
		return err
	}
	queue, id, _ := jobs.SplitSubject(msg.Subject())
	result := jobs.Result{
		Queue: queue, ID: id, Outcome: jobs.Succeeded, Status: resp.StatusCode, URL: string(msg.Data()), AttemptCount: 1, Bytes: int64(len(body)),
		Proxy: l.pool[i].address, Duration: time.Since(began), Worker: "limit", FinishedAt: time.Now(), Body: body, Header: resp.Header, JobSeq: 1,
	}
	if _, err := l.client.StoreResult(context.Background(), &result); err != nil {
		return err
	}
	l.client.SendSoon(nats.Msg{Subject: msg.Reply(), Data: []byte("+ACK")}, 0, l)
	return nil
}

// Wants reports whether an ack has to be sent.
func (l *limit) Wants(uint64) bool { return true }

// Fail forgets an ack that could not be sent: the loop keeps no promise.
func (l *limit) Fail(uint64, error) {}

// get does one exchange through the proxy.
func (p *peer) get(url string) (*http1.Response, []byte, error) {
	conn, err := p.take()
	if err != nil {
		return nil, nil, err
	}
	host, _, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	resp, err := conn.Do(&http1.Request{Method: http.MethodGet, Target: url, Host: host}, http1.Watch{})
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	body, err := io.ReadAll(resp.Body)
	if closed := resp.Body.Close(); err != nil || closed != nil || !resp.Reusable() {
		_ = conn.Close()
		return resp, body, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, conn)
	return resp, body, nil
}

// take takes an idle connection, or opens one.
func (p *peer) take() (*http1.Conn, error) {
	p.mu.Lock()
	if last := len(p.idle) - 1; last >= 0 {
		conn := p.idle[last]
		p.idle = p.idle[:last]
		p.mu.Unlock()
		return conn, nil
	}
	p.mu.Unlock()
	conn, err := net.DialTimeout("tcp", p.address, 10*time.Second)
	if err != nil {
		return nil, err
	}
	return http1.New(conn, conn, p.buffers), nil
}
