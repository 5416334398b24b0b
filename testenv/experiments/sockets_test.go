package experiments_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// socketSites is the world of silent sites in real time, with a connection of the kernel for each one. Its three ways run beside
// each other. Before the first sites rest, each has cost attempts of a second.
func socketSites(t *testing.T, s size) row {
	t.Helper()
	const slots, settle = 64, 4 * time.Second
	ways := []struct{ answers, rests bool }{{true, false}, {false, false}, {false, true}}
	perSecond := make([]float64, len(ways))
	var running sync.WaitGroup
	for i, way := range ways {
		running.Go(func() {
			net := newWeb(s.seeds[0], func(host string, _ time.Duration) bool { return !way.answers && strings.HasPrefix(host, "silent") })
			net.quick = func(host string) bool { return strings.HasPrefix(host, "silent") }
			w := newStation(net, slots, way.rests, time.Second)
			w.next = func(i int) string {
				if i%10 < 3 {
					return fmt.Sprintf("http://silent%d.test/%d", i/10%10, i)
				}
				return fmt.Sprintf("http://site%d.test/%d", i%20, i)
			}
			w.listen(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(settle+s.sockets, func() { cancel(jobs.ErrStopping) })
			w.run(ctx, t)
			perSecond[i] = w.succeeded(settle) / s.sockets.Seconds()
		})
	}
	running.Wait()
	ideal, plain, rested := perSecond[0], perSecond[1], perSecond[2]
	return row{
		name: "27 throughput of others as in 21, on sockets of the kernel in real time", where: fmt.Sprintf("%d slots, attempts of 1 s, %s after %s", slots, s.sockets, settle),
		aim: "≥ 90 %", baseline: percent(plain / ideal), gofer: percent(rested / ideal), gain: fmt.Sprintf("×%.1f", rested/plain), seeds: "–", met: rested >= 0.9*ideal,
	}
}

// listen lets the station's fetcher dial its proxies at a socket of this machine until the test ends.
func (s *station) listen(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(func() {
		_ = l.Close()
		s.web.wg.Wait()
	})
	s.web.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			s.web.wg.Go(func() {
				defer func() { _ = c.Close() }()
				in := bufio.NewReader(c)
				for more := true; more; {
					more = s.serve(c, in)
				}
			})
		}
	})
	s.proxies = l.Addr().String()
}
