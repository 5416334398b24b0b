package peers_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv/network"
)

// naive is a fleet as one writes it in an afternoon: an http.Client and a sony/gobreaker for each proxy, round robin, three
// attempts of 30 s with a second and two seconds between them. Nothing is known of sites.
type naive struct {
	clients []*http.Client
	judges  []judge
	next    atomic.Int64
}

// newNaive joins such a worker to a network.
func newNaive(w *network.Web, cfg network.Config) *network.Station {
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	n := &naive{}
	cfg.Do, cfg.Close = n.do, n.close
	var s *network.Station
	for _, p := range w.List() {
		n.judges = append(n.judges, sony{gobreaker.NewTwoStepCircuitBreaker[any](sonySettings())})
		n.clients = append(n.clients, &http.Client{Timeout: cfg.Timeout, Transport: &http.Transport{
			Proxy: http.ProxyURL(p.URL), MaxIdleConnsPerHost: cfg.Slots,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) { return s.Dial(ctx, network, addr) },
		}})
	}
	s = network.NewStation(w, cfg)
	return s
}

func (n *naive) close() {
	for _, c := range n.clients {
		c.CloseIdleConnections()
	}
}

func (n *naive) do(ctx context.Context, job *jobs.Job, _ *jobs.Progress) *jobs.RunOutcome {
	for attempt := range attempts {
		if attempt > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(time.Second << (attempt - 1)):
			}
		}
		status, err := n.attempt(ctx, job.URL)
		if ctx.Err() != nil {
			return &jobs.RunOutcome{Kind: jobs.RunStopped}
		}
		if err == nil {
			return &jobs.RunOutcome{Kind: jobs.RunFinished, Result: jobs.Result{Outcome: jobs.Succeeded, Status: status}}
		}
	}
	return &jobs.RunOutcome{Kind: jobs.RunFinished, Result: jobs.Result{Outcome: jobs.Failed}}
}

// attempt makes a request through the next proxy whose breaker admits it. It fails with a status that gofer would not take for a
// result at once, either.
func (n *naive) attempt(ctx context.Context, target string) (status int, err error) {
	for range n.clients {
		i := int(n.next.Add(1)) % len(n.clients)
		settle, admitted := n.judges[i].allow()
		if !admitted {
			continue
		}
		status, err := get(ctx, n.clients[i], target)
		settle(err == nil || ctx.Err() != nil)
		return status, err
	}
	return 0, errors.New("no proxy")
}

func get(ctx context.Context, c *http.Client, target string) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody)
	if err != nil {
		return 0, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	switch resp.StatusCode {
	case http.StatusForbidden, http.StatusBadGateway:
		err = errors.Join(err, errFailed)
	}
	return resp.StatusCode, errors.Join(err, resp.Body.Close())
}
